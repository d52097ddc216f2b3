"""What a deployed settlement contract holds and has logged, as values."""

from dataclasses import dataclass

NO_ROOT = bytes(32)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a contract is created with, and never changes.

    Attributes:
        run_id: the run it settles.
        bond_wei: what a seat costs.
        min_seats: fewer settle nothing.
        dispute_s: from a settlement to its first claim.
        withdrawal_s: from leaving to the bond; at least twice `dispute_s`.
    """

    run_id: bytes
    bond_wei: int
    min_seats: int
    dispute_s: int
    withdrawal_s: int


@dataclass(frozen=True, slots=True)
class Treasury:
    """What the contract can still share out, and who decides it."""

    pot_wei: int
    next_epoch: int
    seats: int
    seats_since: int


@dataclass(frozen=True, slots=True)
class Seat:
    """A validator's seat: from which epoch it counts, until which (exclusive), and when its bond is free (0: never)."""

    index: int
    since: int
    until: int
    withdraw_at_s: int


@dataclass(frozen=True, slots=True)
class EpochState:
    """What the contract holds of an epoch; without a root it is not settled.

    Attributes:
        root: of its payout tree.
        remaining_wei: not claimed yet.
        deadline_s: when claims begin, in the chain's time.
        round: how often a settlement of it was voided.
        signers: seats whose signatures carry it.
    """

    root: bytes
    remaining_wei: int
    deadline_s: int
    round: int
    signers: frozenset[int]

    @property
    def is_settled(self) -> bool:
        """Whether there is a root."""
        return self.root != NO_ROOT


@dataclass(frozen=True, slots=True)
class SettledEvent:
    """A settlement as the contract logged it."""

    epoch: int
    root: bytes
    total_wei: int
    round: int


@dataclass(frozen=True, slots=True)
class ClaimedEvent:
    """A claim as the contract logged it."""

    epoch: int
    index: int
    account: bytes
    amount_wei: int
