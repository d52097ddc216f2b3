"""`Columns`: the second round of a grid, from the mean of our row to that of all rows.

The row certifies its mean, gives the certificate to its members' columns, and takes those of the other rows, each from
whoever has it first. Whoever hears of a row tells its own row, so that all of it know the same rows when the wait is
over. Then everybody fetches the other rows' means, from its column first, checks each block against the certificate,
and combines them. A row that is not certified in time is left out; its members fetch the result, like all who are late.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import trio

from iota_p2p.merge.block_fetch import BlockFetch, Blocks
from iota_p2p.merge.certifying import Certifying
from iota_p2p.merge.collecting import FAILURES
from iota_p2p.merge.encounter import Outcome
from iota_p2p.merge.letters import Letter, Letters
from iota_p2p.merge.memory import MergeMemory
from iota_p2p.merge.round import Committed, Contributor, Means, Round
from iota_p2p_crypto.block_commitment import commit_blocks
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.errors import RemoteProtocolError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.butterfly.codec import block_counts
from iota_p2p_protocols.butterfly.exchange import Span
from iota_p2p_protocols.butterfly.grid import Seat, combine_rows
from iota_p2p_protocols.butterfly.merge_certificate import lost_shards
from iota_p2p_protocols.butterfly.row_mean import (
    RowMean,
    check_other_row,
    check_own_row,
    choose_rows,
    is_row,
    row_mean_of,
)
from iota_p2p_protocols.butterfly.vote import open_vote_certificate
from iota_p2p_protocols.message import open_signed, seal_message

# How long rows wait for each other: the slowest one may wait for the dead in each phase of its butterfly.
ROWS_S = 6.0
# Certificates of one row that we look at: a row cut in two has two, and more need two thirds of it to lie.
MAX_OF_A_ROW = 2

_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Columns:
    """One member's second round.

    Attributes:
        means: how others are called.
        letters: how members talk.
        memory: what they may ask us for; our row's mean will be in it.
        seat: who was drawn for which row.
        outcome: of our row.
        accuse: told proofs against members that signed two means of our row.
        known: certified row means, ours among them.
    """

    means: Means
    letters: Letters
    memory: MergeMemory
    seat: Seat
    outcome: Outcome
    accuse: Callable[[bytes], None]
    known: list[Verified[RowMean]] = field(default_factory=list)
    _num_bytes: int = 0
    _certifying: Certifying[RowMean] = field(init=False)

    def __post_init__(self) -> None:
        """Be ready to vote."""
        roster = self.outcome.certificate
        self._certifying = Certifying(self.means, self.letters, roster, self.accuse, RowMean, check_own_row)

    async def run(self) -> Outcome | None:
        """Return the outcome with the mean of all rows; None if ours does not count or some row's cannot be had."""
        round_ = self.outcome.round_
        committed = await self.means.beside(self._commit)
        lost = lost_shards(round_.shard_map, self.outcome.reduction.claims)
        own = row_mean_of(self.outcome.certificate, lost, committed.commitment.root)
        if not is_row(own.peers, self.seat.mates):
            return None
        name = open_signed(seal_message(own, self.means.identity), RowMean).digest
        self.memory.keep_committed(round_.stage, round_.epoch, name, committed)
        certificate = await self._certifying.run(own)
        if certificate is None or certificate.digest != name:
            return None
        self.known.append(certificate)
        self.letters.send("column", certificate.envelope_bytes, self.seat.column())
        await self._hear(own)
        rows = choose_rows(self.known)
        if certificate not in rows:
            return None  # most members began with other weights
        return await self._combine(rows, committed)

    def _commit(self) -> Committed:
        """Return our row's mean as what others may ask for: zeros where it was lost; takes long."""
        round_, results = self.outcome.round_, self.outcome.reduction.results
        codec, mean_W = round_.result, self.outcome.reduction.gradient_W
        blocks: list[bytes | memoryview] = []
        for shard in round_.shard_map.shards:
            if shard.index in results:
                blocks += results[shard.index]
            else:
                blocks += (codec.encode(np.zeros(round_.values_in(index), np.float32)) for index in shard.blocks)
        encoded = b"".join(blocks)
        return Committed(codec, round_.num_values, encoded, commit_blocks(encoded, codec.block_bytes), mean_W)

    async def linger(self) -> None:
        """Hear for a moment more what others signed of our row, for proofs only."""
        await self._certifying.linger()

    async def _hear(self, own: RowMean) -> None:
        """Take other rows' certificates until all are here or time is up."""
        until_s = trio.current_time() + ROWS_S
        while True:
            self._certifying.hear()
            for letter in self.letters.read("column"):
                self._take(letter, own)
            rows = {one.payload.row for one in self.known}
            if len(rows) == own.num_rows or not await self.letters.more(until_s):
                return

    def _take(self, letter: Letter, own: RowMean) -> None:
        try:
            with self.means.streams.ledger.charging(letter.sender):
                certificate = open_vote_certificate(letter.data, RowMean)
            check_other_row(certificate.payload, own, self.seat)  # of nobody's fault: views differ
        except RemoteProtocolError as error:
            _log.info("row refused", extra={"peer": letter.sender, "reason": str(error)})
            return
        of_it = [one for one in self.known if one.payload.row == certificate.payload.row]
        if len(of_it) < MAX_OF_A_ROW and all(one.digest != certificate.digest for one in of_it):
            self.known.append(certificate)
            self.letters.send("column", certificate.envelope_bytes, sorted(self.seat.mates))

    async def _combine(self, rows: Sequence[Verified[RowMean]], committed: Committed) -> Outcome | None:
        brought: dict[int, Blocks] = {}
        async with trio.open_nursery() as nursery:
            for one in rows:
                nursery.start_soon(self._bring, one, committed, brought)
        if len(brought) < len(rows):
            return None
        reduction = self.outcome.reduction
        gradient_W = await self.means.beside(
            partial(
                combine_rows,
                [brought[one.payload.row] for one in rows],
                [one.payload.samples for one in rows],
                committed.codec,
                committed.num_values,
            )
        )
        combined = replace(reduction, gradient_W=gradient_W, bytes_in=reduction.bytes_in + self._num_bytes)
        return replace(self.outcome, reduction=combined, rows=tuple(rows))

    async def _bring(self, mean: Verified[RowMean], committed: Committed, brought: dict[int, Blocks]) -> None:
        """Bring one row's mean, from whoever of it gives it, our column first."""
        row, lost = mean.payload.row, mean.payload.lost_blocks
        wanted = [index for index in range(len(block_counts(committed.num_values))) if index not in lost]
        if row == self.seat.row:
            brought[row] = {index: committed.blocks(Span(first=index, count=1)) for index in wanted}
            return
        drawn = [peer_id for peer_id in self.seat.sources(row) if peer_id in mean.payload.peers]
        round_ = self._row(mean, drawn, committed)
        for member, peer_id in enumerate(drawn):
            fetch = BlockFetch(self.means, round_, member)
            try:
                await fetch.run(wanted)
            except FAILURES as error:
                _log.info("row not fetched", extra={"peer": peer_id, "reason": str(error) or "too slow"})
                continue
            finally:
                self._num_bytes += fetch.num_bytes
            brought[row] = fetch.blocks
            return

    def _row(self, mean: Verified[RowMean], sources: Sequence[PeerId], committed: Committed) -> Round:
        """Return a row as a round in which each of its members contributed its mean."""
        payload = mean.payload
        members = tuple(Contributor(one, mean.digest, payload.root, payload.samples) for one in sources)
        return Round(
            mean.digest, payload.epoch, payload.stage, committed.codec, payload.num_values, members, 0, committed
        )
