"""Archives: whatever the auditor points at, its facts are found once each, or the path is named."""

from pathlib import Path

import pytest

from iota_p2p.audit.archive import read_archive
from iota_p2p.audit.bundle import write_bundle
from iota_p2p.ledger.ledger import FILE_NAME, Fact, open_ledger
from iota_p2p_crypto.domains import SCORE
from iota_p2p_crypto.envelope import seal
from iota_p2p_crypto.errors import UserError
from iota_p2p_crypto.identity import Identity

SIGNER = Identity.from_seed(bytes(32))
FACTS = [Fact("score", epoch, SIGNER.peer_id, bytes([epoch]) * 40) for epoch in range(3)]


def home(folder: Path, *facts: Fact) -> Path:
    folder.mkdir(parents=True)
    with open_ledger(folder / FILE_NAME) as ledger:
        ledger.add(facts)
        ledger.sign_once("score", 9, lambda: b"own")
    return folder


def test_archive__joins_homes_bundles_and_envelopes(tmp_path: Path) -> None:
    home(tmp_path / "net" / "peers" / "a", *FACTS[:2])
    home(tmp_path / "net" / "peers" / "b", *FACTS[1:])
    write_bundle(tmp_path / "bundle", FACTS)
    envelope = seal(SCORE, {"anything": 1}, [SIGNER])
    (tmp_path / "one.env").write_bytes(envelope)
    archive = read_archive([tmp_path / "net", tmp_path / "bundle", tmp_path / "one.env"])
    assert {fact.envelope for fact in archive.of("score")} == {*(fact.envelope for fact in FACTS), b"own", envelope}
    assert len(list(archive.all())) == 5
    assert len(archive.sources) == 4


def test_archive__names_a_path_that_holds_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="found none"):
        read_archive([tmp_path])
    with pytest.raises(UserError, match="found nothing"):
        read_archive([tmp_path / "missing"])
