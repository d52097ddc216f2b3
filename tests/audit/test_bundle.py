"""Bundles: what went in comes out, and a bundle that was changed or cut off says so."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p.audit.bundle import is_bundle, read_bundle, write_bundle
from iota_p2p.ledger.ledger import Fact
from iota_p2p_crypto.errors import RemoteProtocolError, UserError
from iota_p2p_crypto.identity import Identity

SIGNER = Identity.from_seed(bytes(32)).peer_id
FACTS = [Fact("score", epoch, SIGNER, bytes([epoch]) * 40) for epoch in range(3)]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "good"
    assert write_bundle(path, FACTS) == 3
    return path


def test_bundle__gives_back_its_facts(good: Path) -> None:
    assert read_bundle(good) == FACTS
    assert is_bundle(good)


def test_bundle__is_the_same_file_for_the_same_facts(good: Path, tmp_path: Path) -> None:
    write_bundle(tmp_path / "other", [*reversed(FACTS), FACTS[0]])
    assert (tmp_path / "other").read_bytes() == good.read_bytes()
    assert [item.name for item in tmp_path.iterdir()] == ["other"]


def test_bundle__reject_when_cut_off_anywhere(good: Path, tmp_path: Path) -> None:
    data = good.read_bytes()
    for length in range(len(data)):
        (tmp_path / "cut").write_bytes(data[:length])
        with pytest.raises(RemoteProtocolError):
            read_bundle(tmp_path / "cut")


@given(position=st.integers(0, 10_000), change=st.integers(1, 255))
def test_bundle__reject_any_changed_byte(good: Path, position: int, change: int) -> None:
    data = bytearray(good.read_bytes())
    data[position % len(data)] ^= change
    bad = good.with_name("bad")
    bad.write_bytes(data)
    with pytest.raises(RemoteProtocolError):
        read_bundle(bad)


def test_bundle__reject_bytes_after_the_end(good: Path, tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(good.read_bytes() + b"!")
    with pytest.raises(RemoteProtocolError, match="nothing after"):
        read_bundle(tmp_path / "long")


def test_bundle__tells_the_user_when_it_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        read_bundle(tmp_path / "missing")
    with pytest.raises(UserError, match="cannot write"):
        write_bundle(tmp_path / "missing" / "file", FACTS)
