"""Choosing the next token from a model's logits."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose.

    Attributes:
        temperature: divides the logits; 0 always takes the likeliest token.
        top_k: how many of the likeliest tokens may be chosen; 0 for all.
    """

    temperature: float = 1.0
    top_k: int = 0

    def choose(self, logits: npt.NDArray[np.float32], rng: np.random.Generator) -> int:
        """Return a token; logits are finite, and of equal ones the lower token goes first."""
        ranked = np.argsort(-logits, kind="stable")
        if self.temperature == 0:
            return int(ranked[0])
        candidates = ranked[: self.top_k or None]
        below_best = logits[candidates].astype(np.float64) - float(logits[ranked[0]])
        with np.errstate(over="ignore"):  # by a temperature near 0, to minus infinity, whose weight is 0
            weights = np.exp(below_best / self.temperature)
        return int(rng.choice(candidates, p=weights / weights.sum()))
