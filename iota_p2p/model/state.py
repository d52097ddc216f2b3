"""A stage's state as bytes (safetensors: loading runs no code) and as the flat vector that replicas average.

Names are the parameters' names in the whole model. The vector holds all parameters in the order of their sorted
names, each row by row: a stage's replicas agree on it without talking.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from iota_p2p_crypto.errors import LocalProtocolError, MalformedError

Tensors = Mapping[str, Tensor]
Shapes = Mapping[str, torch.Size]


def shapes_of(module: nn.Module) -> Shapes:
    """Return the name and shape of every parameter; a stage on the meta device will do."""
    return {name: parameter.shape for name, parameter in module.named_parameters()}


def to_bytes(tensors: Tensors) -> bytes:
    """Return a safetensors file: equal tensors give equal bytes."""
    return safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def from_bytes(data: bytes, expected: Shapes) -> dict[str, Tensor]:
    """Return the float32 tensors of a file from anybody.

    The caller bounds the size of `data`; it need be little more than that of the expected tensors.

    Raises:
        MalformedError: if it is no safetensors file, does not hold exactly the expected names and shapes in float32,
            or holds a value that is not finite.
    """
    tensors = tensors_in(data)
    check_tensors(tensors, expected)
    return tensors


def check_tensors(tensors: Tensors, expected: Shapes) -> None:
    """Check names, shapes, float32 and that every value is finite; raises MalformedError."""
    if tensors.keys() != expected.keys():
        odd = sorted(tensors.keys() ^ expected.keys())
        raise MalformedError("state-names", f"expected the stage's {len(expected)} tensors, differing in {odd[:3]}")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name] or tensor.dtype != torch.float32:
            raise MalformedError(
                "state-shape",
                f"expected {name} as float32 {tuple(expected[name])}, got {tensor.dtype} {tuple(tensor.shape)}",
            )
        if not bool(tensor.isfinite().all()):
            raise MalformedError("state-range", f"expected finite values in {name}")


def tensors_in(data: bytes) -> dict[str, Tensor]:
    """Return whatever tensors a safetensors file holds; raises MalformedError if it is none."""
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError) as error:  # KeyError: a dtype that torch does not have
        raise MalformedError("state-file", f"expected a safetensors file, got {error}") from error


def vector_of(module: nn.Module) -> npt.NDArray[np.float32]:
    """Return a copy of all parameters as one vector."""
    parameters = dict(module.named_parameters())
    flat = torch.cat([parameters[name].detach().flatten().float() for name in sorted(parameters)])
    values: npt.NDArray[np.float32] = flat.cpu().numpy()
    return values


def tensors_of(module: nn.Module, vector: npt.NDArray[np.float32]) -> dict[str, Tensor]:
    """Return a vector's parts by the parameters' names; raises LocalProtocolError if its length is wrong."""
    shapes = shapes_of(module)
    total = sum(shape.numel() for shape in shapes.values())
    if vector.shape != (total,):
        raise LocalProtocolError(f"expected a vector of {total} weights, got shape {vector.shape}")
    parts = {}
    start = 0
    for name in sorted(shapes):
        end = start + shapes[name].numel()
        parts[name] = torch.from_numpy(vector[start:end]).view(shapes[name])
        start = end
    return parts


@torch.no_grad()
def set_vector(module: nn.Module, vector: npt.NDArray[np.float32]) -> None:
    """Overwrite all parameters by a vector of the same layout; raises LocalProtocolError if its length is wrong."""
    parts = tensors_of(module, vector)
    for name, parameter in module.named_parameters():
        parameter.copy_(parts[name])
