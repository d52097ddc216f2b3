"""`Merger`: a peer's part in the merges of all stages that it holds."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import trio

from iota_p2p.membership.member import Member, open_recent
from iota_p2p.merge.memory import MergeMemory
from iota_p2p.merge.merge_server import MergeServer
from iota_p2p.merge.record import MergeRecord
from iota_p2p.merge.round import Means
from iota_p2p.merge.signed_epochs import SignedEpochs
from iota_p2p.merge.stage_merge import StageMerge
from iota_p2p.run.spec import MergeSpec
from iota_p2p.training.held_stage import HeldStage
from iota_p2p.training.work_share import WorkShare
from iota_p2p_crypto.errors import PeerUnavailableError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.butterfly.contribution import validate_contribution_gossip
from iota_p2p_protocols.butterfly.exchange import Note
from iota_p2p_protocols.butterfly.faults import verify_fault
from iota_p2p_protocols.errors import RefusedError
from iota_p2p_protocols.ids import CONTRIBUTIONS, MERGE, MERGES, TopicSpec

LOOK_EVERY_S = 0.1  # whether stages were taken or let go

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Merger:
    """Merges all held stages; open for letters from `serve` on.

    Attributes:
        member: who we are and who else is there.
        share: what we hold.
        spec: how the run merges.
        signed: which merges we may have signed something of, also in an earlier life.
        memory: what others may ask us for.
        on_merged: told of every epoch of a stage that begins.
        on_fault: told of every proof of what a member did.
        kind: how stages merge; bad peers of tests do it otherwise.
    """

    member: Member
    share: WorkShare
    spec: MergeSpec
    signed: SignedEpochs
    memory: MergeMemory = field(default_factory=MergeMemory)
    on_merged: Callable[[MergeRecord], None] = lambda _: None
    on_fault: Callable[[bytes], None] = lambda _: None
    kind: type[StageMerge] = StageMerge
    _merges: dict[int, StageMerge] = field(default_factory=dict)

    @property
    def server(self) -> MergeServer:
        """What answers others."""
        return MergeServer(self.memory, self._take)

    async def serve(self) -> None:
        """Answer others from now on."""
        await self.member.network.streams.serve(MERGE, self.server.answer)

    def turn(self) -> None:
        """Tell all stages that the run has gone on to another epoch."""
        for merge in self._merges.values():
            merge.turn()

    async def run(self) -> None:
        """Merge until cancelled."""
        async with (
            self.member.network.gossip.subscribe(CONTRIBUTIONS, self._hear) as heard,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(self._watch, nursery)
            async for _ in heard:
                pass

    async def _watch(self, nursery: trio.Nursery) -> None:
        """Have a task for every stage that is held."""
        while True:
            for index, held in sorted(self.share.stages.items()):
                if index not in self._merges or self._merges[index].held is not held:
                    self._merges[index] = self._open(held, nursery)
                    nursery.start_soon(self._merges[index].run)
            for index in self._merges.keys() - self.share.stages.keys():
                self._merges.pop(index).turn()
                self.memory.forget_stage(index)
            await trio.sleep(LOOK_EVERY_S)

    def _open(self, held: HeldStage, nursery: trio.Nursery) -> StageMerge:
        member = self.member
        means = Means(
            identity=member.identity,
            run_id=self.share.terms.run_id,
            streams=member.network.streams,
            beside=self.share.lane.beside,
            clock=member.clock,
        )

        def announce(what: Literal["contribution", "merge"], data: bytes) -> None:
            nursery.start_soon(self._publish, CONTRIBUTIONS if what == "contribution" else MERGES, data)

        def tell(record: MergeRecord) -> None:
            self.on_merged(replace(record, named=self._note_faults(record.stage, record.faults)))

        def accuse(fault: bytes) -> None:
            self._note_faults(held.index, (fault,))

        rendezvous = member.network.rendezvous
        return self.kind(
            means, rendezvous, self.share, held, self.spec, self.memory, self.signed, nursery, announce, tell, accuse
        )

    def _note_faults(self, stage: int, faults: Sequence[bytes]) -> tuple[PeerId, ...]:
        """Charge whom a proof names, once for each kind, and pass it on; return who they are."""
        noted = set()
        for fault in faults:
            verdict = verify_fault(fault)
            if (verdict.liar, verdict.kind) in noted:
                continue
            noted.add((verdict.liar, verdict.kind))
            text = f"{verdict.kind} fault of {verdict.liar} in epoch {verdict.epoch}: {verdict.reason}"
            _log.warning(text, extra={"stage": stage, "peer": verdict.liar})
            self.member.network.ledger.charge(verdict.liar, f"fault-{verdict.kind}", verdict.reason)
            self.on_fault(fault)
        return tuple(sorted({liar for liar, _ in noted}))

    async def _publish(self, topic: TopicSpec, data: bytes) -> None:
        try:
            await self.member.network.gossip.publish(topic, data)
        except PeerUnavailableError as error:
            _log.debug("not published", extra={"topic": topic.name, "reason": str(error)})

    def _hear(self, data: bytes, author: PeerId) -> None:
        run_id, now_s = self.share.terms.run_id, self.member.clock()
        contribution = validate_contribution_gossip(
            data, author, run_id=run_id, epoch=self.share.epoch, now_s=now_s, opener=open_recent
        )
        merge = self._merges.get(contribution.payload.stage)
        if contribution.payload.num_rows > 1:
            return  # of so many replicas most are in other rows; those of ours bring it themselves
        if merge is not None and merge.held.epoch == contribution.payload.epoch:
            merge.letters.take(author, "contribution", data)

    def _take(self, caller: PeerId, note: Note) -> None:
        merge = self._merges.get(note.stage)
        if merge is None:
            raise RefusedError("not-yet", f"expected a stage that we hold, got {note.stage}")
        if note.epoch > merge.letters.epoch:
            raise RefusedError("not-yet", f"expected epoch {merge.letters.epoch}, got {note.epoch}")
        if note.epoch == merge.letters.epoch:
            merge.letters.take(caller, note.what, note.data)
        elif note.epoch == merge.previous.epoch and note.what == "merge":
            merge.previous.take(caller, note.what, note.data)
        else:
            raise RefusedError("merged", f"expected epoch {merge.letters.epoch}, got {note.epoch}")
