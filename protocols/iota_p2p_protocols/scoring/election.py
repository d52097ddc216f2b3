"""Electing an epoch's validators: sortition by verifiable random function, weighted by capped stake.

Every candidate computes its own output for the seed and knows, before anybody else, whether it is elected; the proof
in its score record tells everybody. Who registers after a seed could be foreseen would choose its key to suit it, so a
registration counts from the second epoch after the one it names. Those of epoch 0 count at once: a run has to begin
with somebody, and its first seeds are known to all anyhow.

Elected are those whose output, read as a fraction of 1, is below seats * weight / total weight: in proportion to
weight, exactly, until a share exceeds one seat. If too few come forward in time, the next *round* doubles the seats.
Nothing is drawn again: outputs stay, the bar rises, and everybody elected in a round is elected in the later ones.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from iota_p2p_crypto import vrf
from iota_p2p_crypto.digest import tagged_digest
from iota_p2p_crypto.domains import REGISTRATION, Domain
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import Identity, PeerId
from iota_p2p_protocols.errors import InvalidProofError, LocalProtocolError
from iota_p2p_protocols.message import Count, Message, SignedMessage

# Epochs between registering and the first election one can win: the seed of that one is not yet foreseeable.
REGISTRATION_LEAD = 2
# A stake counts for at most so many times the middle one, so that no single key fills every committee.
MAX_STAKE_RATIO = 4
# Three doublings: 8 times the seats elect every candidate of a network no larger than that.
MAX_ROUNDS = 4
MAX_CANDIDATES = 4096  # 64 times the largest committee anybody needs; bounds an audit's memory
MAX_STAKE = 2**53  # what every JSON reader can hold; the sum over all candidates stays below 2^65

_TAG = "iota-p2p/election/1"
_FRACTION_BYTES = 32  # of the output's 64: comparing 2^-256ths is exact enough


class Registration(SignedMessage):
    """A peer offers itself as a validator, or withdraws.

    Attributes:
        epoch: when it was said; it counts from `epoch` + REGISTRATION_LEAD on.
        stake: in the settlement contract's units; without a contract every validator says 1.
        active: False withdraws, from the same epoch on.
    """

    domain: ClassVar[Domain] = REGISTRATION
    max_lifetime_s: ClassVar[int] = 86_400  # a day: renewed twice in it, so that the dead do not stay candidates

    epoch: Count
    stake: Annotated[int, Field(gt=0, le=MAX_STAKE)]
    active: bool = True


class ElectionProof(Message):
    """Why a validator may score an epoch; part of its score record.

    Attributes:
        proof: the VRF's, for the election's input.
        round: in which round it is elected, from 0.
    """

    proof: Annotated[bytes, Field(min_length=vrf.PROOF_BYTES, max_length=vrf.PROOF_BYTES)]
    round: Annotated[int, Field(ge=0, lt=MAX_ROUNDS)]


@dataclass(frozen=True, slots=True)
class Electorate:
    """Who may be elected for an epoch.

    Attributes:
        epoch: which epoch's work is to be scored.
        weights: capped stakes of all candidates; build it with `electorate`.
        seats: how many validators the run wants.
    """

    epoch: int
    weights: Mapping[PeerId, int]
    seats: int

    @property
    def total(self) -> int:
        """The sum of all weights."""
        return sum(self.weights.values())

    @property
    def quorum(self) -> int:
        """How many validators must agree: over two thirds of the seats, or of the candidates where they are fewer."""
        return 2 * min(self.seats, len(self.weights)) // 3 + 1 if self.weights else 1

    def is_quorum(self, signers: Iterable[PeerId]) -> bool:
        """Return whether a quorum of the candidates, elected or not, is among some signers."""
        return len(self.weights.keys() & set(signers)) >= self.quorum


def electorate(registrations: Iterable[Verified[Registration]], *, epoch: int, seats: int) -> Electorate:
    """Return who may be elected for an epoch.

    Of several registrations of one peer the newest that is old enough counts. Above MAX_CANDIDATES the largest stakes
    are kept.
    """
    newest: dict[PeerId, Verified[Registration]] = {}
    for one in registrations:
        known = newest.get(one.signer)
        in_time = one.payload.epoch == 0 or one.payload.epoch + REGISTRATION_LEAD <= epoch
        if in_time and (known is None or one.payload.sequence > known.payload.sequence):
            newest[one.signer] = one
    active = [(one.payload.stake, peer_id) for peer_id, one in newest.items() if one.payload.active]
    stakes = {peer_id: stake for stake, peer_id in sorted(active, reverse=True)[:MAX_CANDIDATES]}
    return Electorate(epoch, capped_weights(stakes), seats)


def capped_weights(stakes: Mapping[PeerId, int]) -> dict[PeerId, int]:
    """Return stakes cut down to MAX_STAKE_RATIO times the lower median."""
    if not stakes:
        return {}
    most = MAX_STAKE_RATIO * sorted(stakes.values())[(len(stakes) - 1) // 2]
    return {peer_id: min(stake, most) for peer_id, stake in stakes.items()}


def election_input(run_id: bytes, seed: bytes, epoch: int) -> bytes:
    """Return what every candidate's VRF is applied to."""
    return tagged_digest(_TAG, run_id, seed, epoch.to_bytes(8, "big"))


def elect(identity: Identity, voters: Electorate, *, run_id: bytes, seed: bytes) -> ElectionProof | None:
    """Return our proof with the first round that elects us, or None if none does."""
    proof = vrf.prove(identity, election_input(run_id, seed, voters.epoch))
    output = vrf.output_of(proof)
    for number in range(MAX_ROUNDS):
        if _is_elected(output, identity.peer_id, voters, number):
            return ElectionProof(proof=proof, round=number)
    return None


def verify_election(
    peer_id: PeerId, election: ElectionProof, voters: Electorate, *, run_id: bytes, seed: bytes
) -> bytes:
    """Check that a peer was elected; return its 64-byte output, which goes into the next seed.

    Raises:
        InvalidProofError: if it is no candidate, its proof does not hold, or its output is above the round's bar.
        MalformedError: if the proof does not decode.
    """
    # [election-candidate] it registered early enough
    if peer_id not in voters.weights:
        raise InvalidProofError("election-candidate", f"expected a candidate of epoch {voters.epoch}, got {peer_id}")
    # [vrf-*] the output is its own for this seed
    output = vrf.verify(peer_id, election_input(run_id, seed, voters.epoch), election.proof)
    # [election-bar] which the round elects
    if not _is_elected(output, peer_id, voters, election.round):
        raise InvalidProofError("election-bar", f"expected an output that round {election.round} elects, got another")
    return output


def _is_elected(output: bytes, peer_id: PeerId, voters: Electorate, number: int) -> bool:
    """Compare output / 2^256 with seats * 2^round * weight / total, in integers."""
    weight = voters.weights.get(peer_id, 0)
    if weight < 0 or voters.seats < 1:
        raise LocalProtocolError(f"expected a weight and seats, got {weight} and {voters.seats}")
    fraction = int.from_bytes(output[:_FRACTION_BYTES], "big")
    return fraction * voters.total < (voters.seats << number) * weight << (8 * _FRACTION_BYTES)
