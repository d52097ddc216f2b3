"""Contributions, rosters and certificates of a few fixed members, as the butterfly's tests and vectors use them."""

from collections.abc import Sequence
from typing import Any

from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.butterfly.contribution import Contribution
from iota_p2p_protocols.butterfly.roster import Proposal, RosterCertificate, certified, join_signatures, propose
from iota_p2p_protocols.butterfly.roster import countersign as countersign_as
from iota_p2p_protocols.message import open_signed, seal_message
from iota_p2p_protocols.progress import Progress
from tests.core.members import NOW_S, PEERS, RUN

EPOCH, STAGE = 7, 1
SEED = digest(b"epoch seed")
FOUR = PEERS[:4]


def contribution(**changes: Any) -> Contribution:
    fields = {
        "run_id": RUN,
        "sequence": 1,
        "issued_s": NOW_S,
        "expires_s": NOW_S + 600,
        "epoch": EPOCH,
        "stage": STAGE,
        "codec": "int8",
        "num_values": 100_000,
        "root": digest(b"root"),
        "samples": 40,
        "base_digest": digest(b"base"),
        "log_root": digest(b"log"),
        "end_digest": digest(b"end"),
    }
    return Contribution.model_validate({**fields, **changes})


def contributed(by: Identity, **changes: Any) -> Verified[Contribution]:
    return open_signed(seal_message(contribution(**changes), by), Contribution)


def contributions_of(peers: Sequence[Identity], **changes: Any) -> tuple[Verified[Contribution], ...]:
    return tuple(contributed(peer, root=digest(peer.public_key), **changes) for peer in peers)


def proposal_of(peers: Sequence[Identity], attempt: int = 0, signers: Sequence[Identity] = ()) -> Proposal:
    """Return a proposal with all peers' contributions, by the first one unless signers are given."""
    by = signers or peers[:1]
    proposal = propose(contributions_of(peers), attempt, by[0])
    return join_signatures(proposal, [countersign_as(proposal, signer) for signer in by[1:]])


def certificate_of(peers: Sequence[Identity], attempt: int = 0) -> RosterCertificate:
    """Return the certificate of a roster that all its members signed."""
    return certified(proposal_of(peers, attempt, peers))


def progress(by: Identity, count: int, epoch: int = 3, **changes: Any) -> Verified[Progress]:
    """Return what a source says that it has done in an epoch."""
    fields = {
        "run_id": RUN,
        "sequence": count + 1,
        "issued_s": NOW_S,
        "expires_s": NOW_S + 600,
        "epoch": epoch,
        "stage": 0,
        "num_microbatches": count,
        "num_tokens": count,
        "loss_sum_micronats": count,
    }
    return open_signed(seal_message(Progress.model_validate({**fields, **changes}), by), Progress)
