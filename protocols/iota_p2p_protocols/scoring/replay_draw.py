"""Who looks at which work of an epoch: dealt from the seed that came after everybody had committed to its work.

Everybody works out the same deal and plays its own hand. Suspects come first, then all others by lot; no two
validators get the same pair as long as there are seats for all, so eight validators look at eight peers. What one of
them finds, the others check (`replay_finding`): a median does not hear what only one of them saw.

A validator replays a fixed share of what a peer does in an epoch on average (`Budget`), so all of them together spend
at most that share of the training, however large the network is.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from iota_p2p_crypto.digest import tagged_digest
from iota_p2p_crypto.identity import PeerId, peer_id_to_bytes
from iota_p2p_protocols.scoring.evidence import JoinedEvidence
from iota_p2p_protocols.scoring.segments import Segment

_TAG = "iota-p2p/replay/2"
_STAGE_BYTES = 2
_FRACTION_BYTES = 8

Pair = tuple[PeerId, int]  # a peer and one of its stages


def work_of_pairs(evidence: JoinedEvidence, costs_ppm: Sequence[int]) -> dict[Pair, int]:
    """Return who worked on which stage, as the evidence shows, and how much: records times the stage's cost."""
    work: dict[Pair, int] = {}
    for one in evidence.records:
        for pair in ((peer_id, stage) for stage, peer_id in enumerate(one.pathway)):
            work[pair] = work.get(pair, 0) + costs_ppm[pair[1]]
    return work


def deal_replays(
    seed: bytes, pairs: Collection[Pair], suspects: Collection[PeerId], validators: Collection[PeerId], seats: int
) -> dict[PeerId, tuple[Pair, ...]]:
    """Return the pairs that each validator is to look at, in order; nobody gets its own.

    Args:
        seed: of the epoch after the one in question.
        pairs: who worked on what.
        suspects: peers that the evidence already speaks against.
        validators: everybody who may be elected.
        seats: how many of them will be: where they are more, several are dealt the same pairs.
    """
    order = sorted(pairs, key=lambda pair: (pair[0] not in suspects, _lot(seed, *pair)))
    table = sorted(validators, key=lambda peer_id: _lot(seed, peer_id, None))
    num_hands = max(1, min(seats, len(table)))
    hands: list[list[Pair]] = [[] for _ in range(num_hands)]
    for number, pair in enumerate(order):
        place = number % num_hands
        if set(table[place::num_hands]) == {pair[0]}:
            place = (place + 1) % num_hands
        hands[place].append(pair)
    return {
        peer_id: tuple(pair for pair in hands[place % num_hands] if pair[0] != peer_id)
        for place, peer_id in enumerate(table)
    }


def draw_segment(seed: bytes, pair: Pair, segments: Sequence[Segment]) -> Segment:
    """Return the segment of a pair's log that is replayed; everybody draws the same."""
    return segments[int(_fraction(seed, pair, "segment") * len(segments))]


@dataclass(slots=True)
class Budget:
    """What a validator may still spend on an epoch, in the unit of the costs."""

    left: float

    def takes(self, seed: bytes, pair: Pair, cost: float) -> bool:
        """Return whether a pair's segment is replayed, and take its cost off.

        One that costs more than is left is taken with the chance that makes up for it: the mean is the budget.
        """
        is_taken = cost <= self.left or _fraction(seed, pair, "budget") * cost < self.left
        self.left = max(0.0, self.left - cost)
        return is_taken


def mean_peer_work(work: Mapping[Pair, int]) -> float:
    """Return what a peer did on average."""
    return sum(work.values()) / max(1, len({peer_id for peer_id, _ in work}))


def _lot(seed: bytes, peer_id: PeerId, stage: int | None) -> bytes:
    """Return a number that orders pairs, or validators."""
    return tagged_digest(_TAG, *_parts(seed, peer_id, stage))


def _fraction(seed: bytes, pair: Pair, what: str) -> float:
    """Return a number in [0, 1) that is uniform over seeds; 53 bits, so that it is the same float everywhere."""
    drawn = tagged_digest(_TAG, *_parts(seed, *pair), what.encode())
    return (int.from_bytes(drawn[:_FRACTION_BYTES], "big") >> 11) / 2**53


def _parts(seed: bytes, peer_id: PeerId, stage: int | None) -> Iterator[bytes]:
    yield seed
    yield peer_id_to_bytes(peer_id)
    if stage is not None:
        yield stage.to_bytes(_STAGE_BYTES, "big")
