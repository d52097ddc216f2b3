"""What is to be audited: the facts of home folders, bundles and single envelopes, joined and still unverified."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from iota_p2p.audit.bundle import is_bundle, salvage_bundle
from iota_p2p.audit.failure import Check, Failure
from iota_p2p.ledger.ledger import FILE_NAME, Fact, open_ledger
from iota_p2p_crypto.envelope import MAX_ENVELOPE_BYTES, domain_of
from iota_p2p_crypto.errors import OversizedError, UserError
from iota_p2p_crypto.identity import PeerId

# A testnet's folder holds one home per peer, two levels down; deeper there are only states and shards.
_HOME_PATTERNS = (FILE_NAME, f"*/{FILE_NAME}", f"*/*/{FILE_NAME}")


@dataclass(slots=True)
class Archive:
    """Facts by kind, each once, and where each was found.

    Attributes:
        facts: by kind, in the order found.
        sources: what was read, for people.
        damage: bundles that were cut off or changed; what of them could be read is among the facts.
    """

    facts: dict[str, list[Fact]] = field(default_factory=lambda: defaultdict(list))
    sources: list[str] = field(default_factory=list)
    damage: list[Failure] = field(default_factory=list)
    _seen: set[bytes] = field(default_factory=set)

    def of(self, kind: str) -> Sequence[Fact]:
        """Return the facts of one kind."""
        return self.facts.get(kind, [])

    def all(self) -> Iterable[Fact]:
        """Return every fact."""
        return (fact for facts in self.facts.values() for fact in facts)

    def add(self, facts: Iterable[Fact], source: Path) -> None:
        """Take what is new."""
        self.sources.append(str(source))
        for fact in facts:
            if fact.envelope not in self._seen:
                self._seen.add(fact.envelope)
                self.facts[fact.kind].append(fact)


def read_archive(paths: Sequence[Path]) -> Archive:
    """Return what lies under some paths: home folders, folders of homes, bundles, files of one envelope.

    Raises:
        UserError: if a path is missing or holds none of these.
        LedgerError: if a ledger is.
    """
    archive = Archive()
    for path in paths:
        if path.is_dir():
            _add_homes(archive, path)
        elif not path.is_file():
            raise UserError(f"expected a home folder, a bundle or an envelope, found nothing at {path}")
        elif is_bundle(path):
            _add_bundle(archive, path)
        else:
            archive.add([_envelope_in(path)], path)
    return archive


def _add_bundle(archive: Archive, path: Path) -> None:
    facts, damage = salvage_bundle(path)
    archive.add(facts, path)
    if damage is not None:
        archive.damage.append(Failure(Check.FORM, f"bundle {path}", damage.rule, str(damage)))


def _add_homes(archive: Archive, folder: Path) -> None:
    ledgers = sorted(found for pattern in _HOME_PATTERNS for found in folder.glob(pattern))
    if not ledgers:
        raise UserError(f"expected a {FILE_NAME} in {folder}, found none: is it the --home of a peer or a testnet?")
    for file in ledgers:
        with open_ledger(file, read_only=True) as ledger:
            archive.add(ledger.all_facts(), file)


def _envelope_in(path: Path) -> Fact:
    with path.open("rb") as file:
        data = file.read(MAX_ENVELOPE_BYTES + 1)
    if len(data) > MAX_ENVELOPE_BYTES:
        raise OversizedError("envelope-size", f"expected at most {MAX_ENVELOPE_BYTES} bytes in {path}, got more")
    # Its own words tell epoch and signer; whoever verifies it reads them there.
    return Fact(domain_of(data).name, 0, PeerId(""), data)
