"""`audit diff`: where two archives of one run disagree, and what only one of them has."""

from collections.abc import Mapping
from dataclasses import dataclass

from iota_p2p.audit.dossier import Dossier
from iota_p2p.audit.failure import Check, Failure
from iota_p2p_crypto.identity import PeerId

_Key = tuple[str, PeerId, int]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came out.

    Attributes:
        num_common: statements that both have, alike.
        only_first, only_second: statements that one lacks, for people; a gap is no contradiction.
        failures: statements about one thing that differ.
    """

    num_common: int
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    failures: tuple[Failure, ...]


def compare_archives(first: Dossier, second: Dossier) -> Comparison:
    """Compare what validators said in each epoch, and the results."""
    ours, theirs = _statements(first), _statements(second)
    common = ours.keys() & theirs.keys()
    failures = [
        Failure(
            Check.DIFFERENT, _name(key), "audit-diff", f"expected {ours[key].hex()[:16]} in both, got another", key[1]
        )
        for key in sorted(common)
        if ours[key] != theirs[key]
    ]
    return Comparison(
        len(common) - len(failures),
        tuple(map(_name, sorted(ours.keys() - common))),
        tuple(map(_name, sorted(theirs.keys() - common))),
        tuple(failures),
    )


def _statements(dossier: Dossier) -> Mapping[_Key, bytes]:
    records = {
        ("score record", signer, record.payload.epoch): record.digest
        for signer, all_of_it in dossier.records.items()
        for record in all_of_it
    }
    results = {
        ("result", PeerId(""), epoch): results[0].digest for epoch, results in dossier.results.items() if results
    }
    return {**records, **results}


def _name(key: _Key) -> str:
    kind, signer, epoch = key
    return f"{kind} of epoch {epoch}" + (f" by {signer}" if signer else "")
