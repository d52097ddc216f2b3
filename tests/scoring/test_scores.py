"""Scores: never negative, explained by their smallest part, signed in a chain, and agreed on by a quorum."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p_crypto import canonical
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import Identity, PeerId, peer_id_to_bytes
from iota_p2p_crypto.transparency_log import TransparencyLog
from iota_p2p_crypto.tree_head import sign_tree_head
from iota_p2p_protocols.errors import (
    InvalidProofError,
    InvalidSignatureError,
    LocalProtocolError,
    MalformedError,
    RemoteProtocolError,
)
from iota_p2p_protocols.message import open_signed, seal_message
from iota_p2p_protocols.scoring.combination import Findings, combine
from iota_p2p_protocols.scoring.equivocation import make_equivocation_proof, open_equivocation_proof
from iota_p2p_protocols.scoring.fast_checks import (
    MAX_BEHIND,
    PPM,
    presence_ppm,
    steps_behind,
    synchronisation_ppm,
)
from iota_p2p_protocols.scoring.result import (
    EpochResult,
    check_result,
    consensus_scores,
    open_certified_result,
    payouts_of,
    share_pot,
    weighted_lower_median,
)
from iota_p2p_protocols.scoring.score_record import ScoreRecord, check_record, check_successor
from tests.scoring.scenes import EPOCH, NOW_S, RULES, RUN, STAGES, VALIDATORS, findings, score_record

PEERS = [peer.peer_id for stage in STAGES for peer in stage]
PPMS = st.integers(0, PPM)
FINDINGS = st.builds(
    Findings,
    work=st.integers(0, 2**50),
    num_records=st.integers(0, 1000),
    clasp_effect=st.integers(-(10**9), 10**9),
    clasp_low=st.integers(-(10**9), 10**9),
    clasp_high=st.integers(-(10**9), 10**9),
    replay=st.sampled_from(["not-drawn", "passed", "failed", "no-evidence"]),
    faults=st.integers(0, 5),
    evidence_ppm=PPMS,
    presence_ppm=PPMS,
    synchronisation_ppm=PPMS,
)


@given(FINDINGS, st.integers(0, 10**8))
def test_score__lies_between_nothing_and_all_of_the_work(found: Findings, mean_loss: int) -> None:
    score = combine(found, EPOCH, mean_loss, RULES)
    assert 0 <= score.score <= found.work
    assert (score.reason == "none") == (score.quality_ppm == PPM)


@given(FINDINGS, FINDINGS, st.integers(1, 10**8))
def test_score__two_faults_never_make_a_virtue(one: Findings, other: Findings, mean_loss: int) -> None:
    """Whoever is worse in every respect has no higher quality."""
    rank = {"passed": 0, "not-drawn": 0, "no-evidence": 1, "failed": 1}
    worse = one.model_copy(
        update={
            "clasp_low": max(one.clasp_low, other.clasp_low),
            "num_records": max(one.num_records, RULES.least_records),
            "replay": max(one.replay, other.replay, key=rank.__getitem__),
            "faults": max(one.faults, other.faults),
            **{
                name: min(getattr(one, name), getattr(other, name))
                for name in ("evidence_ppm", "presence_ppm", "synchronisation_ppm")
            },
        }
    )
    assert combine(worse, EPOCH, mean_loss, RULES).quality_ppm <= combine(one, EPOCH, mean_loss, RULES).quality_ppm


@pytest.mark.parametrize(
    ("changes", "quality", "reason"),
    [
        ({}, PPM, "none"),
        ({"faults": 1}, 0, "faults"),
        ({"replay": "failed"}, 0, "replay"),
        ({"replay": "no-evidence"}, 0, "replay"),
        ({"replay": "not-drawn"}, PPM, "none"),
        ({"evidence_ppm": 400_000}, 400_000, "evidence"),
        ({"clasp_low": 45_000}, PPM, "none"),  # one per cent of 4.5 nats is tolerated
        ({"clasp_low": 90_000}, 500_000, "clasp"),
        ({"clasp_low": 135_000}, 0, "clasp"),
        ({"clasp_low": 135_000, "num_records": 7}, PPM, "none"),  # too few to tell
        ({"synchronisation_ppm": 0, "presence_ppm": 0}, 0, "synchronisation"),
        ({"presence_ppm": 990_000}, 990_000, "presence"),
    ],
)
def test_score__names_the_smallest_component(changes: dict[str, object], quality: int, reason: str) -> None:
    score = combine(findings(**changes), EPOCH, 4_500_000, RULES)  # type: ignore[arg-type] # fields
    assert (score.quality_ppm, score.reason, score.score) == (quality, reason, quality // 1000)


def test_score__blames_nobody_for_harm_while_the_run_warms_up() -> None:
    """Replicas that have never merged differ by more than any liar would."""
    harmful = findings(clasp_low=500_000)
    assert [combine(harmful, epoch, 4_500_000, RULES).reason for epoch in (0, 1)] == ["none", "clasp"]


def test_fast_checks__follow_gauntlets_formula() -> None:
    assert [synchronisation_ppm(behind) for behind in range(7)] == [PPM, 572_433, 278_854, 101_192, 17_888, 0, 0]
    assert presence_ppm([True, True, True, False]) == 750_000
    assert presence_ppm([]) == 0
    thetas = [bytes([number]) * 32 for number in range(8)]
    assert [steps_behind(one, thetas) for one in (thetas[0], thetas[3], thetas[7], b"x" * 32)] == [0, 3, 5, MAX_BEHIND]


def test_record__comes_back_as_it_was_signed() -> None:
    record = score_record(VALIDATORS[0], {peer_id: findings(work=number) for number, peer_id in enumerate(PEERS)})
    check_record(record, RULES)
    again = open_signed(record.envelope_bytes, ScoreRecord)
    assert again.payload == record.payload
    assert [row.findings.work for row in again.payload.rows] != sorted(range(len(PEERS)))[::-1]
    assert len(record.payload_bytes) < 500 + 130 * len(PEERS)


@given(st.data())
def test_record__any_changed_byte_is_refused(data: st.DataObject) -> None:
    record = score_record(VALIDATORS[0], {PEERS[0]: findings()})
    bad = bytearray(record.envelope_bytes)
    position = data.draw(st.integers(0, len(bad) - 1))
    bad[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(RemoteProtocolError):
        open_signed(bytes(bad), ScoreRecord)


def test_record__reject_other_rules_oneself_and_wrong_sums() -> None:
    mine = VALIDATORS[0]
    with pytest.raises(InvalidProofError, match="rules"):
        check_record(score_record(mine, {}), RULES.model_copy(update={"least_records": 9}))
    with pytest.raises(InvalidProofError, match="scores of others"):
        check_record(score_record(mine, {mine.peer_id: findings()}), RULES)
    row = score_record(mine, {PEERS[0]: findings()}).payload.rows[0]
    boosted = row.model_copy(update={"score": row.score.model_copy(update={"score": row.score.score + 1})})
    with pytest.raises(InvalidProofError, match="expected 1000 for"):
        check_record(score_record(mine, {}, rows=(boosted,)), RULES)
    with pytest.raises(InvalidProofError, match="predecessor"):
        check_record(score_record(mine, {}, position=3), RULES)


def test_record__reject_rows_out_of_order_or_of_another_form() -> None:
    record = score_record(VALIDATORS[0], {peer_id: findings() for peer_id in PEERS[:2]})
    fields = canonical.decode(record.payload_bytes)
    for rows in (fields["rows"][::-1], (fields["rows"][0],) * 2, ((1, 2),), (fields["rows"][0][:-1],)):
        with pytest.raises(MalformedError):
            ScoreRecord.from_fields({**fields, "rows": rows})
    with pytest.raises(MalformedError):
        ScoreRecord.from_fields([])


def test_chain__reject_a_record_that_skips_repeats_or_replaces_one() -> None:
    first = score_record(VALIDATORS[0], {PEERS[0]: findings()})
    second = score_record(VALIDATORS[0], {PEERS[0]: findings()}, first)
    third = score_record(VALIDATORS[0], {PEERS[0]: findings()}, second)
    check_successor(second, first)
    check_successor(third, second)
    for record, before in ((third, first), (second, second), (first, second), (second, third)):
        with pytest.raises(InvalidProofError):
            check_successor(record, before)
    early = score_record(VALIDATORS[0], {}, first, epoch=EPOCH)
    with pytest.raises(InvalidProofError, match="epoch after"):
        check_successor(early, first)


def test_equivocation__two_records_of_one_epoch_convict_their_signer() -> None:
    one, other = (score_record(VALIDATORS[0], {PEERS[0]: findings(work)}) for work in (1, 2))
    proof = make_equivocation_proof(one.envelope_bytes, other.envelope_bytes)
    assert proof == make_equivocation_proof(other.envelope_bytes, one.envelope_bytes)
    found = open_equivocation_proof(proof)
    assert (found.guilty, found.kind, found.about) == (VALIDATORS[0].peer_id, "score", f"epoch {EPOCH}")


def test_equivocation__two_heads_of_one_size_convict_the_logs_owner() -> None:
    owner = VALIDATORS[0]
    heads = [sign_tree_head(TransparencyLog(RUN, owner.peer_id, [entry]).head(NOW_S), owner) for entry in (b"a", b"b")]
    assert open_equivocation_proof(make_equivocation_proof(*heads)).guilty == owner.peer_id


def test_equivocation__convicts_nobody_without_a_contradiction() -> None:
    one = score_record(VALIDATORS[0], {PEERS[0]: findings()})
    others = [
        one,
        score_record(VALIDATORS[1], {PEERS[0]: findings(2)}),
        score_record(VALIDATORS[0], {PEERS[0]: findings(2)}, epoch=EPOCH + 1),
    ]
    for other in others:
        with pytest.raises(LocalProtocolError):
            make_equivocation_proof(one.envelope_bytes, other.envelope_bytes)
        halves = sorted((one.envelope_bytes, other.envelope_bytes))
        with pytest.raises(RemoteProtocolError):
            open_equivocation_proof(canonical.encode({"first": halves[0], "second": halves[1]}))
    with pytest.raises(MalformedError):
        open_equivocation_proof(canonical.encode({"first": b"", "second": b"x", "third": b""}))


WEIGHTS = {validator.peer_id: 1 for validator in VALIDATORS}


@given(
    st.lists(st.integers(0, 10**6), min_size=3, max_size=3),
    st.integers(0, 2**60),
)
def test_consensus__one_liar_of_four_cannot_leave_what_honest_ones_said(honest: list[int], lie: int) -> None:
    records = [score_record(by, {PEERS[0]: findings(work)}) for by, work in zip(VALIDATORS[1:], honest, strict=True)]
    liar = score_record(VALIDATORS[0], {PEERS[0]: findings(lie)})
    agreed = consensus_scores([liar, *records], WEIGHTS).get(PEERS[0], 0)
    assert min(honest) <= agreed <= max(honest)


def test_consensus__a_validators_own_work_is_scored_by_the_others() -> None:
    subject = VALIDATORS[0].peer_id
    records = [score_record(VALIDATORS[0], {}), *(score_record(by, {subject: findings(70)}) for by in VALIDATORS[1:])]
    assert consensus_scores(records, WEIGHTS) == {subject: 70}


def test_consensus__our_bug_if_a_validator_comes_twice_or_unweighted() -> None:
    one = score_record(VALIDATORS[0], {})
    for records, weights in (([one, one], WEIGHTS), ([one], {})):
        with pytest.raises(LocalProtocolError):
            consensus_scores(records, weights)


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(1, 10)), min_size=1, max_size=9))
def test_median__has_half_of_the_weight_on_either_side(values: list[tuple[int, int]]) -> None:
    middle, total = weighted_lower_median(values), sum(weight for _, weight in values)
    assert 2 * sum(weight for value, weight in values if value <= middle) >= total
    assert 2 * sum(weight for value, weight in values if value >= middle) >= total


@given(st.dictionaries(st.sampled_from(PEERS), st.integers(0, 2**53)), st.integers(0, 2**60))
def test_pot__is_shared_out_to_the_last_unit_and_fairly(scores: dict[PeerId, int], pot: int) -> None:
    shares = share_pot(scores, pot)
    total = sum(scores.values())
    assert sum(shares.values()) == (pot if total else 0)
    for peer_id, share in shares.items():
        assert abs(share * total - pot * scores[peer_id]) < total  # within one unit of the exact share


def result_of(
    records: list[Verified[ScoreRecord]], signers: tuple[Identity, ...], **changes: object
) -> Verified[EpochResult]:
    fields: dict[str, object] = {
        "run_id": RUN,
        "sequence": 1,
        "issued_s": NOW_S,
        "expires_s": NOW_S + 86_400,
        "epoch": EPOCH,
        "seed": bytes(32),
        "records": tuple(sorted(record.digest for record in records)),
        "pot": 1000,
        "payouts": payouts_of(records, WEIGHTS, 1000),
    }
    return open_signed(seal_message(EpochResult.model_validate({**fields, **changes}), *signers), EpochResult)


def all_records() -> list[Verified[ScoreRecord]]:
    found = {peer_id: findings(100 * (number + 1)) for number, peer_id in enumerate(PEERS)}
    return [score_record(validator, found) for validator in VALIDATORS]


def test_result__is_certified_by_a_quorum_of_its_own_validators() -> None:
    records = all_records()
    result = result_of(records, VALIDATORS[:3])
    check_result(result.payload, records, WEIGHTS)
    certified = open_certified_result(result, records, quorum=3)
    assert {*certified.validators} == {one.peer_id for one in VALIDATORS[:3]}
    assert sum(share for _, _, share in certified.payload.payouts) == 1000
    by_peer = {peer_id: share for peer_id, _, share in certified.payload.payouts}
    assert by_peer[PEERS[-1]] == pytest.approx(6 * by_peer[PEERS[0]], abs=6)


def test_result__reject_too_few_strangers_and_other_sums() -> None:
    records = all_records()
    with pytest.raises(InvalidProofError, match="expected 3 validators"):
        open_certified_result(result_of(records, VALIDATORS[:2]), records, quorum=3)
    with pytest.raises(InvalidSignatureError, match="validators of the epoch"):
        open_certified_result(result_of(records, (*VALIDATORS[:2], STAGES[0][0])), records, quorum=3)
    with pytest.raises(InvalidProofError, match="records"):
        check_result(result_of(records, VALIDATORS[:3]).payload, records[:3], WEIGHTS)
    with pytest.raises(InvalidProofError, match="epoch"):
        check_result(result_of(records, VALIDATORS[:3], epoch=EPOCH + 1).payload, records, WEIGHTS)
    taken = sorted(payouts_of(records, WEIGHTS, 1000), key=lambda row: peer_id_to_bytes(row[0]))
    stolen = [(taken[0][0], taken[0][1], taken[0][2] + 5), (taken[1][0], taken[1][1], taken[1][2] - 5), *taken[2:]]
    with pytest.raises(InvalidProofError, match="payouts"):
        check_result(result_of(records, VALIDATORS[:3], payouts=tuple(stolen)).payload, records, WEIGHTS)
