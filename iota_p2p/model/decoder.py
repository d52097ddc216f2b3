"""The decoder's pieces: RMSNorm, rotary positions, causal attention and SwiGLU, as in Llama.

Shapes: B sequences, T positions, D model width, H query heads, G key and value heads, N channels per head, F FFN
channels, O output width: D, or the width of the subspace that a block's outputs are confined to.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from iota_p2p.model.weights import Linear, normal
from iota_p2p.run.spec import ModelSpec

_NORM_EPSILON = 1e-5  # Llama's


class Rotary(nn.Module):
    """Rotary positions: pairs (i, i + N/2) of every head turn by position * base^(-2i/N)."""

    cos_TN: Tensor
    sin_TN: Tensor

    def __init__(self, model: ModelSpec) -> None:
        super().__init__()
        half = model.head_dim // 2
        # On the CPU also where the rest of a stage has no values: arithmetic on torch's meta device imports a compiler.
        steps, positions = (
            torch.arange(count, dtype=torch.float64, device="cpu") for count in (half, model.sequence_length)
        )
        angles = positions[:, None] * float(model.rope_base) ** (-steps / half)
        angles = torch.cat((angles, angles), dim=1)
        self.register_buffer("cos_TN", angles.cos().float(), persistent=False)
        self.register_buffer("sin_TN", angles.sin().float(), persistent=False)

    def forward(self, x_BHTN: Tensor) -> Tensor:
        """Return the heads turned by their positions."""
        length = x_BHTN.shape[2]
        low, high = x_BHTN.float().chunk(2, dim=-1)
        turned = torch.cat((-high, low), dim=-1)
        y_BHTN = x_BHTN * self.cos_TN[:length] + turned * self.sin_TN[:length]
        return y_BHTN.to(x_BHTN.dtype)


class Attention(nn.Module):
    """Causal attention; G < H shares every key and value head among H/G query heads."""

    def __init__(self, model: ModelSpec, output: Linear) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads = model.num_heads, model.num_kv_heads
        self.query = Linear(model.width, model.width)
        self.key = Linear(model.width, model.num_kv_heads * model.head_dim)
        self.value = Linear(model.width, model.num_kv_heads * model.head_dim)
        self.output = output

    def forward(self, x_BTD: Tensor, rotary: Rotary) -> Tensor:
        """Return what each position gathers from itself and the positions before it, B x T x O."""
        q_BHTN = rotary(self.query(x_BTD).unflatten(-1, (self.num_heads, -1)).transpose(1, 2))
        k_BGTN = rotary(self.key(x_BTD).unflatten(-1, (self.num_kv_heads, -1)).transpose(1, 2))
        v_BGTN = self.value(x_BTD).unflatten(-1, (self.num_kv_heads, -1)).transpose(1, 2)
        y_BHTN = functional.scaled_dot_product_attention(
            q_BHTN, k_BGTN, v_BGTN, is_causal=True, enable_gqa=self.num_heads != self.num_kv_heads
        )
        return torch.as_tensor(self.output(y_BHTN.transpose(1, 2).flatten(2)))


class SwiGlu(nn.Module):
    """The gated FFN: output(silu(gate x) * up x)."""

    def __init__(self, model: ModelSpec, output: Linear) -> None:
        super().__init__()
        self.gate = Linear(model.width, model.ffn_width)
        self.up = Linear(model.width, model.ffn_width)
        self.output = output

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return the FFN of every position, B x T x O."""
        return torch.as_tensor(self.output(functional.silu(self.gate(x_BTD)) * self.up(x_BTD)))


class Expand(nn.Module):
    """Where a block's outputs go: into the stream as they are. The subspace boundary expands them (see there)."""

    def forward(self, y_BTO: Tensor) -> Tensor:
        """Return the outputs in the width of the stream."""
        return y_BTO


class Block(nn.Module):
    """One pre-norm decoder block on the residual stream."""

    def __init__(self, model: ModelSpec, output_width: int) -> None:
        super().__init__()
        # Every block adds to the stream twice: this keeps the sum of all 2L additions at the size of one.
        shrink = 1 / math.sqrt(3 * 2 * model.num_layers)
        self.attention_norm = nn.RMSNorm(model.width, eps=_NORM_EPSILON)
        self.attention = Attention(model, _output(model.width, output_width, shrink))
        self.ffn_norm = nn.RMSNorm(model.width, eps=_NORM_EPSILON)
        self.ffn = SwiGlu(model, _output(model.ffn_width, output_width, shrink))

    def forward(self, h_BTD: Tensor, rotary: Rotary, expand: nn.Module) -> Tensor:
        """Return the stream after attention and FFN; `expand` brings their outputs to its width."""
        h_BTD = h_BTD + expand(self.attention(self.attention_norm(h_BTD), rotary))
        return torch.as_tensor(h_BTD + expand(self.ffn(self.ffn_norm(h_BTD))))


class Head(nn.Module):
    """Final norm and the projection to token logits."""

    def __init__(self, model: ModelSpec) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(model.width, eps=_NORM_EPSILON)
        # Small logits: the first loss is ln(vocabulary) within .01.
        self.output = Linear(model.width, model.vocab_size, normal(0.1 / math.sqrt(model.width)))

    def forward(self, h_BTD: Tensor) -> Tensor:
        """Return the logits of the next token, B x T x vocabulary."""
        return torch.as_tensor(self.output(self.norm(h_BTD)))


def rms_norm(width: int) -> nn.RMSNorm:
    """Return the norm that all of the model uses."""
    return nn.RMSNorm(width, eps=_NORM_EPSILON)


def _output(num_in: int, num_out: int, shrink: float) -> Linear:
    return Linear(num_in, num_out, normal(shrink / math.sqrt(num_in)))
