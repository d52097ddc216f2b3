"""The whole stream, uncompressed or nearly: float32, bfloat16, or 8 bits with a scale per position."""

import torch
from torch import Tensor

from iota_p2p.model.boundary.base import Boundary, Receiver, Sender
from iota_p2p.model.boundary.codes import Code, RawCode, ScaledCode
from iota_p2p.model.decoder import Rotary
from iota_p2p.run.spec import BoundarySpec, ModelSpec

_CODES: dict[str, Code] = {
    "none": RawCode(torch.float32),
    "bf16": RawCode(torch.bfloat16),
    "int8": ScaledCode(8),
}


class _WholeSender(Sender):
    def forward(self, h_BTD: Tensor, tokens_BT: Tensor) -> Tensor:
        del tokens_BT
        return h_BTD


class _WholeReceiver(Receiver):
    def forward(self, z_BTK: Tensor, tokens_BT: Tensor, rotary: Rotary) -> Tensor:
        del tokens_BT, rotary
        return z_BTK


class FullWidth(Boundary):
    """Sends every channel; with float32 a pipeline equals one process bit for bit."""

    def __init__(self, model: ModelSpec, spec: BoundarySpec) -> None:
        super().__init__(model, spec)
        self.forward_code = self.backward_code = _CODES[spec.kind]

    def sender(self, index: int) -> Sender:
        """Return a sender without weights."""
        del index
        return _WholeSender()

    def receiver(self, index: int) -> Receiver:
        """Return a receiver without weights."""
        del index
        return _WholeReceiver()
