"""Anchored residual: the receiver knows the tokens, so the message carries only what was computed (design 7).

    z  = tanh(E rms_norm(h))        on a fixed grid: no scale travels, and none can leak
    h' = G z + A[token]

E starts as an orthonormal frame and G as .3 times its transpose, so that the message starts out as a projection of
the stream; A is a learned token table.

Shapes: B sequences, T positions, D model width, K message width.
"""

import math

import torch
from torch import Tensor, nn

from iota_p2p.model.boundary.base import Boundary, Receiver, Sender
from iota_p2p.model.boundary.codes import GridCode, RawCode, bottleneck_code
from iota_p2p.model.decoder import Rotary, rms_norm
from iota_p2p.model.weights import Linear, Table, normal, orthonormal
from iota_p2p.run.spec import BoundarySpec, ModelSpec

_DECODER_SCALE = 0.3  # measured (facts 7): the size of the token table's entries
_TABLE_STD = 0.3


class _AnchoredSender(Sender):
    def __init__(self, model: ModelSpec, width: int, frame: str) -> None:
        super().__init__()
        self.norm = rms_norm(model.width)
        self.encoder = Linear(model.width, width, orthonormal(frame, 1.0, transposed=True))

    def forward(self, h_BTD: Tensor, tokens_BT: Tensor) -> Tensor:
        del tokens_BT
        return torch.tanh(self.encoder(self.norm(h_BTD)))


class _AnchoredReceiver(Receiver):
    def __init__(self, model: ModelSpec, spec: BoundarySpec, frame: str) -> None:
        super().__init__()
        self.decoder = Linear(spec.width, model.width, orthonormal(frame, _DECODER_SCALE))
        self.anchor = token_table(model, spec.token_table_rank)

    def forward(self, z_BTK: Tensor, tokens_BT: Tensor, rotary: Rotary) -> Tensor:
        del rotary
        return torch.as_tensor(self.decoder(z_BTK) + self.anchor(tokens_BT))


class AnchoredResidual(Boundary):
    """K numbers per token in [-1, 1], on a fixed grid."""

    def __init__(self, model: ModelSpec, spec: BoundarySpec) -> None:
        super().__init__(model, spec)
        bits = spec.code_bits
        self.forward_code = GridCode(bits) if bits in (4, 8) else RawCode(torch.bfloat16)
        self.backward_code = bottleneck_code(bits)

    def sender(self, index: int) -> Sender:
        """Return norm and encoder."""
        return _AnchoredSender(self.model, self.message_width, f"boundary.{index}.frame")

    def receiver(self, index: int) -> Receiver:
        """Return decoder and token table."""
        return _AnchoredReceiver(self.model, self.spec, f"boundary.{index}.frame")


def token_table(model: ModelSpec, rank: int) -> nn.Module:
    """Return a learned table of one vector per token, of deviation .3, in full or as a product of the given rank."""
    if rank == 0:
        return Table(model.vocab_size, model.width, _TABLE_STD)
    mix = Linear(rank, model.width, normal(_TABLE_STD / math.sqrt(rank)))
    return nn.Sequential(Table(model.vocab_size, rank, 1.0), mix)
