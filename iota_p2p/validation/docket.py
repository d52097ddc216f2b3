"""The docket: proofs of faults, ours and others', so that every validator counts the same ones.

Who finds a proof publishes an accusation; who hears one fetches the proof, checks it, and keeps it. Until the records
of an epoch are signed, an epoch later, there is time for that. An accusation whose proof does not hold is charged to
its author, and one whose proof nobody shows is forgotten.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import floor

import trio

from iota_p2p.audit.dossier import EQUIVOCATION_KIND, MERGE_FAULT_KIND
from iota_p2p.ledger.ledger import Fact
from iota_p2p.validation.bulletin import Bulletin
from iota_p2p.validation.proof_exchange import fetch_proof
from iota_p2p_crypto.digest import Digest, digest
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.errors import PeerUnavailableError, RemoteProtocolError
from iota_p2p_protocols.butterfly.faults import is_fault
from iota_p2p_protocols.ids import FAULTS
from iota_p2p_protocols.message import open_signed, seal_message
from iota_p2p_protocols.scoring.accusation import Accusation, check_accusation
from iota_p2p_protocols.scoring.announcements import KEPT_EPOCHS
from iota_p2p_protocols.scoring.conviction import Charge, Conviction, open_proof
from iota_p2p_protocols.scoring.equivocation import open_equivocation_proof
from iota_p2p_protocols.scoring.score_record import MAX_PROOFS

LIFETIME_S = 86_400
# Of one epoch, in memory and in the ledger: a dozen of the largest proofs, or as many small ones as a record names.
MAX_BYTES_PER_EPOCH = 64 * 2**20
# Accusations whose proofs are on their way; more are dropped, as their authors are likely to be making them up.
MAX_PENDING = 64
PARALLEL_FETCHES = 4
# Whom else to ask for a proof whose accuser has gone.
OTHERS_ASKED = 3

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Docket:
    """Keeps what is proved, epoch by epoch.

    Attributes:
        bulletin: how accusations are made and heard.
        on_fact: told of every proof, for the ledger.
    """

    bulletin: Bulletin
    on_fact: Callable[[Fact], None]
    _proofs: dict[int, dict[Charge, bytes]] = field(default_factory=dict)
    _accusations: dict[int, dict[Charge, bytes]] = field(default_factory=dict)  # of what is proved
    _pending: set[Charge] = field(default_factory=set)
    _wake: trio.Event = field(default_factory=trio.Event)
    _found: list[bytes] = field(default_factory=list)
    _heard: list[Verified[Accusation]] = field(default_factory=list)

    async def run(self) -> None:
        """Accuse, and look into accusations, until cancelled."""
        limiter = trio.CapacityLimiter(PARALLEL_FETCHES)
        self.bulletin.on_accusation = self._hear
        async with trio.open_nursery() as nursery:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                found, self._found = self._found, []
                for proof in found:
                    nursery.start_soon(self._accuse, proof)
                heard, self._heard = self._heard, []
                for accusation in heard:
                    nursery.start_soon(self._look_into, accusation, limiter)

    def file(self, proof: bytes) -> None:
        """Take a proof that we found."""
        if len(self._found) < MAX_PENDING:
            self._found.append(proof)
            self._wake.set()

    def convictions(self, epoch: int) -> Mapping[Charge, Digest]:
        """Return what is proved to have been done in an epoch, and by which proof."""
        return {charge: digest(proof) for charge, proof in self._proofs.get(epoch, {}).items()}

    def accusations(self) -> Sequence[bytes]:
        """Return the envelopes of all accusations that were proved, for others."""
        return [envelope for said in self._accusations.values() for envelope in said.values()]

    def proof_of(self, name: Digest) -> bytes | None:
        """Return the proof of a digest, for others."""
        kept = (proof for proofs in self._proofs.values() for proof in proofs.values())
        return next((proof for proof in kept if digest(proof) == name), None)

    def _hear(self, accusation: Verified[Accusation]) -> None:
        said = accusation.payload
        known = said.charge in self._proofs.get(said.epoch, {}) or said.charge in self._pending
        if not known and len(self._pending) < MAX_PENDING:
            self._pending.add(said.charge)
            self._heard.append(accusation)
            self._wake.set()

    async def _accuse(self, proof: bytes) -> None:
        """Keep a proof of ours and tell the others; nothing is said of what everybody knows."""
        try:
            proved = await self.bulletin.share.lane.beside(partial(open_proof, proof))
        except RemoteProtocolError as error:  # two tree heads: everybody has them by gossip, and they cost no score
            _log.warning("equivocation proved", extra={"reason": str(error)})
            guilty = open_equivocation_proof(proof).guilty
            self.on_fact(Fact(EQUIVOCATION_KIND, self.bulletin.share.epoch, guilty, proof))
            return
        if not self._keep(proved, proof):
            return
        member, now_s = self.bulletin.member, floor(self.bulletin.member.clock())
        message = Accusation(
            run_id=proved.run_id,
            sequence=floor(member.clock() * 1000),
            issued_s=now_s,
            expires_s=now_s + LIFETIME_S,
            epoch=proved.epoch,
            accused=proved.charge.guilty,
            kind=proved.charge.kind,
            stage=proved.charge.stage,
            proof=digest(proof),
        )
        accusation = open_signed(seal_message(message, member.identity), Accusation)
        self._accusations.setdefault(proved.epoch, {})[proved.charge] = accusation.envelope_bytes
        await self.bulletin.publish(FAULTS, accusation)

    async def _look_into(self, accusation: Verified[Accusation], limiter: trio.CapacityLimiter) -> None:
        """Fetch the proof that somebody says there is, and keep it if it holds."""
        try:
            async with limiter:
                proof = await self._fetch(accusation)
                with self.bulletin.member.network.ledger.charging(accusation.signer):
                    proved = await self.bulletin.share.lane.beside(partial(_check, accusation, proof))
                if self._keep(proved, proof):
                    said = self._accusations.setdefault(proved.epoch, {})
                    said[proved.charge] = accusation.envelope_bytes
        except (PeerUnavailableError, RemoteProtocolError) as error:
            _log.warning("accusation not proved", extra={"peer": accusation.signer, "reason": str(error)})
        finally:
            self._pending.discard(accusation.payload.charge)

    async def _fetch(self, accusation: Verified[Accusation]) -> bytes:
        """Return the proof, from its accuser or somebody else who has looked into it already."""
        member, name = self.bulletin.member, accusation.payload.proof
        others = [one for one in member.view.live() if one not in (member.identity.peer_id, accusation.signer)]
        asked = member.rng(f"proof {name.hex()}").sample(others, min(OTHERS_ASKED, len(others)))
        for peer_id in (accusation.signer, *asked):
            try:
                return await fetch_proof(member.network.streams, peer_id, name)
            except PeerUnavailableError as error:
                _log.info("proof not shown", extra={"peer": peer_id, "reason": str(error)})
        raise PeerUnavailableError(f"expected somebody to show the proof {name.hex()[:16]}, got none")

    def _keep(self, proved: Conviction, proof: bytes) -> bool:
        """Keep a proof; return whether it is of something new."""
        now = self.bulletin.share.epoch
        if not now - KEPT_EPOCHS <= proved.epoch <= now + 1:
            return False
        for old in [of for of in self._proofs if of < now - KEPT_EPOCHS]:
            del self._proofs[old]
            self._accusations.pop(old, None)
        kept, charge = self._proofs.setdefault(proved.epoch, {}), proved.charge
        size = len(proof) + sum(map(len, kept.values()))
        if charge in kept or len(kept) >= MAX_PROOFS or size > MAX_BYTES_PER_EPOCH:
            return False
        kept[charge] = proof
        kind = MERGE_FAULT_KIND if is_fault(proof) else EQUIVOCATION_KIND
        self.on_fact(Fact(kind, proved.epoch, charge.guilty, proof))
        _log.warning("fault proved", extra={"epoch": proved.epoch, "peer": charge.guilty, "reason": proved.reason})
        return True


def _check(accusation: Verified[Accusation], proof: bytes) -> Conviction:
    proved = open_proof(proof)
    check_accusation(accusation, proved)
    return proved
