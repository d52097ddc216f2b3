"""Looking at what another peer did on a stage in an epoch: its log first, then a segment of its work, done again.

Nothing of the peer's is believed: its log, checkpoint and stash must be those it committed to, payloads are asked for
by digest, and what comes out is compared with what receipts and loss records say.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from iota_p2p.model.boundary.codes import DivergedError
from iota_p2p.network.streams import Streams
from iota_p2p.training.stage_state import state_bounds
from iota_p2p.training.work_share import WorkShare
from iota_p2p.validation.replay_exchange import ReplaySource
from iota_p2p.validation.segment_replay import SegmentReplay, Shown
from iota_p2p.validation.work_keeper import STATES_BYTES
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.errors import PeerUnavailableError, RemoteProtocolError
from iota_p2p_protocols.scoring.evidence import JoinedEvidence
from iota_p2p_protocols.scoring.replay_verdict import Verdict, check_log, owed_by, read_log
from iota_p2p_protocols.scoring.segments import Segment, most_segments, segments_committed
from iota_p2p_protocols.scoring.work_commitment import WorkCommitment
from iota_p2p_protocols.work_log import MAX_LOG_BYTES, Forward, WorkLog

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Replayer:
    """Looks at one commitment after the other.

    Attributes:
        streams: how peers are asked.
        share: the run, its data and our device.
    """

    streams: Streams
    share: WorkShare

    async def read(self, work: Verified[WorkCommitment], evidence: JoinedEvidence) -> Shown | Verdict:
        """Fetch a peer's log and read it; return it, or the verdict if that is clear already.

        A peer that does not show its log has "no-evidence".
        """
        return await self._judging(work, partial(self._read, work, evidence))

    async def redo(self, shown: Shown, segment: Segment, is_wanted: Callable[[], bool]) -> Verdict:
        """Do a segment again, and judge it by what the evidence says.

        A replay that is not done when it is no longer wanted counts as not drawn.
        """
        source = self._source(shown.work)
        one = SegmentReplay(self.share, source, shown, segment, is_wanted, state_bounds(self.share.spec, source.stage))
        return await self._judging(shown.work, one.run)

    async def _read(self, work: Verified[WorkCommitment], evidence: JoinedEvidence) -> Shown | Verdict:
        data = await self._source(work).fetch("log", MAX_LOG_BYTES)
        return await self.share.lane.beside(partial(self._check, work, data, evidence))

    def _check(self, work: Verified[WorkCommitment], data: bytes, evidence: JoinedEvidence) -> Shown | Verdict:
        log, spec = WorkLog.from_bytes(data), self.share.spec
        most = most_segments(state_bounds(spec, work.payload.stage).weights_bytes, STATES_BYTES)
        wrong = check_log(log, work.payload, spec.epoch.microbatches_per_step, most)
        if wrong != "none":
            return Verdict("failed", wrong)
        for entry in log.entries:
            if isinstance(entry, Forward):
                self.share.data.check_counter(entry.microbatch)
        segments = segments_committed(log, most, work.payload.num_segments)
        owed = owed_by(work.signer, work.payload.stage, evidence, self.share.terms.run_id)
        verdict = read_log(log, owed)
        return verdict if verdict.replay == "failed" else Shown(work, log, segments, owed)

    def _source(self, work: Verified[WorkCommitment]) -> ReplaySource:
        return ReplaySource(self.streams, work.signer, work.payload.epoch, work.payload.stage)

    async def _judging(self, work: Verified[WorkCommitment], look: Callable[[], Awaitable[T | Verdict]]) -> T | Verdict:
        about = {"peer": work.signer, "stage": work.payload.stage}
        try:
            return await look()
        except PeerUnavailableError as error:
            _log.info("not replayed", extra={**about, "reason": str(error)})
            return Verdict("no-evidence")
        except (RemoteProtocolError, DivergedError) as error:
            _log.warning("not replayable", extra={**about, "reason": str(error)})
            return Verdict("failed", "not-replayable")
