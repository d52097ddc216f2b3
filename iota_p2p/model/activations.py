"""How much memory a microbatch's forward pass keeps for its backward pass.

The stage runs forward, and autograd is watched as it saves. A large stage runs on fake tensors, which know shapes and
types only and allocate nothing; a small one runs as it is, because fake tensors import a compiler: more than a second
before a joiner's first step, for a pass of milliseconds.
"""

import warnings
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef

from iota_p2p.model.figures import meta_stage
from iota_p2p.model.stage import Stage, loss_of
from iota_p2p.run.spec import RunPlan

# A microbatch's tokens times its stage's weights: up to here a pass takes about a tenth of a second, and its memory
# is tens of megabytes.
_SMALL = 2 * 10**9


def activation_bytes(plan: RunPlan, index: int) -> int:
    """Return the bytes that one microbatch in flight keeps on a CPU; a stage's own weights are not counted.

    With bfloat16 products that includes the weights as bfloat16, of which every graph keeps its own copy.
    """
    num_weights = sum(parameter.numel() for parameter in meta_stage(plan, index).parameters())
    tokens = plan.epoch.microbatch_size * plan.model.sequence_length
    return kept_bytes(plan, index, nullcontext() if tokens * num_weights <= _SMALL else FakeTensorMode())


def kept_bytes(plan: RunPlan, index: int, mode: AbstractContextManager[object]) -> int:
    """Return the same, run in a mode of torch's."""
    saved: dict[StorageWeakRef, int] = {}  # bytes by storage, so that views count once

    def note(tensor: Tensor) -> Tensor:
        saved[_storage(tensor)] = tensor.untyped_storage().nbytes()
        kept.append(tensor)  # alive, so that no other storage takes its place
        return tensor

    kept: list[Tensor] = []
    with mode, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Mismatch dtype", category=UserWarning)  # about speed only
        stage = Stage(plan, index, seed=None)
        window_BT1 = torch.zeros(plan.epoch.microbatch_size, plan.model.sequence_length + 1, dtype=torch.int64)
        tokens_BT = window_BT1[:, :-1]
        message_BTK = None
        if not stage.is_first:
            message_BTK = torch.zeros(stage.boundary.message_shape(tokens_BT), requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            output = stage(tokens_BT, message_BTK)
            if stage.is_last:
                loss_of(output, window_BT1[:, 1:])
        own = {_storage(tensor) for tensor in (*stage.parameters(), *stage.buffers())}
    return sum(num_bytes for storage, num_bytes in saved.items() if storage not in own)


def _storage(tensor: Tensor) -> StorageWeakRef:
    """Return what tells one storage from another."""
    return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]  # torch's own has no types
