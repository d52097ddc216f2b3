"""Shared subspace (Protocol Models, 2506.01260): a cut loses nothing but rounding.

A seed-derived orthonormal U (D x K) and a fixed random token table F are the same for all stages. The stream starts
as F[token] + U E[token], and every block before the last stage writes U (W a) in place of a D-wide projection. So
h - F[token] always lies in the span of U, and

    z  = U^T (h - F[token])
    h' = F[token] + U z

hold at any layer: there are no codec weights to keep in step, and any layer can be a cut. The last stage, which
sends nothing, writes the full width.

Shapes: B sequences, T positions, D model width, K message width, O output width of a block (K, or D in the last stage).
"""

import math
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional

from iota_p2p.model.boundary.base import Boundary, Receiver, Sender
from iota_p2p.model.boundary.codes import bottleneck_code
from iota_p2p.model.decoder import Rotary
from iota_p2p.model.weights import Fixed, Table, around_one, normal, orthonormal
from iota_p2p.run.spec import BoundarySpec, ModelSpec

_TABLE_STD = 0.3  # measured (facts 7)
_FRAME = "subspace.frame"


class _FixedTable(nn.Module):
    """F: one fixed random vector per token, in full or as a product of the given rank."""

    def __init__(self, model: ModelSpec, rank: int) -> None:
        super().__init__()
        inner = rank or model.width
        self.rows = Fixed((model.vocab_size, inner), around_one(1.0 if rank else _TABLE_STD), "subspace.table")
        mix = Fixed((model.width, rank), normal(_TABLE_STD / math.sqrt(rank)), "subspace.mix") if rank else None
        self.mix = mix

    def forward(self, tokens_BT: Tensor) -> Tensor:
        rows = functional.embedding(tokens_BT, self.rows.weight)
        return rows if self.mix is None else functional.linear(rows, self.mix.weight)


class _Frame(Fixed):
    """U, and both of its uses."""

    def __init__(self, model: ModelSpec, width: int) -> None:
        super().__init__((model.width, width), orthonormal(_FRAME, 1.0), _FRAME)

    def forward(self, z_BTK: Tensor) -> Tensor:
        """Return U z, in the width of the stream."""
        return functional.linear(z_BTK, self.weight)

    def project(self, h_BTD: Tensor) -> Tensor:
        """Return U^T h."""
        return functional.linear(h_BTD, self.weight.T)


class _SubspaceEmbedding(nn.Module):
    """The start of the stream: F[token] + U E[token]."""

    def __init__(self, table: _FixedTable, frame: _Frame, embedding: Table) -> None:
        super().__init__()
        self.table = table
        self.frame = frame
        self.embedding = embedding

    def forward(self, tokens_BT: Tensor) -> Tensor:
        return torch.as_tensor(self.table(tokens_BT) + self.frame(self.embedding(tokens_BT)))


class _SubspaceSender(Sender):
    def __init__(self, table: _FixedTable, frame: _Frame) -> None:
        super().__init__()
        self.table = table
        self.frame = frame

    def forward(self, h_BTD: Tensor, tokens_BT: Tensor) -> Tensor:
        return self.frame.project(h_BTD - self.table(tokens_BT))


class _SubspaceReceiver(Receiver):
    def __init__(self, table: _FixedTable, frame: _Frame) -> None:
        super().__init__()
        self.table = table
        self.frame = frame

    def forward(self, z_BTK: Tensor, tokens_BT: Tensor, rotary: Rotary) -> Tensor:
        del rotary
        return torch.as_tensor(self.table(tokens_BT) + self.frame(z_BTK))


class SharedSubspace(Boundary):
    """K numbers per token in a basis that everybody can draw.

    All modules that one instance gives out share one table and one frame.
    """

    def __init__(self, model: ModelSpec, spec: BoundarySpec) -> None:
        super().__init__(model, spec)
        self.forward_code = self.backward_code = bottleneck_code(spec.code_bits)

    @cached_property
    def _table(self) -> _FixedTable:
        return _FixedTable(self.model, self.spec.token_table_rank)

    @cached_property
    def _frame(self) -> _Frame:
        return _Frame(self.model, self.spec.width)

    def sender(self, index: int) -> Sender:
        """Return the projection, which has no weights to train."""
        del index
        return _SubspaceSender(self._table, self._frame)

    def receiver(self, index: int) -> Receiver:
        """Return the expansion, which has no weights to train."""
        del index
        return _SubspaceReceiver(self._table, self._frame)

    def embedding(self) -> nn.Module:
        """Return the start of the stream, already inside the subspace around F."""
        embedding = Table(self.model.vocab_size, self.spec.width, float(self.model.embedding_std))
        return _SubspaceEmbedding(self._table, self._frame, embedding)

    def output_width(self, stage: int) -> int:
        """Return K, but D in the last stage."""
        return self.model.width if self._is_last(stage) else self.spec.width

    def expand(self, stage: int) -> nn.Module:
        """Return U, but nothing in the last stage."""
        return super().expand(stage) if self._is_last(stage) else self._frame

    def _is_last(self, stage: int) -> bool:
        return stage == self.model.num_stages - 1
