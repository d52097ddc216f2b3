"""How fast this machine is on a run's first stage: what its advert says it can carry."""

import time

import torch

from iota_p2p.model.compute import StageCompute
from iota_p2p.run.spec import RunPlan

_ROUNDS = 2  # after a first one that pays for warming up


def measure_speed(plan: RunPlan, device: str) -> int:
    """Return tokens per second, forward, backward and step together, on a stage of the run; at least 1.

    Takes a few times as long as a microbatch does. Done before training starts, on the thread that calls.
    """
    compute = StageCompute(plan, 0, seed=0, device=device)
    size, length = plan.epoch.microbatch_size, plan.model.sequence_length
    window_BT1 = torch.zeros(size, length + 1, dtype=torch.long)
    gradient = None
    if not compute.stage.is_last:
        shape = compute.stage.boundary.message_shape(window_BT1[:, :-1])
        gradient = compute.stage.boundary.backward_code.encode(torch.zeros(shape))
    best_s = float("inf")
    for round_number in range(1 + _ROUNDS):
        start_s = time.perf_counter()
        compute.backward(compute.forward(window_BT1), gradient)
        compute.step(1)
        if round_number:
            best_s = min(best_s, time.perf_counter() - start_s)
    return max(1, round(size * length / best_s))
