"""Doing one segment of another peer's work again: fetch, redo entry by entry, compare."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch

from iota_p2p.model.compute import NUM_STEPS, Held, StageCompute
from iota_p2p.model.state import tensors_in
from iota_p2p.training.lane import Priority
from iota_p2p.training.replay import Replaying
from iota_p2p.training.stage_state import StageState, StateBounds, check_state
from iota_p2p.training.work_share import WorkShare
from iota_p2p.validation.gradient_replay import GradientReplay
from iota_p2p.validation.likeness import likeness, likeness_of_payloads
from iota_p2p.validation.replay_exchange import ReplaySource
from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.errors import MalformedError
from iota_p2p_protocols.loss_record import loss_micronats
from iota_p2p_protocols.scoring.replay_verdict import (
    Likeness,
    Owed,
    Redone,
    Replayed,
    Verdict,
    judge,
    judged_backwards,
    judged_forwards,
)
from iota_p2p_protocols.scoring.segments import Segment, stashed_versions
from iota_p2p_protocols.scoring.work_commitment import WorkCommitment
from iota_p2p_protocols.work_log import Backward, Forward, WorkLog

# Of a busy lane's turns one in four goes to the background (`lane`); with so many entries in each, a replay takes no
# longer than the work it repeats, and whoever waits behind one does for two microbatches.
ENTRIES_PER_TURN = 4

# Thirty thousand years of one a second; far from where adding to it overflows.
MAX_STEPS = 2**40


@dataclass(frozen=True, slots=True)
class Shown:
    """A log that a peer showed, and what it must bear out.

    Attributes:
        work: what the peer committed to.
        log: its log, which holds by itself.
        segments: into which it is cut.
        owed: what records say that it did.
    """

    work: Verified[WorkCommitment]
    log: WorkLog
    segments: tuple[Segment, ...]
    owed: list[Owed]


def _redo(replaying: Replaying, positions: Iterable[int]) -> list[Held | bytes | None]:
    return [replaying.redo(position) for position in positions]


@dataclass(slots=True)
class SegmentReplay:
    """One segment's replay.

    Attributes:
        share: the run, its data and our device.
        source: the peer in question.
        shown: its log.
        segment: what of it is done again.
        is_wanted: whether the verdict is still of use.
        bounds: of the stage's checkpoints.
    """

    share: WorkShare
    source: ReplaySource
    shown: Shown
    segment: Segment
    is_wanted: Callable[[], bool]
    bounds: StateBounds
    _redone: list[Redone] = field(default_factory=list)
    _differing: dict[int, bytes] = field(default_factory=dict)  # what came out instead of what was sent

    async def run(self) -> Verdict:
        """Fetch, redo, compare, judge."""
        log, owed = self.shown.log, self.shown.owed
        judged = judged_forwards(log, self.segment, owed)
        backwards = judged_backwards(log, self.segment, owed)
        gradients = GradientReplay(self.share, self.source, log, self.segment, backwards)
        await gradients.ask()
        positions = self._positions(judged)
        start = await self._checkpoint(self.segment.index)
        stash = await self._stash()
        payloads = await self.source.payloads(self._needed(positions), self._payload_bytes)
        compute = await self.share.lane.run(Priority.BACKGROUND, partial(self._compute, start))
        weights = {version: compute.weights_in(one) for version, one in stash.items()}
        replaying = Replaying(compute, log, self.segment, self.share.data, payloads.get, weights)
        for first in range(0, len(positions), ENTRIES_PER_TURN):
            if not self.is_wanted():
                return Verdict("not-drawn")
            some = positions[first : first + ENTRIES_PER_TURN]
            redo = partial(_redo, replaying, some)
            for position, came in zip(some, await self.share.lane.run(Priority.BACKGROUND, redo), strict=True):
                if isinstance(came, bytes):
                    gradients.note(position, came)
                elif came is not None and position in judged:
                    self._note(judged[position], came)
        await self._compare_outputs(compute)
        await gradients.compare(compute)
        end = await self.share.lane.run(Priority.BACKGROUND, compute.checkpoint)
        said = self.shown.work.payload.checkpoints[self.segment.index + 1]
        alike = None if digest(end) == said else await self._compare_ends(start, end)
        return judge(said, Replayed(self._redone, digest(end), alike, gradients.returned))

    @property
    def _payload_bytes(self) -> int:
        return max(self.share.terms.activation_bytes, self.share.terms.gradient_bytes)

    def _positions(self, judged: Mapping[int, Owed]) -> list[int]:
        """Return what of the segment is done again: all but forwards that neither go back in it nor are judged."""
        entries, segment = self.shown.log.entries, self.segment
        some = range(segment.first, segment.end)
        goes_back = {one.forward for one in entries[segment.first : segment.end] if isinstance(one, Backward)}
        return [n for n in some if not isinstance(entries[n], Forward) or n in goes_back or n in judged]

    def _needed(self, positions: Iterable[int]) -> list[bytes]:
        """Return the digests of all payloads that these entries work on, each once, in order."""
        entries, names = self.shown.log.entries, []
        for entry in (entries[position] for position in positions):
            if isinstance(entry, Forward) and self.source.stage > 0:
                names.append(entry.in_digest)
            elif isinstance(entry, Backward):
                before = entries[entry.forward]
                if isinstance(before, Forward) and entry.forward < self.segment.first and self.source.stage > 0:
                    names.append(before.in_digest)
                if self.source.stage < self.share.terms.num_stages - 1:
                    names.append(entry.in_digest)
        return list(dict.fromkeys(names))

    async def _checkpoint(self, index: int) -> bytes:
        """Return a checkpoint, checked down to its last number."""
        data = await self.source.fetch("checkpoint", self.bounds.max_bytes, index)
        await self.share.lane.beside(partial(self._check_checkpoint, data, index))
        return data

    def _check_checkpoint(self, data: bytes, index: int) -> None:
        work = self.shown.work.payload
        if digest(data) != work.checkpoints[index]:
            raise MalformedError("replay-checkpoint", f"expected checkpoint {index} as committed to, got another")
        steps = tensors_in(data).get(NUM_STEPS)
        if steps is None or steps.shape or steps.dtype != torch.int64 or not 0 <= int(steps) <= MAX_STEPS:
            raise MalformedError("state-steps", f"expected a number of steps, got {steps}")
        check_state(StageState(work.stage, work.epoch, int(steps), data), self.share.spec)
        if index == 0 and digest(data[-self.bounds.weights_bytes :]) != work.theta_digest:
            raise MalformedError("replay-theta", "expected a first checkpoint of the weights committed to, got others")

    async def _stash(self) -> dict[int, bytes]:
        """Return the weights of the forwards before the segment that go back in it, by their versions."""
        versions = stashed_versions(self.shown.log, self.segment.first)
        if not versions:
            return {}
        index, size = self.segment.index - 1, self.bounds.weights_bytes
        data = await self.source.fetch("stash", len(versions) * size, index)
        if len(data) != len(versions) * size or digest(data) != self.shown.work.payload.stashes[index]:
            raise MalformedError("replay-stash", f"expected stash {index} as committed to, got another")
        if not np.isfinite(np.frombuffer(data, np.float32)).all():
            raise MalformedError("state-range", f"expected finite values in stash {index}")
        return {version: data[n * size : (n + 1) * size] for n, version in enumerate(versions)}

    def _compute(self, start: bytes) -> StageCompute:
        spec = self.share.spec
        compute = StageCompute(spec, self.source.stage, seed=spec.seed)
        compute.restore(start)
        return compute

    def _note(self, owed: Owed, held: Held) -> None:
        """Note what a forward came to, and what of it must be compared further."""
        out = None if held.payload is None else digest(held.payload)
        loss = None if held.loss is None else loss_micronats(held.loss)
        if held.payload is not None and owed.out_digest != out:
            self._differing[len(self._redone)] = held.payload
        self._redone.append(Redone(owed, out, loss))

    async def _compare_outputs(self, compute: StageCompute) -> None:
        """Compare outputs that differ with what the peer sent; one that it has no more is like nothing."""
        names = [self._redone[index].owed.out_digest for index in self._differing]
        sent = await self.source.payloads(names, self._payload_bytes)
        for index, ours in self._differing.items():
            one = self._redone[index]
            if one.owed.out_digest in sent:
                compare = partial(self._compare, compute, one.owed, ours, sent[one.owed.out_digest])
                self._redone[index] = replace(one, likeness=await self.share.lane.beside(compare))

    def _compare(self, compute: StageCompute, owed: Owed, ours: bytes, theirs: bytes) -> Likeness:
        boundary = compute.stage.boundary
        tokens_BT = torch.from_numpy(self.share.data.training_window(owed.microbatch))[:, :-1]
        return likeness_of_payloads(boundary.forward_code, boundary.message_shape(tokens_BT), ours, theirs)

    async def _compare_ends(self, start: bytes, end: bytes) -> Likeness:
        """Compare the update of the weights that came out with the one that the peer's own next checkpoint has."""
        said = await self._checkpoint(self.segment.index + 1)
        before, ours, theirs = (
            np.frombuffer(one[-self.bounds.weights_bytes :], np.float32).astype(np.float64)
            for one in (start, end, said)
        )
        return likeness(ours - before, theirs - before)
