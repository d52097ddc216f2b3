"""Proving: what shows to anybody that a member did wrong, made from what it signed and what it serves."""

import logging
from collections.abc import Sequence
from functools import partial

import trio

from iota_p2p.merge.block_fetch import patience_s, split
from iota_p2p.merge.collecting import FAILURES, Collecting, ReducedShard
from iota_p2p.merge.round import Means, Round
from iota_p2p.network.streams import Request
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.errors import InvalidProofError, RemoteProtocolError
from iota_p2p_protocols.butterfly.contribution_fault import make_contribution_fault
from iota_p2p_protocols.butterfly.exchange import ResultRequest, spans_of
from iota_p2p_protocols.butterfly.reducer_fault import ProvedBlock, make_reducer_fault
from iota_p2p_protocols.butterfly.reducer_report import ReducerReport
from iota_p2p_protocols.butterfly.shard_digest import commit_shard
from iota_p2p_protocols.butterfly.shard_map import Shard
from iota_p2p_protocols.ids import MERGE

_log = logging.getLogger(__name__)


async def fetch_results(means: Means, round_: Round, member: int, shards: Sequence[Shard]) -> dict[int, memoryview]:
    """Return the result blocks that a reducer serves, by index; whether they are what it signed is not checked.

    Raises:
        PeerUnavailableError, RefusedError, trio.TooSlowError, RemoteProtocolError: if it does not.
    """
    peer_id = round_.contributors[member].peer_id
    size, total = round_.result.block_bytes, round_.result.encoded_bytes(round_.num_values)
    blocks: dict[int, memoryview] = {}
    for spans in spans_of((index for shard in shards for index in shard.blocks), size):
        request = ResultRequest(roster=round_.roster, spans=spans)
        with trio.fail_after(patience_s(sum(span.count for span in spans) * size)):
            response = await means.streams.call(peer_id, MERGE, Request(request.to_fields()))
        with means.streams.ledger.charging(peer_id):
            blocks.update(split(memoryview(response.payload).cast("B"), spans, size, total))
    return blocks


async def prove_reducer(
    means: Means,
    collecting: Collecting,
    report: Verified[ReducerReport],
    truth: ReducedShard,
    shard: Shard,
) -> bytes | None:
    """Return the proof that a reducer's report is wrong about a shard; None if it does not show what it signed."""
    round_ = collecting.round_
    liar = round_.member_of(report.signer)
    try:
        results = await fetch_results(means, round_, liar, (shard,))
        return await means.beside(partial(_reducer_fault, collecting, report, truth, shard, results))
    except FAILURES as error:
        _log.warning("liar not proved", extra={"peer": report.signer, "reason": str(error) or "too slow"})
        return None


def _reducer_fault(
    collecting: Collecting,
    report: Verified[ReducerReport],
    truth: ReducedShard,
    shard: Shard,
    results: dict[int, memoryview],
) -> bytes:
    round_ = collecting.round_
    claimed = [bytes(results[index]) for index in shard.blocks]
    commitment = commit_shard(claimed, round_.result)
    place = next((at for at, block in enumerate(claimed) if block != truth.blocks[at]), None)
    if place is None or round_.certificate is None:
        raise InvalidProofError("merge-result", "expected the results that were signed, got others")
    index = shard.blocks[place]
    present = [member for member in range(len(round_.contributors)) if member not in truth.claim.missing]
    inputs = {
        member: ProvedBlock(collecting.block_of(member, index), collecting.commitment_of(member).prove_block(index))
        for member in present
    }
    result = ProvedBlock(claimed[place], commitment.prove_block(place))
    return make_reducer_fault(round_.certificate, report, index, inputs, result)


def prove_contributors(collecting: Collecting, reduced: Sequence[ReducedShard]) -> list[bytes]:
    """Return proofs of the members whose committed blocks do not decode, one for each; takes long."""
    certificate = collecting.round_.certificate
    if certificate is None:
        return []
    found = {member: index for shard in reduced for member, index in shard.refused.items()}
    faults = []
    for member, index in sorted(found.items()):
        proof = collecting.commitment_of(member).prove_block(index)
        block = collecting.block_of(member, index)
        try:
            faults.append(make_contribution_fault(certificate.contributions[member], index, block, proof))
        except RemoteProtocolError as error:
            _log.warning("contribution not proved bad", extra={"member": member, "reason": str(error)})
    return faults
