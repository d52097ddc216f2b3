"""`Custody`: a peer's part in keeping every stage's state, put together; it only composes."""

import logging
from dataclasses import dataclass
from functools import cache, partial

import trio

from iota_p2p.custody.custodian import Custodian
from iota_p2p.custody.fetch_journal import FetchJournal
from iota_p2p.custody.kept_states import KeptStates
from iota_p2p.custody.pusher import Pusher, is_settled
from iota_p2p.custody.recovery import Recovery
from iota_p2p.custody.snapshots import SignedState, Snapshots, StateSigner, TakeState
from iota_p2p.membership.member import Member
from iota_p2p.training.lane import Priority
from iota_p2p.training.stage_state import Settled, StageState, check_state, state_bounds
from iota_p2p.training.state_fetch import StateFetch
from iota_p2p.training.state_files import DamagedStateError, StateFiles
from iota_p2p.training.state_transfer import StateServer
from iota_p2p.training.work_share import WorkShare
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.errors import RefusedError
from iota_p2p_protocols.ids import CUSTODY, STATE

# Of our disk, for states of others: a few stages of a large model, all of a small one.
KEPT_BYTES = 8 * 2**30
_LOOK_EVERY_S = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Custody:
    """The parts of custody."""

    share: WorkShare
    server: StateServer
    custodian: Custodian
    pusher: Pusher
    recovery: Recovery

    @classmethod
    def of(cls, member: Member, share: WorkShare, files: StateFiles, take: TakeState, kept_bytes: int) -> "Custody":
        """Put custody together; `take` freezes a stage we hold."""
        run_id, streams, view = share.spec.run_id, member.network.streams, member.view
        bounds = cache(partial(state_bounds, share.spec))
        signer = StateSigner(member.identity, run_id, bounds, member.clock)
        snapshots = Snapshots(take, signer)
        kept = KeptStates(files.folder / "kept", run_id, kept_bytes)
        journal = FetchJournal(files.folder / "fetching", run_id, share.lane.beside)

        def holders(stage: int) -> set[PeerId]:
            return set(share.routes.replicas(stage))

        custodian = Custodian(
            run_id, share.spec.model.num_stages, kept, view, holders, bounds, member.clock, share.lane.beside
        )

        async def check(state: StageState) -> None:
            await share.lane.run(Priority.BACKGROUND, partial(check_state, state, share.spec))

        def fetching(stage: int) -> StateFetch:
            return StateFetch(
                streams=streams,
                run_id=run_id,
                stage=stage,
                bounds=bounds(stage),
                check=check,
                clock=member.clock,
                find=custodian.chunk,
                journal=journal,
            )

        recovery = Recovery(
            run_id,
            view,
            custodian,
            saved=partial(_saved, share, files),
            fetching=fetching,
            served=lambda stage: sorted(holders(stage) - {view.me}),
        )
        pushed = partial(_pushed, share, snapshots, signer)
        pusher = Pusher(share, view, streams, pushed, member.rng("pusher"))
        server = StateServer(run_id, snapshots, custodian.best, custodian.chunk)
        return cls(share, server, custodian, pusher, recovery)

    async def serve(self) -> None:
        """Answer others from now on."""
        await self.pusher.streams.serve(STATE, self.server.answer)
        await self.pusher.streams.serve(CUSTODY, self.custodian.answer)

    async def run(self) -> None:
        """Push our stages and watch for empty ones until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.pusher.run)
            while True:
                self.recovery.look(self.share.spec.model.num_stages, tuple(self.share.stages))
                await trio.sleep(_LOOK_EVERY_S)


async def _pushed(share: WorkShare, snapshots: Snapshots, signer: StateSigner, stage: int) -> SignedState:
    """Return what to push of a stage; raises RefusedError if we do not hold it."""
    held = share.stages.get(stage)
    if held is None or not is_settled(held):
        return await snapshots.fresh(stage, max_age_s=0)
    settled = await share.lane.run(Priority.BACKWARD, partial(Settled.of, held))
    if settled is None:
        raise RefusedError("not-settled", f"expected a stage whose first state we know, got {stage}")
    return await signer.sign(await share.lane.beside(partial(settled.state, share.spec)))


async def _saved(share: WorkShare, files: StateFiles, stage: int) -> StageState | None:
    """Return our own last save of a stage; None if there is none that is whole."""
    try:
        return await share.lane.beside(partial(files.load, stage))
    except DamagedStateError as error:
        _log.warning("saved state set aside", extra={"stage": stage, "reason": str(error)})
        return None
