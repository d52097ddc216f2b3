"""IOTA's published bottleneck block (2507.17766 and its shipped configurations; facts 1), for comparison.

The sender is an FFN that ends in K channels, with the first K channels of the stream added; the receiver expands
them, attends, and adds the message to the first K channels: only those have an uninterrupted identity path. IOTA puts
the two halves in place of a block's FFN and attention; here they stand beside the blocks, which can only help it.

Shapes: B sequences, T positions, D model width, K message width.
"""

import torch
from torch import Tensor
from torch.nn import functional

from iota_p2p.model.boundary.base import Boundary, Receiver, Sender
from iota_p2p.model.boundary.codes import bottleneck_code
from iota_p2p.model.decoder import Attention, Rotary, rms_norm
from iota_p2p.model.weights import Linear
from iota_p2p.run.spec import BoundarySpec, ModelSpec


class _IotaSender(Sender):
    def __init__(self, model: ModelSpec, width: int) -> None:
        super().__init__()
        self.width = width
        self.norm = rms_norm(model.width)
        self.gate = Linear(model.width, model.ffn_width)
        self.up = Linear(model.width, model.ffn_width)
        self.down = Linear(model.ffn_width, model.width)
        self.narrow = Linear(model.width, width)

    def forward(self, h_BTD: Tensor, tokens_BT: Tensor) -> Tensor:
        del tokens_BT
        n_BTD = self.norm(h_BTD)
        u_BTD = self.down(functional.silu(self.gate(n_BTD)) * self.up(n_BTD))
        return torch.as_tensor(self.narrow(functional.silu(u_BTD)) + h_BTD[..., : self.width])


class _IotaReceiver(Receiver):
    def __init__(self, model: ModelSpec, width: int) -> None:
        super().__init__()
        self.width = width
        self.widen = Linear(width, model.width)
        self.norm = rms_norm(model.width)
        self.attention = Attention(model, Linear(model.width, model.width))

    def forward(self, z_BTK: Tensor, tokens_BT: Tensor, rotary: Rotary) -> Tensor:
        del tokens_BT
        a_BTD = self.attention(self.norm(functional.relu(self.widen(z_BTK))), rotary)
        return torch.cat((a_BTD[..., : self.width] + z_BTK, a_BTD[..., self.width :]), dim=-1)


class IotaBlock(Boundary):
    """K numbers per token out of IOTA's trained bottleneck."""

    def __init__(self, model: ModelSpec, spec: BoundarySpec) -> None:
        super().__init__(model, spec)
        self.forward_code = self.backward_code = bottleneck_code(spec.code_bits)

    def sender(self, index: int) -> Sender:
        """Return the FFN half."""
        del index
        return _IotaSender(self.model, self.message_width)

    def receiver(self, index: int) -> Receiver:
        """Return the attention half."""
        del index
        return _IotaReceiver(self.model, self.message_width)
