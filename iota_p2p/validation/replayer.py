"""Replaying what another peer did on a stage in an epoch, behind all other work, and judging it.

Nothing of the peer's is believed: its log and first checkpoint must be those it committed to, payloads are asked for
by digest, and what comes out is compared with what receipts and loss records say.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from iota_p2p.model.boundary.codes import DivergedError
from iota_p2p.model.compute import NUM_STEPS, Held, StageCompute
from iota_p2p.model.state import tensors_in
from iota_p2p.network.streams import Streams
from iota_p2p.training.lane import Priority
from iota_p2p.training.replay import Replaying
from iota_p2p.training.stage_state import StageState, StateBounds, check_state, state_bounds
from iota_p2p.training.work_share import WorkShare
from iota_p2p.validation.replay_exchange import ReplaySource
from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.errors import MalformedError, PeerUnavailableError, RemoteProtocolError
from iota_p2p_protocols.loss_record import loss_micronats
from iota_p2p_protocols.microbatch import MicrobatchId
from iota_p2p_protocols.scoring.evidence import JoinedEvidence
from iota_p2p_protocols.scoring.replay_verdict import (
    Likeness,
    Owed,
    Redone,
    Replayed,
    Verdict,
    check_log,
    judge,
    owed_by,
)
from iota_p2p_protocols.scoring.work_commitment import WorkCommitment
from iota_p2p_protocols.work_log import MAX_LOG_BYTES, Backward, Forward, WorkLog

Floats = npt.NDArray[np.float64]

# Of a busy lane's turns one in four goes to the background (`lane`); with so many entries in each, a replay takes no
# longer than the work it repeats, and whoever waits behind one does for two microbatches.
ENTRIES_PER_TURN = 4

# Thirty thousand years of one a second; far from where adding to it overflows.
MAX_STEPS = 2**40

_log = logging.getLogger(__name__)


def likeness(one: Floats, other: Floats) -> Likeness:
    """Compare two vectors; nothing is like nothing."""
    norms = sorted((float(np.linalg.norm(one)), float(np.linalg.norm(other))))
    if norms[1] == 0:
        return Likeness(1.0, 1.0)
    if norms[0] == 0:
        return Likeness(0.0, 0.0)
    return Likeness(norms[0] / norms[1], float(np.dot(one, other)) / (norms[0] * norms[1]))


@dataclass(slots=True)
class Replayer:
    """Replays one commitment after the other.

    Attributes:
        streams: how peers are asked.
        share: the run, its data and our device.
    """

    streams: Streams
    share: WorkShare

    async def run(
        self, work: Verified[WorkCommitment], evidence: JoinedEvidence, is_wanted: Callable[[], bool]
    ) -> Verdict:
        """Replay what a peer committed to, and judge it by what the evidence says it did.

        A peer that does not show its work has "no-evidence"; a replay that is not done when it is no longer wanted
        counts as not drawn.
        """
        said = work.payload
        try:
            source = ReplaySource(self.streams, work.signer, said.epoch, said.stage)
            owed = await self.share.lane.beside(
                partial(owed_by, work.signer, said.stage, evidence, self.share.terms.run_id)
            )
            return await _OneReplay(self.share, source, said, owed, is_wanted).run()
        except PeerUnavailableError as error:
            _log.info("not replayed", extra={"peer": work.signer, "stage": said.stage, "reason": str(error)})
            return Verdict("no-evidence")
        except (RemoteProtocolError, DivergedError) as error:
            _log.warning("not replayable", extra={"peer": work.signer, "stage": said.stage, "reason": str(error)})
            return Verdict("failed", "not-replayable")


def _redo(replaying: Replaying, positions: Iterable[int]) -> list[Held | None]:
    return [replaying.redo(position) for position in positions]


@dataclass(slots=True)
class _OneReplay:
    """One commitment's replay; `owed` is what it is judged by."""

    share: WorkShare
    source: ReplaySource
    work: WorkCommitment
    owed: list[Owed]
    is_wanted: Callable[[], bool]
    _redone: list[Redone] = field(default_factory=list)
    _differing: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)  # what came out, and the digest sent

    async def run(self) -> Verdict:
        """Fetch, redo, compare, judge."""
        log = WorkLog.from_bytes(await self.source.fetch("log", MAX_LOG_BYTES))
        wrong = check_log(log, self.work, self.share.spec.epoch.microbatches_per_step)
        if wrong != "none":
            return Verdict("failed", wrong)
        self._check_microbatches(log)
        bounds = state_bounds(self.share.spec, self.work.stage)
        start = await self._checkpoint("start", self.work.start_digest, bounds)
        payloads = await self.source.payloads(self._needed(log), self._payload_bytes)
        compute = await self.share.lane.run(Priority.BACKGROUND, partial(self._compute, start))
        replaying = Replaying(compute, log, self.share.data, payloads.get)
        owed = {(one.microbatch, one.in_digest): one.out_digest for one in self.owed}
        goes_back = {entry.forward: entry.in_digest for entry in log.entries if isinstance(entry, Backward)}
        entries = log.entries
        for first in range(0, len(entries), ENTRIES_PER_TURN):
            if not self.is_wanted():
                return Verdict("not-drawn")
            some = range(first, min(first + ENTRIES_PER_TURN, len(entries)))
            redo = partial(_redo, replaying, some)
            for position, held in zip(some, await self.share.lane.run(Priority.BACKGROUND, redo), strict=True):
                entry = entries[position]
                if isinstance(entry, Forward) and held is not None:
                    self._note(entry, held, goes_back.get(position), owed)
        await self._compare_outputs(compute)
        end = await self.share.lane.run(Priority.BACKGROUND, compute.checkpoint)
        alike = None if digest(end) == self.work.end_digest else await self._compare_ends(start, end, bounds)
        return judge(self.work, self.owed, Replayed(self._redone, digest(end), alike))

    @property
    def _payload_bytes(self) -> int:
        return max(self.share.terms.activation_bytes, self.share.terms.gradient_bytes)

    def _check_microbatches(self, log: WorkLog) -> None:
        limit = self.share.data.microbatches_per_source
        for entry in log.entries:
            if isinstance(entry, Forward) and entry.microbatch.counter >= limit:
                raise MalformedError("microbatch-counter", f"expected a counter below {limit} in a log, got more")

    async def _checkpoint(self, what: str, expected: bytes, bounds: StateBounds) -> bytes:
        """Return the start or end checkpoint, checked down to its last number."""
        data = await self.source.fetch("start" if what == "start" else "end", bounds.max_bytes)
        await self.share.lane.beside(partial(self._check_checkpoint, data, expected))
        return data

    def _check_checkpoint(self, data: bytes, expected: bytes) -> None:
        if digest(data) != expected:
            raise MalformedError("replay-checkpoint", f"expected the checkpoint {expected.hex()[:16]}, got another")
        steps = tensors_in(data).get(NUM_STEPS)
        if steps is None or steps.shape or steps.dtype != torch.int64 or not 0 <= int(steps) <= MAX_STEPS:
            raise MalformedError("state-steps", f"expected a number of steps, got {steps}")
        num_steps = int(steps)
        check_state(StageState(self.work.stage, self.work.epoch, num_steps, data), self.share.spec)

    def _needed(self, log: WorkLog) -> list[bytes]:
        """Return the digests of all payloads that the log works on, each once, in order."""
        kinds: tuple[type[Forward | Backward], ...] = ()
        if self.work.stage > 0:
            kinds += (Forward,)
        if self.work.stage < self.share.terms.num_stages - 1:
            kinds += (Backward,)
        return list(dict.fromkeys(entry.in_digest for entry in log.entries if isinstance(entry, kinds)))

    def _compute(self, start: bytes) -> StageCompute:
        spec = self.share.spec
        compute = StageCompute(spec, self.work.stage, seed=spec.seed)
        compute.restore(start)
        return compute

    def _note(
        self, entry: Forward, held: Held, backward: bytes | None, owed: Mapping[tuple[MicrobatchId, bytes], bytes]
    ) -> None:
        """Note what a forward came to, and what of it must be compared further."""
        out = None if held.payload is None else digest(held.payload)
        loss = None if held.loss is None else loss_micronats(held.loss)
        sent = owed.get((entry.microbatch, entry.in_digest))
        if held.payload is not None and sent is not None and sent != out:
            self._differing[len(self._redone)] = (held.payload, sent)
        self._redone.append(Redone(entry.microbatch, entry.in_digest, out, loss, backward))

    async def _compare_outputs(self, compute: StageCompute) -> None:
        """Compare outputs that differ with what the peer sent; one that it has no more is like nothing."""
        sent = await self.source.payloads([name for _, name in self._differing.values()], self._payload_bytes)
        for index, (ours, name) in self._differing.items():
            if name in sent:
                one = self._redone[index]
                alike = await self.share.lane.beside(partial(self._compare, compute, one, ours, sent[name]))
                self._redone[index] = replace(one, likeness=alike)

    def _compare(self, compute: StageCompute, one: Redone, ours: bytes, theirs: bytes) -> Likeness:
        boundary = compute.stage.boundary
        tokens_BT = torch.from_numpy(self.share.data.training_window(one.microbatch))[:, :-1]
        decoded = [
            boundary.forward_code.decode(payload, boundary.message_shape(tokens_BT)).double().numpy().ravel()
            for payload in (ours, theirs)
        ]
        return likeness(*decoded)

    async def _compare_ends(self, start: bytes, end: bytes, bounds: StateBounds) -> Likeness:
        """Compare the update of the weights that came out with the one that the peer's own end has."""
        said = await self._checkpoint("end", self.work.end_digest, bounds)
        before, ours, theirs = (
            np.frombuffer(one[-bounds.weights_bytes :], np.float32).astype(np.float64) for one in (start, end, said)
        )
        return likeness(ours - before, theirs - before)
