"""Which replicas a stage has, and how much each is to carry: the ground on which pathways are drawn.

Weights are frozen per epoch, so that anybody can repeat a draw; a peer that joined since counts with its advert's
weight. Who is not live in our view is left out. An offer of 0 tokens/s is a promise: the stage is still being fetched.
"""

from collections.abc import Mapping

from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.view import View


class Routes:
    """The replicas of every stage as adverts tell."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._frozen: dict[int, dict[PeerId, int]] = {}

    def start_epoch(self) -> None:
        """Freeze the weights that adverts state now."""
        self._frozen = {}
        for peer_id in self._view.live():
            for stage, weight in self._advertised(peer_id).items():
                self._frozen.setdefault(stage, {})[peer_id] = weight

    def replicas(self, stage: int) -> Mapping[PeerId, int]:
        """Return a stage's live replicas with their weights: frozen ones where there are, else as advertised."""
        frozen = self._frozen.get(stage, {})
        weights = {}
        for peer_id in self._view.live():
            weight = self._advertised(peer_id).get(stage)
            if weight is not None:
                weights[peer_id] = frozen.get(peer_id, weight)
        return weights

    def _advertised(self, peer_id: PeerId) -> dict[int, int]:
        advert = self._view.advert_of(peer_id)
        if advert is None:
            return {}
        return {offer.stage: offer.tokens_per_s for offer in advert.stages if offer.tokens_per_s}
