"""The run spec: what it refuses, and that equal runs have one id."""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p.run.plan_file import load_plan, parse_plan
from iota_p2p.run.spec import MAX_SHARDS, MAX_SPEC_BYTES, DataSpec, RunId, RunSpec, ShardRef
from iota_p2p_crypto import canonical
from iota_p2p_crypto.errors import MalformedError, OversizedError, RemoteProtocolError, UserError, WrongRunError

TINY = Path(__file__).parents[2] / "configs" / "tiny.toml"
SHARD = ShardRef(digest="ab" * 32, num_tokens=1000)
SPEC = load_plan(TINY).with_data(DataSpec(train=(SHARD,), heldout=(SHARD,)), seed=0)


def changed(edit: Callable[[dict[str, Any]], object]) -> bytes:
    """Return the canonical bytes of the spec after an edit of its plain form."""
    value = canonical.decode(SPEC.to_bytes())
    edit(value)
    return canonical.encode(value)


def test_spec__comes_back_with_its_id() -> None:
    assert RunSpec.from_bytes(SPEC.to_bytes(), expected=SPEC.run_id) == SPEC
    assert RunSpec.from_bytes(SPEC.to_bytes()).run_id == SPEC.run_id


def test_run_id__is_the_same_for_ever() -> None:
    """Golden: a change here splits every existing run."""
    assert SPEC.run_id.hex() == "2266e7baa2c12906406966eff75f829fbea10600a60687aeec02b429347cba37"


def test_run_id__changes_with_any_field() -> None:
    other = SPEC.model_copy(update={"seed": 1})
    assert other.run_id != SPEC.run_id


def test_spec__refuses_bytes_of_another_run() -> None:
    with pytest.raises(WrongRunError):
        RunSpec.from_bytes(SPEC.to_bytes(), expected=RunId(bytes(32)))


@pytest.mark.parametrize(
    ("edit", "rule"),
    [
        (lambda v: v.update(surprise=1), "run-spec"),
        (lambda v: v.pop("model"), "run-spec"),
        (lambda v: v.update(protocol_version=2), "run-spec"),
        (lambda v: v["model"].update(width=1 << 40), "run-spec"),
        (lambda v: v["model"].update(width=130), "run-spec"),
        (lambda v: v["model"].update(stage_cuts=[2, 2]), "run-spec"),
        (lambda v: v["model"].update(stage_cuts=[4]), "run-spec"),
        (lambda v: v["model"].update(num_kv_heads=3), "run-spec"),
        (lambda v: v["boundary"].update(width=0), "run-spec"),
        (lambda v: v["optimizer"].update(muon_rate="nan"), "run-spec"),
        (lambda v: v["optimizer"].update(muon_rate="1e9999999"), "run-spec"),
        (lambda v: v["optimizer"].update(muon_momentum="1.5"), "run-spec"),
        (lambda v: v["data"].update(train=[]), "run-spec"),
        (lambda v: v["data"]["train"][0].update(digest="AB" * 32), "run-spec"),
        (lambda v: v["optimizer"].update(muon_rate="0.020"), "run-spec-form"),
        (lambda v: v["optimizer"].update(muon_rate="2E-2"), "run-spec-form"),
        (lambda v: v["optimizer"].pop("muon_rate"), "run-spec-form"),
    ],
)
def test_spec__refuses_bytes_that_are_not_its_own(edit: Callable[[dict[str, Any]], object], rule: str) -> None:
    with pytest.raises(MalformedError) as caught:
        RunSpec.from_bytes(changed(edit))
    assert caught.value.rule == rule


@given(st.binary(max_size=200))
def test_spec__refuses_any_other_bytes(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        RunSpec.from_bytes(data)


def test_spec__refuses_more_than_its_bound() -> None:
    with pytest.raises(OversizedError):
        RunSpec.from_bytes(bytes(MAX_SPEC_BYTES + 1))


def test_spec__fits_its_bound_with_the_most_shards() -> None:
    data = DataSpec(train=(SHARD,) * MAX_SHARDS, heldout=(SHARD,))
    assert len(SPEC.model_copy(update={"data": data}).to_bytes()) < MAX_SPEC_BYTES


@given(st.decimals(min_value=0, max_value=1000, places=9))
def test_decimals__keep_their_value_through_text(rate: Decimal) -> None:
    text = TINY.read_text("utf-8").replace("decay_steps", f"muon_rate = {rate:f}\ndecay_steps")
    plan = parse_plan(text, source="test")
    spec = RunSpec.from_bytes(plan.with_data(SPEC.data, seed=0).to_bytes())
    assert spec.optimizer.muon_rate == rate


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("width = 128", "width = 'wide'", r"test: model\.width"),
        ("width = 128", "wide = 128", r"test: model\.width: Field required"),
        ("decay_steps = 250", "decay_stops = 250", r"test: optimizer\.decay_stops"),
        ("[model]", "[model", "test is not TOML"),
        ("decay_steps = 250", "muon_rate = inf", r"test: optimizer\.muon_rate"),
        ("decay_steps = 250", "muon_rate = -0.1", r"test: optimizer\.muon_rate"),
    ],
)
def test_plan__names_the_key_when_it_is_wrong(old: str, new: str, message: str) -> None:
    text = TINY.read_text("utf-8")
    with pytest.raises(UserError, match=message):
        parse_plan(text.replace(old, new, 1), source="test")


def test_plan__says_so_when_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        load_plan(tmp_path / "absent.toml")


def test_blocks__are_cut_where_the_spec_says() -> None:
    model = SPEC.model.model_copy(update={"stage_cuts": (1, 3)})
    assert [list(model.blocks_of(stage)) for stage in range(model.num_stages)] == [[0], [1, 2], [3]]
