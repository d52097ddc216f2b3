"""Synchronisation: from which weights each peer worked, by what it signed itself when its stage merged.

A contribution names the weights that its maker began the epoch with. Those that more than half of the stage's workers
name are the stage's; whoever names the ones of an epoch before is so many outer steps behind, and whoever names others
works on a model of its own. Only workers in evidence have a say, so that keys without work cannot outvote them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.butterfly.contribution import Contribution
from iota_p2p_protocols.scoring.evidence import JoinedEvidence
from iota_p2p_protocols.scoring.fast_checks import MAX_BEHIND, PPM, steps_behind, synchronisation_ppm

_Bases = dict[int, dict[PeerId, bytes]]  # by epoch and maker, of one stage


def synchronisation_of(
    contributions: Iterable[Verified[Contribution]], evidence: JoinedEvidence, epoch: int
) -> Mapping[PeerId, int]:
    """Return the component of every worker that contributed, in ppm: of several stages the lowest.

    Without a majority in its stage nobody is blamed, and whoever did not contribute said nothing.
    """
    workers: dict[int, set[PeerId]] = {}
    for one in evidence.records:
        for stage, peer_id in enumerate(one.pathway):
            workers.setdefault(stage, set()).add(peer_id)
    bases: dict[int, _Bases] = {}
    for contribution in contributions:
        said, signer = contribution.payload, contribution.signer
        if signer in workers.get(said.stage, ()) and epoch - MAX_BEHIND < said.epoch <= epoch:
            bases.setdefault(said.stage, {}).setdefault(said.epoch, {}).setdefault(signer, said.base_digest)
    found: dict[PeerId, int] = {}
    for of_stage in bases.values():
        recent = [_majority(of_stage.get(epoch - back, {})) for back in range(MAX_BEHIND)]
        for peer_id, base in of_stage.get(epoch, {}).items() if recent[0] else ():
            value = synchronisation_ppm(steps_behind(base, recent))
            found[peer_id] = min(value, found.get(peer_id, PPM))
    return found


def _majority(bases: Mapping[PeerId, bytes]) -> bytes:
    """Return what over half of them name; b"", which is no digest, if there is nothing such."""
    base, count = max(Counter(bases.values()).items(), key=lambda item: item[1], default=(b"", 0))
    return base if 2 * count > len(bases) else b""
