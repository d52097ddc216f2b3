"""What peers sign of the weights they began with says who works on which model."""

from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.butterfly.contribution import Contribution
from iota_p2p_protocols.message import open_signed, seal_message
from iota_p2p_protocols.scoring.evidence import JoinedEvidence, open_evidence
from iota_p2p_protocols.scoring.fast_checks import PPM, synchronisation_ppm
from iota_p2p_protocols.scoring.synchronisation import synchronisation_of
from tests.scoring import scenes
from tests.scoring.scenes import EPOCH, NOW_S, RUN, STAGES

WORKERS = [Identity.from_seed(bytes([50 + number]) * 32) for number in range(3)]
NOW, LAST, OWN = (bytes([number]) * 32 for number in (1, 2, 3))


def contribution(by: Identity, base: bytes, epoch: int = EPOCH, stage: int = 1) -> Verified[Contribution]:
    fields = {"run_id": RUN, "sequence": 1, "issued_s": NOW_S, "expires_s": NOW_S + 600, "epoch": epoch, "stage": stage}
    digests = dict.fromkeys(("root", "log_root", "end_digest"), bytes(32))
    about = {"codec": "float32", "num_values": 64, "samples": 1, "base_digest": base, **digests}
    return open_signed(seal_message(Contribution.model_validate(fields | about), by), Contribution)


def evidence() -> JoinedEvidence:
    """Three workers of stage 1 between one source and one tail."""
    source, tail = STAGES[0][0], STAGES[-1][0]
    held = [scenes.loss_record((source, worker, tail), number, 4_000_000) for number, worker in enumerate(WORKERS)]
    promised, envelopes = scenes.commitment(tail, "tail", held)
    return JoinedEvidence(tuple(open_evidence(promised, envelopes, scenes.TERMS)), {}, {}, {})


EVIDENCE = evidence()


def test_workers__of_one_base_are_all_in_step() -> None:
    found = synchronisation_of([contribution(worker, NOW) for worker in WORKERS], EVIDENCE, EPOCH)
    assert found == {worker.peer_id: PPM for worker in WORKERS}


def test_worker__on_last_epochs_weights_is_one_step_behind() -> None:
    before = [contribution(worker, LAST, EPOCH - 1) for worker in WORKERS]
    said = [contribution(WORKERS[0], NOW), contribution(WORKERS[1], NOW), contribution(WORKERS[2], LAST)]
    found = synchronisation_of([*before, *said], EVIDENCE, EPOCH)
    assert found[WORKERS[2].peer_id] == synchronisation_ppm(1)
    assert found[WORKERS[0].peer_id] == PPM


def test_worker__on_a_model_of_its_own_gets_nothing() -> None:
    said = [contribution(WORKERS[0], NOW), contribution(WORKERS[1], NOW), contribution(WORKERS[2], OWN)]
    assert synchronisation_of(said, EVIDENCE, EPOCH)[WORKERS[2].peer_id] == 0


def test_stage_without_a_majority__blames_nobody() -> None:
    said = [contribution(worker, base) for worker, base in zip(WORKERS, (NOW, LAST, OWN), strict=True)]
    assert synchronisation_of(said, EVIDENCE, EPOCH) == {}


def test_crowd_without_work__does_not_outvote_workers() -> None:
    crowd = [Identity.from_seed(bytes([100 + number]) * 32) for number in range(9)]
    said = [contribution(worker, NOW) for worker in WORKERS] + [contribution(one, OWN) for one in crowd]
    assert synchronisation_of(said, EVIDENCE, EPOCH) == {worker.peer_id: PPM for worker in WORKERS}


def test_worker_that_says_two_things__is_taken_at_its_first_word() -> None:
    said = [contribution(worker, NOW) for worker in WORKERS] + [contribution(WORKERS[0], OWN)]
    assert synchronisation_of(said, EVIDENCE, EPOCH)[WORKERS[0].peer_id] == PPM
