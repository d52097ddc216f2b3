"""`StageCompute`: a stage as its peer uses it, with bytes on both sides.

    held = compute.forward(window, payload)          # payload None in the first stage
    ... send held.payload on, wait for the gradient ...   # in the last stage held.loss instead
    gradient = compute.backward(held, gradient)      # None in, in the last stage; None out, from the first
    compute.step(num_microbatches)                   # after a fixed number of microbatches (the spec's)

One thread at a time. Everything is a deterministic function of the weights, the optimizer's state and the order of
the calls, so a log of that order replays to the same bytes on the same platform.

A graph goes backward through the weights it went forward with, however many steps were taken in between: the gradient
is late by these steps, but it is exactly that of the numbers which were sent (weight stashing: PipeDream,
arXiv:1806.03377, section 3.3). Running the forward again with the present weights instead costs a third more time.

Shapes: B sequences, T positions, K message width. A *window* is B x (T+1) tokens: inputs and, shifted by one, labels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call

from iota_p2p.model.boundary.codes import DivergedError
from iota_p2p.model.optimizer import StageOptimizer
from iota_p2p.model.stage import Stage, loss_of
from iota_p2p.model.state import tensors_in, to_bytes
from iota_p2p.run.spec import RunPlan
from iota_p2p_crypto.errors import LocalProtocolError, MalformedError

# What the tensors of a checkpoint are called: these before the names of parameters and of moments.
WEIGHTS = "weights/"
MOMENTS = "moments/"
NUM_STEPS = "num_steps"
VELOCITY = "velocity"  # the outer momentum's memory, in a state that an epoch began with; no part of the inner work

# The weights of a moment, by name: leaves of all graphs of that moment, apart from the parameters, which move on.
Weights = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Held:
    """A forward pass that awaits its backward pass.

    Attributes:
        payload: bytes for the next stage; None in the last.
        loss: nats per token; None but in the last stage.
        window_BT1: the tokens it is about.
        received: the payload it came from; None in the first stage.
        input_BTK: the decoded message, whose gradient goes back.
        output: what backward starts from: the message, or the loss.
        weights: those it ran with.
        version: how often the weights had been replaced from outside by then.
    """

    payload: bytes | None
    loss: float | None
    window_BT1: Tensor
    received: bytes | None
    input_BTK: Tensor | None
    output: Tensor
    weights: Weights
    version: int


class StageCompute:
    """A stage, its optimizer, and the bytes of both boundaries."""

    def __init__(self, plan: RunPlan, index: int, *, seed: int | None, device: str = "cpu") -> None:
        self.stage = Stage(plan, index, seed=seed).to(device)
        self.optimizer = StageOptimizer(self.stage, plan.optimizer)
        self.device = torch.device(device)
        self.num_steps = 0
        self._version = 0  # grows whenever the weights are replaced; a graph from before is no longer valid
        self._weights: Weights | None = None  # of the graphs since the last change, sharing the parameters' memory

    def forward(self, window_BT1: Tensor, payload: bytes | None = None, weights: Weights | None = None) -> Held:
        """Run the stage and keep its graph; with other weights than the present ones only where a replay wants them.

        Raises:
            MalformedError: if the payload is not a message about this window.
            DivergedError: if the result is not finite.
        """
        window_BT1 = window_BT1.to(self.device)
        tokens_BT = window_BT1[:, :-1]
        input_BTK = self._decode(tokens_BT, payload)
        if weights is None:
            weights = self._present_weights()
        output = functional_call(self.stage, weights, (tokens_BT, input_BTK))
        if not self.stage.is_last:
            sent = self.stage.boundary.forward_code.encode(output)
            return Held(sent, None, window_BT1, payload, input_BTK, output, weights, self._version)
        loss = loss_of(output, window_BT1[:, 1:])
        return Held(None, _finite(loss.detach()), window_BT1, payload, input_BTK, loss, weights, self._version)

    def weights_in(self, vector: bytes) -> Weights:
        """Return weights as `weights_bytes` wrote them, for `forward`; the caller has checked the length."""
        values, start = torch.frombuffer(bytearray(vector), dtype=torch.float32), 0
        weights: Weights = {}
        for name, parameter in sorted(self.stage.named_parameters()):
            part = values[start : start + parameter.numel()].view(parameter.shape)
            # Cloned: where a tensor begins in memory can decide how a sum over it is rounded.
            weights[name] = part.clone().to(self.device).requires_grad_()
            start += parameter.numel()
        return weights

    def _present_weights(self) -> Weights:
        if self._weights is None:
            # `data` shares the memory but not the count of changes, by which autograd would refuse an older graph.
            self._weights = {name: p.data.requires_grad_() for name, p in self.stage.named_parameters()}
        return self._weights

    @torch.no_grad()
    def evaluate(self, window_BT1: Tensor, payload: bytes | None = None) -> Held:
        """Run the stage for a score or a replay: same numbers as `forward`, nothing to go back through."""
        return self.forward(window_BT1, payload)

    @torch.no_grad()
    def last_logits(self, window_BT1: Tensor, payload: bytes | None = None) -> Tensor:
        """Return the logits at the last position of the first sequence, V; only in the last stage."""
        tokens_BT = window_BT1.to(self.device)[:, :-1]
        return self.stage(tokens_BT, self._decode(tokens_BT, payload))[0, -1].float().cpu()  # type: ignore[no-any-return] # nn.Module calls return Any

    def backward(self, held: Held, gradient: bytes | None = None) -> bytes | None:
        """Add the microbatch's gradients to the stage's, and return the gradient for the previous stage.

        If the weights were replaced since the forward pass, that is run again with the present ones first; inner steps
        in between do not matter.

        Raises:
            MalformedError: if the gradient does not fit; nothing has been added then.
            DivergedError: if the result is not finite.
        """
        if self.stage.is_last != (gradient is None):
            raise LocalProtocolError("expected a gradient from the next stage, and none in the last one")
        seed = None if gradient is None else self._decode_gradient(held, gradient)
        if held.version != self._version:
            held = self.forward(held.window_BT1, held.received)
        # The gradient of a scalar product with the seed is the seed, to the bit. Given to `backward` as such it would
        # be looked at by torch's compiler, whose import costs a joiner half a second.
        root = held.output if seed is None else torch.dot(held.output.flatten(), seed.flatten())
        torch.autograd.backward(root)
        self._add_gradients(held.weights)
        if held.input_BTK is None:
            return None
        assert held.input_BTK.grad is not None  # noqa: S101 - backward has just filled it
        return self.stage.boundary.backward_code.encode(held.input_BTK.grad)

    def _add_gradients(self, weights: Weights) -> None:
        for name, parameter in self.stage.named_parameters():
            gradient, weights[name].grad = weights[name].grad, None
            if gradient is None:
                continue
            parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)

    def check_gradient(self, held: Held, gradient: bytes) -> None:
        """Raise MalformedError if `backward` would."""
        self._decode_gradient(held, gradient)

    def _decode_gradient(self, held: Held, gradient: bytes) -> Tensor:
        shape = self.stage.boundary.message_shape(held.window_BT1[:, :-1])
        return self.stage.boundary.backward_code.decode(gradient, shape).to(self.device)

    def step(self, num_microbatches: int) -> float:
        """Take one inner step on the gradients of that many microbatches; return the norm of their mean."""
        self._leave_weights_to_graphs()
        norm = self.optimizer.step(self.num_steps, num_microbatches)
        self.num_steps += 1
        return norm

    def _leave_weights_to_graphs(self) -> None:
        """Give the parameters memory of their own, for the graphs that still need what they were."""
        if self._weights is None:
            return
        self._weights = None  # first, so that what no graph needs is freed parameter by parameter
        for parameter in self.stage.parameters():
            parameter.data = parameter.data.clone()

    def weights_changed(self) -> None:
        """Tell that the weights were replaced from outside, as by a merge: held graphs are redone."""
        self._version += 1
        self._weights = None

    def checkpoint(self, velocity: torch.Tensor | None = None) -> bytes:
        """Return everything that continuing needs: weights, moments, the number of steps.

        Args:
            velocity: the outer momentum's memory, W, where the run has one.
        """
        outer = {} if velocity is None else {VELOCITY: velocity}
        weights = {f"{WEIGHTS}{name}": p for name, p in self.stage.named_parameters()}
        moments = {f"{MOMENTS}{name}": value for name, value in self.optimizer.state().items()}
        return to_bytes({**weights, **moments, **outer, NUM_STEPS: torch.tensor(self.num_steps)})

    def restore(self, data: bytes) -> None:
        """Continue from our own checkpoint; what a peer sends goes through `state.from_bytes` instead.

        Raises:
            MalformedError: if the file is damaged or belongs to another stage.
        """
        tensors = tensors_in(data)
        try:
            num_steps = int(tensors.pop(NUM_STEPS))
            tensors.pop(VELOCITY, None)
            weights = {name: tensors.pop(f"{WEIGHTS}{name}") for name, _ in self.stage.named_parameters()}
            self.stage.load_state_dict(weights)
            self.optimizer.load({name.removeprefix(MOMENTS): value for name, value in tensors.items()})
        except (KeyError, RuntimeError) as error:  # load_state_dict says RuntimeError for a wrong shape
            raise MalformedError("checkpoint", f"expected a checkpoint of this stage, got {error}") from error
        self.num_steps = num_steps
        self.weights_changed()

    def _decode(self, tokens_BT: Tensor, payload: bytes | None) -> Tensor | None:
        if self.stage.is_first != (payload is None):
            raise LocalProtocolError("expected a message from the previous stage, and none in the first one")
        if payload is None:
            return None
        boundary = self.stage.boundary
        message = boundary.forward_code.decode(payload, boundary.message_shape(tokens_BT))
        return message.to(self.device).requires_grad_()


def weights_bytes(weights: Weights) -> bytes:
    """Return weights in the order of their names in float32, as they are at the end of a checkpoint."""
    return b"".join(weights[name].detach().float().cpu().numpy().tobytes() for name in sorted(weights))


def _finite(loss: Tensor) -> float:
    value = float(loss)
    if not torch.isfinite(loss):
        raise DivergedError(f"expected a finite loss, got {value}")
    return value
