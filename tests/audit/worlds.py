"""A small run with validators, written to ledgers as its peers would: evidence, records, results, heads."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iota_p2p.audit.dossier import LIST_KIND, RULES_KIND
from iota_p2p.ledger.ledger import FILE_NAME, Fact, open_ledger
from iota_p2p_crypto import vrf
from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import Identity, PeerId
from iota_p2p_crypto.transparency_log import TransparencyLog
from iota_p2p_crypto.tree_head import sign_tree_head
from iota_p2p_protocols.message import open_signed, seal_message
from iota_p2p_protocols.scoring.assembly import Observation, score_rows
from iota_p2p_protocols.scoring.attribution import mean_loss_micronats
from iota_p2p_protocols.scoring.election import Registration, elect, electorate
from iota_p2p_protocols.scoring.evidence import EvidenceList, JoinedEvidence, Role, join_evidence, open_evidence
from iota_p2p_protocols.scoring.result import EpochResult, payouts_of
from iota_p2p_protocols.scoring.score_record import GENESIS, ScoreRecord
from iota_p2p_protocols.scoring.seed_chain import genesis_seed, next_seed
from tests.scoring import scenes
from tests.scoring.scenes import NOW_S, RULES, RUN, STAGES, VALIDATORS

NUM_EPOCHS = 3
Loss = Callable[..., int]
SEEN: dict[PeerId, Observation] = {
    peer.peer_id: Observation(presence_ppm=990_000) for stage in STAGES for peer in stage
}


@dataclass(slots=True)
class World:
    """What a run's validators have signed so far.

    Attributes:
        facts: everything that everybody knows.
        records: per validator, in order.
        seeds: of the epochs.
    """

    facts: list[Fact] = field(default_factory=list)
    records: dict[PeerId, list[Verified[ScoreRecord]]] = field(default_factory=dict)
    seeds: list[bytes] = field(default_factory=list)

    def keep(self, kind: str, epoch: int, signer: Identity, envelope: bytes) -> None:
        self.facts.append(Fact(kind, epoch, signer.peer_id, envelope))

    def write(self, home: Path) -> Path:
        home.mkdir(parents=True, exist_ok=True)
        with open_ledger(home / FILE_NAME) as ledger:
            ledger.add(self.facts)
        return home


def common(epoch: int) -> dict[str, Any]:
    return {"run_id": RUN, "sequence": epoch + 1, "issued_s": NOW_S, "expires_s": NOW_S + 3600, "epoch": epoch}


def build_world(num_records: int = 40, loss_of: Loss = scenes.noisy) -> World:
    """Return a run of NUM_EPOCHS epochs, every one scored by all validators and certified."""
    world = World(seeds=[genesis_seed(RUN), next_seed(genesis_seed(RUN), 1, {})])
    world.keep(RULES_KIND, 0, VALIDATORS[0], RULES.to_bytes())
    registrations = []
    for validator in VALIDATORS:
        envelope = seal_message(Registration(**common(0), stake=1), validator)
        registrations.append(open_signed(envelope, Registration))
        world.keep("registration", 0, validator, envelope)
    for epoch in range(NUM_EPOCHS):
        evidence, names = _show(world, epoch, num_records, loss_of)
        voters = electorate(registrations, epoch=epoch, seats=RULES.seats)
        records = [_score(world, validator, epoch, evidence, names) for validator in VALIDATORS]
        outputs = {record.signer: vrf.output_of(record.payload.election.proof) for record in records}
        world.seeds.append(next_seed(world.seeds[epoch + 1], epoch + 2, outputs))
        result = EpochResult(
            **common(epoch),
            seed=world.seeds[-1],
            records=tuple(sorted(record.digest for record in records)),
            pot=RULES.pot,
            payouts=payouts_of(records, voters.weights, RULES.pot),
        )
        world.keep("result", epoch, VALIDATORS[0], seal_message(result, *VALIDATORS[:3]))
    return world


def _show(world: World, epoch: int, num_records: int, loss_of: Loss) -> tuple[JoinedEvidence, list[bytes]]:
    """Let every tail and source commit to its records and show them."""
    made = scenes.records(num_records, loss_of, seed=epoch, epoch=epoch)
    shown, names = [], []
    roles: list[tuple[Identity, Role]] = [(one, "tail") for one in STAGES[-1]] + [(one, "source") for one in STAGES[0]]
    for holder, role in roles:
        held = [
            record
            for record in made
            if holder.peer_id == (record.signer if role == "tail" else record.payload.microbatch.source)
        ]
        promised, envelopes = scenes.commitment(holder, role, held, epoch=epoch)
        listed = EvidenceList(commitment=promised.digest, records=tuple(map(digest, envelopes)))
        world.keep("evidence", epoch, holder, promised.envelope_bytes)
        world.keep(LIST_KIND, epoch, holder, scenes.encoded(listed))
        for record in held:
            world.keep("loss-record", epoch, holder, record.envelope_bytes)
        shown.append((promised, open_evidence(promised, envelopes, scenes.terms(epoch))))
        names.append(promised.digest)
    return join_evidence(shown, RUN), sorted(names)


def _score(
    world: World, validator: Identity, epoch: int, evidence: JoinedEvidence, names: list[bytes]
) -> Verified[ScoreRecord]:
    """Let a validator sign its record of an epoch, and the head of its log."""
    before = world.records.setdefault(validator.peer_id, [])
    voters = scenes.voters(epoch, RULES.seats)
    election = elect(validator, voters, run_id=RUN, seed=world.seeds[epoch + 1])
    assert election is not None
    record = ScoreRecord(
        **common(epoch),
        position=len(before),
        previous=before[-1].digest if before else GENESIS,
        election=election,
        evidence=tuple(names),
        proofs=(),
        rules=RULES.digest(),
        software="iota-p2p test",
        mean_loss_micronats=mean_loss_micronats(evidence),
        rows=score_rows(evidence, SEEN, RULES, validator.peer_id),
    )
    signed = open_signed(seal_message(record, validator), ScoreRecord)
    before.append(signed)
    world.keep("score", epoch, validator, signed.envelope_bytes)
    log = TransparencyLog(RUN, validator.peer_id, [one.envelope_bytes for one in before])
    world.keep("tree-head", epoch, validator, sign_tree_head(log.head(NOW_S + epoch), validator))
    return signed
