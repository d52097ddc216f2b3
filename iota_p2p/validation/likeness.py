"""How alike what a replay came to is to what a peer sent, where the bytes differ."""

import numpy as np
import numpy.typing as npt

from iota_p2p.model.boundary.codes import Code, Shape
from iota_p2p_protocols.scoring.replay_verdict import Likeness

Floats = npt.NDArray[np.float64]


def likeness(one: Floats, other: Floats) -> Likeness:
    """Compare two vectors; nothing is like nothing."""
    norms = sorted((float(np.linalg.norm(one)), float(np.linalg.norm(other))))
    if norms[1] == 0:
        return Likeness(1.0, 1.0)
    if norms[0] == 0:
        return Likeness(0.0, 0.0)
    return Likeness(norms[0] / norms[1], float(np.dot(one, other)) / (norms[0] * norms[1]))


def likeness_of_payloads(code: Code, shape: Shape, one: bytes, other: bytes) -> Likeness:
    """Compare two encoded messages or gradients of one shape.

    Raises:
        MalformedError, DivergedError: if one of them is none.
    """
    return likeness(*(code.decode(payload, shape).double().numpy().ravel() for payload in (one, other)))
