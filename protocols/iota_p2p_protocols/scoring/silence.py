"""Silence: which validators of an epoch said nothing, as far as that can be known.

Nobody can prove that a peer was elected but the peer itself: its proof is in the record that it does not show. Where a
run wants no fewer validators than there are candidates, though, everybody is elected, whatever its output. Then its own
registration and a certified result, by which a quorum swears to the records that there were, name whoever has none.
A silence takes no score away: dying, or being late, looks the same. It costs the part in the result, and is seen.
"""

from collections.abc import Collection

from iota_p2p_crypto.identity import PeerId, peer_id_to_bytes
from iota_p2p_protocols.scoring.election import Electorate


def surely_elected(voters: Electorate) -> frozenset[PeerId]:
    """Return the candidates that are elected in the first round whatever they draw: with at least a whole seat."""
    return frozenset(one for one, weight in voters.weights.items() if weight * voters.seats >= voters.total)


def silent_validators(voters: Electorate, signers: Collection[PeerId]) -> tuple[PeerId, ...]:
    """Return who was surely elected and is none of the signers of the epoch's records, ascending by id bytes."""
    return tuple(sorted(surely_elected(voters).difference(signers), key=peer_id_to_bytes))
