"""The testnet's run (configs/tiny.toml): it learns, and its first losses are known numbers."""

from pathlib import Path
from statistics import mean

import numpy as np
import pytest
import torch
from torch import Tensor

from iota_p2p.model.compute import StageCompute
from iota_p2p.run.corpus import standard_library
from iota_p2p.run.data import RunData
from iota_p2p.run.founding import found_run
from iota_p2p.run.plan_file import load_plan
from iota_p2p.run.shards import ShardStore
from iota_p2p.run.tokens import ByteTokenizer
from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.microbatch import MicrobatchId
from tests.numerics.pipelines import backward, forward

ROOT = Path(__file__).parents[2]
PLAN = load_plan(ROOT / "configs" / "tiny.toml")
SOURCE = Identity.from_seed(bytes(32)).peer_id

GOLDEN = {0: 5.5830, 10: 4.4852, 20: 2.9266}  # nats per byte by step
TOLERANCE = 1e-2  # another CPU sums in another order, and 20 steps of training spread the last bits


def make_tiny() -> list[StageCompute]:
    return [StageCompute(PLAN, index, seed=0) for index in range(PLAN.model.num_stages)]


def train_step(stages: list[StageCompute], window_BT1: Tensor) -> float:
    held = forward(stages, window_BT1)
    backward(stages, held)
    for stage in stages:
        stage.step(1)
    assert held[-1].loss is not None
    return held[-1].loss


def license_window(step: int) -> Tensor:
    """Return a microbatch of a text that is the same in every checkout, unlike the standard library."""
    text = np.frombuffer((ROOT / "LICENSE").read_bytes(), np.uint8).astype(np.int64)
    size, length = PLAN.epoch.microbatch_size, PLAN.model.sequence_length + 1
    starts = [(step * size + row) * 7919 % (len(text) - length) for row in range(size)]
    return torch.from_numpy(np.stack([text[start : start + length] for start in starts]))


def test_tiny__has_its_golden_losses() -> None:
    """A change that should not alter numbers alters none of these; one that should writes them anew."""
    stages = make_tiny()
    losses = [train_step(stages, license_window(step)) for step in range(max(GOLDEN) + 1)]
    assert {step: losses[step] for step in GOLDEN} == pytest.approx(GOLDEN, abs=TOLERANCE)


@pytest.mark.slow
def test_tiny__predicts_heldout_text_within_2_nats_per_byte(tmp_path: Path) -> None:
    """250 steps, some 30 CPU-seconds, through the bytes that peers exchange."""
    store = ShardStore(tmp_path)
    data = RunData(found_run(PLAN, standard_library(), ByteTokenizer(), store, seed=0), store)
    stages = make_tiny()
    for counter in range(250):
        window = data.training_window(MicrobatchId(epoch=0, source=SOURCE, counter=counter))
        train_step(stages, torch.from_numpy(window))
    heldout = [forward(stages, torch.from_numpy(data.heldout_window(index)))[-1].loss for index in range(24)]
    assert mean(loss for loss in heldout if loss is not None) < 2.0
