"""`--adversary NAME=COUNT`: which peers of a testnet cheat, and how. Pure, and imports nothing heavy."""

from collections.abc import Mapping, Sequence

from iota_p2p_crypto.errors import UserError

# Each is an honest peer with one part changed (`merge_adversaries`, `work_adversaries`, `validator_adversaries`).
NAMES = (
    "bad-reducer",
    "colluding-reducers",
    "colluding-stage",
    "copying",
    "equivocating-convener",
    "false-validator",
    "garbage-reducers",
    "lazy",
    "lying-tail",
    "lying-validator",
    "nan",
    "poisoned",
    "poisoned-gradient",
    "random-output",
    "scaled",
    "silent-convener",
    "stale",
    "two-results",
    "unmerged",
    "withholding-validator",
    "wrong-chunks",
)


def plan_adversaries(texts: Sequence[str], num_peers: int) -> Mapping[int, str]:
    """Return how each of the peers that cheat does so: the last ones, so that the first one founds an honest network.

    Raises:
        UserError: if a text is not understood, or nobody would be left.
    """
    kinds: list[str] = []
    for text in texts:
        name, _, count = text.partition("=")
        if name not in NAMES or (count and not count.isdecimal()) or len(count) > 4:  # noqa: PLR2004 - below MAX_PEERS
            raise UserError(f"--adversary {text!r} is not understood: expected NAME=COUNT, NAME of {', '.join(NAMES)}")
        kinds += [name] * int(count or 1)
    if len(kinds) >= num_peers:
        raise UserError(f"--adversary wants {len(kinds)} of {num_peers} peers: at least one must be honest")
    return dict(zip(range(num_peers, 0, -1), kinds, strict=False))
