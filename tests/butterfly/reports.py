"""Reducer reports of a few fixed members, as the tests and vectors of the butterfly use them."""

from collections.abc import Callable, Mapping
from typing import Any

from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.butterfly.agreement import Reports
from iota_p2p_protocols.butterfly.reducer_report import ReducerReport, ShardClaim
from iota_p2p_protocols.butterfly.shard_map import Shard, ShardMap
from iota_p2p_protocols.message import open_signed, seal_message
from tests.core.members import NOW_S, RUN

EPOCH, STAGE = 7, 1
ROSTER = digest(b"roster")
TRUTH = digest(b"what the inputs give")

Said = Callable[[int, Shard], ShardClaim | None]  # what a member claims of a shard


def honest(_: int, shard: Shard) -> ShardClaim:
    return ShardClaim(shard=shard.index, digest=TRUTH)


def report(claims: tuple[ShardClaim, ...], **changes: Any) -> ReducerReport:
    fields = {
        "run_id": RUN,
        "sequence": 1,
        "issued_s": NOW_S,
        "expires_s": NOW_S + 600,
        "epoch": EPOCH,
        "stage": STAGE,
        "roster": ROSTER,
        "claims": tuple(claim.to_fields() for claim in claims),
    }
    return ReducerReport.model_validate({**fields, **changes})


def signed(said: ReducerReport, by: Identity) -> Verified[ReducerReport]:
    return open_signed(seal_message(said, by), ReducerReport)


def reports(drawn: ShardMap, others: Mapping[int, Said] | None = None) -> Reports:
    """Return the reports of all members: honest ones, but for those of `others`."""
    said: dict[int, Said] = dict.fromkeys(range(drawn.num_members), honest) | dict(others or {})
    return {
        member: report(tuple(c for s in drawn.of(member) if s.blocks and (c := says(member, s)) is not None))
        for member, says in said.items()
    }
