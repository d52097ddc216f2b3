"""`Stage`: a contiguous range of the decoder's blocks, with its halves of the boundaries on both sides.

A stage is plain autograd: message tensor in, message tensor or logits out. `compute.StageCompute` adds the bytes.
Parameters are named by their place in the whole model (`blocks.7.ffn.up.weight`), whatever the cuts, so that their
initial values do not depend on the cuts either.

Shapes: B sequences, T positions, D model width, K message width, V vocabulary.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from iota_p2p.model.boundary.kinds import boundary_of
from iota_p2p.model.decoder import Block, Head, Rotary
from iota_p2p.model.weights import Seeded
from iota_p2p.run.spec import RunPlan


class Stage(nn.Module):
    """Stage `index` of a run's model, with initial weights drawn from `seed`.

    With `seed` None the weights stay unset: for the meta device, or when a state is loaded over them.
    """

    def __init__(self, plan: RunPlan, index: int, *, seed: int | None) -> None:
        super().__init__()
        model = plan.model
        self.plan = plan
        self.index = index
        self.boundary = boundary_of(model, plan.boundary)
        self.is_first = index == 0
        self.is_last = index == model.num_stages - 1
        self.embedding = self.boundary.embedding() if self.is_first else None
        self.receiver = None if self.is_first else self.boundary.receiver(index - 1)
        self.rotary = Rotary(model)
        self.expand = self.boundary.expand(index)
        width = self.boundary.output_width(index)
        self.blocks = nn.ModuleDict({str(i): Block(model, width) for i in model.blocks_of(index)})
        self.sender = None if self.is_last else self.boundary.sender(index)
        self.head = Head(model) if self.is_last else None
        if seed is not None:
            self._fill(seed)

    def _fill(self, seed: int) -> None:
        places = {"sender": f"boundary.{self.index}.sender", "receiver": f"boundary.{self.index - 1}.receiver"}
        for path, module in self.named_modules():
            if isinstance(module, Seeded):
                part, dot, rest = path.partition(".")
                module.fill(seed, f"{places.get(part, part)}{dot}{rest}")

    def forward(self, tokens_BT: Tensor, message_BTK: Tensor | None) -> Tensor:
        """Return the message to the next stage, B x T x K, or the logits, B x T x V; float32.

        `message_BTK` is the decoded message from the previous stage, None in the first.
        """
        dtype = getattr(torch, self.plan.model.precision)
        with torch.autocast(tokens_BT.device.type, torch.bfloat16, enabled=dtype is torch.bfloat16):
            if self.embedding is not None:
                h_BTD = self.embedding(tokens_BT)
            else:
                assert self.receiver is not None  # noqa: S101 - every stage but the first has one
                h_BTD = self.receiver(message_BTK, tokens_BT, self.rotary)
            for block in self.blocks.values():
                h_BTD = block(h_BTD, self.rotary, self.expand)
            out = self.head(h_BTD) if self.head is not None else self._send(h_BTD, tokens_BT)
        return torch.as_tensor(out).float()

    def _send(self, h_BTD: Tensor, tokens_BT: Tensor) -> Tensor:
        assert self.sender is not None  # noqa: S101 - every stage but the last has one
        return torch.as_tensor(self.sender(h_BTD, tokens_BT))


def loss_of(logits_BTV: Tensor, labels_BT: Tensor) -> Tensor:
    """Return the mean cross entropy in nats per token."""
    return functional.cross_entropy(logits_BTV.flatten(0, 1), labels_BT.flatten())
