"""Training without a network: processes that each train the whole tiny model by themselves, for comparison."""

import multiprocessing
import os
import time
from collections import deque
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier

from iota_p2p.run.configs import find_config
from iota_p2p.run.plan_file import load_plan
from iota_p2p.run.spec import RunPlan

WARM_UP = 3  # microbatches: the first optimizer step imports for seconds


@dataclass(frozen=True)
class Alone:
    """What one process, or all of them together, did.

    Attributes:
        tokens_per_s: by the clock.
        cpu_ms: processor time per microbatch, which does not depend on what else the machine does.
    """

    tokens_per_s: float
    cpu_ms: float


def train_alone(*, in_flight: int, seconds: float) -> Alone:
    """Train in one process per core at once, each with one torch thread and the run's microbatch size.

    `in_flight` 0 trains the whole model as one stage, nothing coded. 1 and more are cut and coded as the run says,
    with so many microbatches forward before the first of them goes backward, as a source of a pipeline keeps them:
    with more than 1, steps have changed the weights by then, and the old ones are kept for them.
    """
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[Alone] = context.Queue()
    count = os.cpu_count() or 1
    together = context.Barrier(count)
    workers = [context.Process(target=_train, args=(in_flight, seconds, together, results)) for _ in range(count)]
    for worker in workers:
        worker.start()
    done = [results.get(timeout=seconds + 120) for _ in workers]
    for worker in workers:
        worker.join()
    return Alone(sum(one.tokens_per_s for one in done), sum(one.cpu_ms for one in done) / count)


def whole(plan: RunPlan) -> RunPlan:
    """Return the plan without cuts: one stage, nothing coded."""
    model = plan.model.model_copy(update={"stage_cuts": ()})
    return plan.model_copy(
        update={"model": model, "boundary": plan.boundary.model_copy(update={"kind": "none", "width": 0})}
    )


def _train(in_flight: int, seconds: float, together: Barrier, results: "multiprocessing.Queue[Alone]") -> None:
    import torch  # noqa: PLC0415 - in the child only

    from iota_p2p.model.compute import Held, StageCompute  # noqa: PLC0415 - the same

    torch.set_num_threads(1)
    plan = load_plan(find_config("tiny"))
    plan = plan if in_flight else whole(plan)
    stages = [StageCompute(plan, index, seed=0) for index in range(plan.model.num_stages)]
    size, length = plan.epoch.microbatch_size, plan.model.sequence_length
    window_BT1 = torch.randint(0, plan.model.vocab_size, (size, length + 1))
    waiting: deque[list[Held]] = deque()

    def microbatch() -> None:
        payload, gradient, passes = None, None, list[Held]()
        for stage in stages:
            passes.append(stage.forward(window_BT1, payload))
            payload = passes[-1].payload
        waiting.append(passes)
        if len(waiting) < in_flight:
            return
        for stage, held in zip(reversed(stages), reversed(waiting.popleft()), strict=True):
            gradient = stage.backward(held, gradient)
            stage.step(1)

    for _ in range(WARM_UP + in_flight):
        microbatch()
    together.wait(timeout=60)
    began_s, cpu_s, num_done = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() < began_s + seconds:
        microbatch()
        num_done += 1
    took_s, used_s = time.perf_counter() - began_s, time.process_time() - cpu_s
    results.put(Alone(num_done * size * length / took_s, 1000 * used_s / num_done))
