"""Routes: live replicas that serve a stage, with weights that hold for an epoch."""

from iota_p2p.training.routes import Routes
from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.advert import StageOffer
from iota_p2p_protocols.view import View
from tests.core.members import PEERS, opened_advert

ME, ONE, OTHER = PEERS[:3]


def tell(view: View, peer: Identity, sequence: int, **speeds: int) -> None:
    """Let a view hear that a peer offers stages, as `s1=100` for 100 tokens/s on stage 1."""
    offers = tuple(StageOffer(stage=int(name[1:]), tokens_per_s=speed) for name, speed in speeds.items())
    view.receive_advert(opened_advert(peer, sequence, stages=offers))


def test_replicas__are_those_that_serve_the_stage() -> None:
    view = View(ME.peer_id)
    tell(view, ONE, 1, s0=5, s1=7)
    tell(view, OTHER, 1, s1=0)
    routes = Routes(view)
    assert dict(routes.replicas(0)) == {ONE.peer_id: 5}
    assert dict(routes.replicas(1)) == {ONE.peer_id: 7}  # the other one only promises
    assert dict(routes.replicas(2)) == {}


def test_weights__are_frozen_until_the_next_epoch_but_newcomers_count() -> None:
    view = View(ME.peer_id)
    tell(view, ONE, 1, s1=7)
    routes = Routes(view)
    routes.start_epoch()
    tell(view, ONE, 2, s1=900)
    tell(view, OTHER, 1, s1=3)
    assert dict(routes.replicas(1)) == {ONE.peer_id: 7, OTHER.peer_id: 3}
    routes.start_epoch()
    assert dict(routes.replicas(1)) == {ONE.peer_id: 900, OTHER.peer_id: 3}
    tell(view, ONE, 3, s0=7)
    assert dict(routes.replicas(1)) == {OTHER.peer_id: 3}  # whatever was frozen
