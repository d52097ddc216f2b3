"""The table of boundary kinds."""

from iota_p2p.model.boundary.anchored import AnchoredResidual
from iota_p2p.model.boundary.base import Boundary
from iota_p2p.model.boundary.full_width import FullWidth
from iota_p2p.model.boundary.iota_block import IotaBlock
from iota_p2p.model.boundary.subspace import SharedSubspace
from iota_p2p.run.spec import BoundarySpec, ModelSpec

KINDS: dict[str, type[Boundary]] = {
    "none": FullWidth,
    "bf16": FullWidth,
    "int8": FullWidth,
    "iota": IotaBlock,
    "anchored": AnchoredResidual,
    "subspace": SharedSubspace,
}


def boundary_of(model: ModelSpec, spec: BoundarySpec) -> Boundary:
    """Return the boundary that a spec states for a model."""
    return KINDS[spec.kind](model, spec)
