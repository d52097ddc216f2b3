"""Epochs of a small run with known keys: pathways, losses, evidence, and validators who score them."""

from collections.abc import Callable, Sequence
from random import Random

from iota_p2p_crypto import canonical
from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import Identity, PeerId, peer_id_to_bytes
from iota_p2p_protocols.chain import StageInput, source_input
from iota_p2p_protocols.loss_record import Loss, LossRecord, open_loss_record, seal_loss_record
from iota_p2p_protocols.message import Message, open_signed, seal_message
from iota_p2p_protocols.microbatch import MicrobatchId
from iota_p2p_protocols.receipt import Receipt, open_receipt, seal_receipt
from iota_p2p_protocols.scoring.combination import Findings, ScoringRules, combine
from iota_p2p_protocols.scoring.election import ElectionProof, Electorate, elect
from iota_p2p_protocols.scoring.evidence import EvidenceCommitment, EvidenceTerms, Role, evidence_root, order_records
from iota_p2p_protocols.scoring.score_record import GENESIS, ScoreRecord, ScoreRow

RUN = bytes(range(32))
SEED = bytes([9]) * 32
EPOCH = 5
NUM_TOKENS = 1024
NOW_S = 1_800_000_000
STAGES = tuple(
    tuple(Identity.from_seed(bytes([16 * stage + replica]) * 32) for replica in range(2)) for stage in range(3)
)
VALIDATORS = tuple(Identity.from_seed(bytes([200 + number]) * 32) for number in range(4))
COSTS_PPM = (300_000, 300_000, 400_000)
RULES = ScoringRules(costs_ppm=COSTS_PPM, pot=1000)


def terms(epoch: int = EPOCH) -> EvidenceTerms:
    return EvidenceTerms(run_id=RUN, num_stages=len(STAGES), epoch=epoch)


TERMS = terms()


def encoded(message: Message) -> bytes:
    """Return a message that nobody signs, as a ledger keeps it."""
    return canonical.encode(message.to_fields())


def loss_record(path: Sequence[Identity], counter: int, loss: int, epoch: int = EPOCH) -> Verified[LossRecord]:
    """Return the record of a microbatch that went along a path."""
    work = source_input(MicrobatchId(epoch=epoch, source=path[0].peer_id, counter=counter), RUN)
    for stage, peer in enumerate(path[:-1]):
        out = digest(f"{counter} {stage} {peer.peer_id}".encode())
        fields = {"subject": work.digest, "stage": stage, "direction": "forward", "in_digest": work.in_digest}
        receipt = open_receipt(seal_receipt(Receipt.model_validate({**fields, "out_digest": out}), peer))
        work = StageInput(work.microbatch, work.digest, stage + 1, (*work.chain, receipt), out)
    return open_loss_record(
        seal_loss_record(work, Loss(loss, NUM_TOKENS, 1000 * NOW_S + 100 * counter), run_id=RUN, signer=path[-1])
    )


def records(
    num_records: int, loss_of: Callable[[Sequence[Identity], Random], int], seed: int = 0, epoch: int = EPOCH
) -> list[Verified[LossRecord]]:
    """Return the records of an epoch whose pathways were drawn."""
    rng = Random(seed)  # noqa: S311 - test data
    made = []
    for counter in range(num_records):
        path = [rng.choice(replicas) for replicas in STAGES]
        made.append(loss_record(path, counter, loss_of(path, rng), epoch))
    return made


def noisy(path: Sequence[Identity], rng: Random) -> int:
    """A loss that depends on nobody."""
    del path
    return round(rng.gauss(4_500_000, 200_000))


def commitment(
    holder: Identity, role: Role, held: Sequence[Verified[LossRecord]], *, epoch: int = EPOCH
) -> tuple[Verified[EvidenceCommitment], list[bytes]]:
    """Return what a holder commits to and then shows."""
    envelopes = [record.envelope_bytes for record in order_records(held, RUN)]
    message = EvidenceCommitment(
        run_id=RUN,
        sequence=1,
        issued_s=NOW_S,
        expires_s=NOW_S + 3600,
        epoch=epoch,
        role=role,
        root=evidence_root(envelopes),
        num_records=len(envelopes),
    )
    return open_signed(seal_message(message, holder), EvidenceCommitment), envelopes


def findings(work: int = 1000, **changes: object) -> Findings:
    """Return what there is to say of a faultless peer, or of one with faults."""
    fields: dict[str, object] = {
        "work": work,
        "num_records": 100,
        "clasp_effect": 0,
        "clasp_low": -10_000,
        "clasp_high": 10_000,
        "replay": "passed",
        "faults": 0,
        "evidence_ppm": 1_000_000,
        "presence_ppm": 1_000_000,
        "synchronisation_ppm": 1_000_000,
    }
    return Findings.model_validate({**fields, **changes})


def voters(epoch: int = EPOCH, seats: int = 8) -> Electorate:
    """All validators, of equal weight; with so many seats each is elected."""
    return Electorate(epoch, {one.peer_id: 1 for one in VALIDATORS}, seats)


def election(validator: Identity, epoch: int = EPOCH) -> ElectionProof:
    """Return a validator's proof."""
    proof = elect(validator, voters(epoch), run_id=RUN, seed=SEED)
    assert proof is not None
    return proof


def score_record(
    validator: Identity,
    found: dict[PeerId, Findings],
    before: Verified[ScoreRecord] | None = None,
    **changes: object,
) -> Verified[ScoreRecord]:
    """Return a validator's record of what it found."""
    rows = tuple(
        ScoreRow(peer_id=peer_id, findings=one, score=combine(one, EPOCH, 4_500_000, RULES))
        for peer_id, one in sorted(found.items(), key=lambda pair: peer_id_to_bytes(pair[0]))
    )
    fields: dict[str, object] = {
        "run_id": RUN,
        "sequence": 1,
        "issued_s": NOW_S,
        "expires_s": NOW_S + 86_400,
        "epoch": EPOCH if before is None else before.payload.epoch + 1,
        "position": 0 if before is None else before.payload.position + 1,
        "previous": GENESIS if before is None else before.digest,
        "election": election(validator),
        "evidence": (),
        "proofs": (),
        "rules": RULES.digest(),
        "software": "iota-p2p test",
        "mean_loss_micronats": 4_500_000,
        "rows": rows,
    }
    return open_signed(seal_message(ScoreRecord.model_validate({**fields, **changes}), validator), ScoreRecord)
