"""`Boundary`: the interface between two neighbouring stages.

    sending stage                          |  receiving stage
    h --sender--> z --forward_code--> bytes|bytes --forward_code--> z' --receiver--> h'
    z.grad <-- backward_code <-------- bytes|bytes <-- backward_code <-- z'.grad

Sender and receiver are ordinary modules, trained by autograd inside their own stage. Only the *message* z crosses,
as bytes, and the gradient of z' is taken as the gradient of z: rounding is straight-through by construction.

Shapes: B sequences, T positions, D model width, K message width.
"""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from iota_p2p.model.boundary.codes import Code, Shape
from iota_p2p.model.decoder import Expand, Rotary
from iota_p2p.model.weights import Table
from iota_p2p.run.spec import BoundarySpec, ModelSpec


class Sender(nn.Module, ABC):
    """Turns the stream into a message; part of the sending stage."""

    @abstractmethod
    def forward(self, h_BTD: Tensor, tokens_BT: Tensor) -> Tensor:
        """Return the message z, B x T x K."""


class Receiver(nn.Module, ABC):
    """Turns a message into a stream; part of the receiving stage, which knows the tokens."""

    @abstractmethod
    def forward(self, z_BTK: Tensor, tokens_BT: Tensor, rotary: Rotary) -> Tensor:
        """Return the stream h', B x T x D."""


class Boundary(ABC):
    """One way of joining stages.

    Attributes:
        message_width: K.
        forward_code: bytes of messages.
        backward_code: bytes of their gradients.
    """

    forward_code: Code
    backward_code: Code

    def __init__(self, model: ModelSpec, spec: BoundarySpec) -> None:
        self.model = model
        self.spec = spec
        self.message_width = spec.width or model.width

    @abstractmethod
    def sender(self, index: int) -> Sender:
        """Return an unfilled sender for the boundary after stage `index`."""

    @abstractmethod
    def receiver(self, index: int) -> Receiver:
        """Return an unfilled receiver for the boundary after stage `index`."""

    def embedding(self) -> nn.Module:
        """Return the unfilled module that maps tokens B x T to the stream at the start of the first stage."""
        return Table(self.model.vocab_size, self.model.width, float(self.model.embedding_std))

    def output_width(self, stage: int) -> int:
        """Return the width of the outputs of the blocks of a stage, before `expand`."""
        del stage
        return self.model.width

    def expand(self, stage: int) -> nn.Module:
        """Return the module that brings the outputs of a stage's blocks to the width of the stream."""
        del stage
        return Expand()

    def message_shape(self, tokens_BT: Tensor) -> Shape:
        """Return the shape of the message about these tokens."""
        num_sequences, length = tokens_BT.shape
        return num_sequences, length, self.message_width

    def bytes_per_token(self) -> tuple[int, int]:
        """Return how many bytes per token travel forward and backward."""
        return (
            self.forward_code.bytes_per_token(self.message_width),
            self.backward_code.bytes_per_token(self.message_width),
        )

    def ratios(self) -> tuple[float, float]:
        """Return the compression forward and backward, against float32 of the whole stream."""
        forward, backward = self.bytes_per_token()
        return 4 * self.model.width / forward, 4 * self.model.width / backward
