"""The named runs load, validate, and have the sizes their names say."""

from pathlib import Path

import pytest
import torch

from iota_p2p.model.figures import figures_of, meta_stage
from iota_p2p.model.stage import Stage
from iota_p2p.run.plan_file import load_plan
from tests.numerics.pipelines import make_plan

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(("name", "billions"), [("1.5b", 1.516), ("15b", 15.17), ("100b", 100.23)])
def test_named_runs__have_the_sizes_of_iotas(name: str, billions: float) -> None:
    figures = figures_of(load_plan(CONFIGS / f"{name}.toml"))
    assert sum(stage.num_parameters for stage in figures) / 1e9 == pytest.approx(billions, abs=0.01)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_named_runs__compress_128_times_both_ways(path: Path) -> None:
    plan = load_plan(path)
    assert min(meta_stage(plan, 0).boundary.ratios()) >= 128


def test_figures__count_what_a_stage_really_has() -> None:
    plan = make_plan("anchored:4:8")
    stage = Stage(plan, 1, seed=0)
    figures = figures_of(plan)[1]
    assert figures.weight_bytes == sum(p.nbytes for p in stage.parameters())
    assert (figures.forward_bytes, figures.backward_bytes) == (4, 5)


def test_meta_stage__allocates_nothing() -> None:
    assert {p.device for p in meta_stage(make_plan(), 0).parameters()} == {torch.device("meta")}
