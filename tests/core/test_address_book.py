"""The address book on real files: a hint that no damage may turn into an obstacle."""

import json
import logging
from pathlib import Path

import pytest

from iota_p2p.address_book import MAX_REMEMBERED, AddressBook
from iota_p2p_crypto.identity import Identity, PeerId
from tests.core.members import PEERS

ONE, TWO = PEERS[0].peer_id, PEERS[1].peer_id


@pytest.fixture
def book(tmp_path: Path) -> AddressBook:
    return AddressBook(tmp_path / "peers.json")


def test_book__is_empty_before_anything_was_saved(book: AddressBook, caplog: pytest.LogCaptureFixture) -> None:
    assert book.load() == {}
    assert not caplog.records


def test_book__comes_back_as_it_was_saved(book: AddressBook) -> None:
    peers = {TWO: ("/ip4/192.0.2.1/tcp/1", "/ip6/2001:db8::1/tcp/1"), ONE: ()}
    book.save(peers)
    assert book.load() == peers
    assert list(book.load()) == [TWO, ONE]
    assert [path.name for path in book.path.parent.iterdir()] == [book.path.name]


def test_save__puts_the_latest_first_and_keeps_the_older(book: AddressBook) -> None:
    book.save({ONE: ("/old",)})
    book.save({TWO: ("/two",)})
    book.save({ONE: ("/new",)})
    assert list(book.load().items()) == [(ONE, ("/new",)), (TWO, ("/two",))]


def test_save__forgets_the_oldest_beyond_its_bound(book: AddressBook) -> None:
    crowd = [Identity.from_seed(number.to_bytes(32, "big")).peer_id for number in range(MAX_REMEMBERED)]
    book.save({PeerId(peer_id): ("/a",) for peer_id in crowd})
    newest = Identity.from_seed(b"\xff" * 32).peer_id
    book.save({newest: ("/b",)})
    assert list(book.load()) == [newest, *crowd[:-1]]


GOOD = json.dumps({"version": 1, "peers": {ONE: ["/a"]}})


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        GOOD.encode()[:-1],
        b"\x00\xff garbage",
        b"[]",
        GOOD.replace(ONE, "somebody").encode(),
        GOOD.replace('"version": 1', '"version": 2').encode(),
        GOOD.replace('["/a"]', '"/a"').encode(),
        GOOD.replace('"version"', '"extra": 1, "version"').encode(),
    ],
)
def test_damaged_book__is_reported_and_started_anew(
    book: AddressBook, caplog: pytest.LogCaptureFixture, damaged: bytes
) -> None:
    book.path.write_bytes(damaged)
    assert book.load() == {}
    assert [(record.levelno, book.path.name in record.message) for record in caplog.records] == [
        (logging.WARNING, True)
    ]
    book.save({TWO: ("/b",)})
    assert book.load() == {TWO: ("/b",)}


def test_book_that_is_a_folder__is_no_obstacle_to_a_start(book: AddressBook) -> None:
    book.path.mkdir()
    assert book.load() == {}


def test_failed_save__leaves_the_old_book(book: AddressBook) -> None:
    book.save({ONE: ("/a",)})
    book.path.with_suffix(".new").mkdir()  # what the new book would be written to
    with pytest.raises(OSError, match=r"\.new"):
        book.save({TWO: ("/b",)})
    assert book.load() == {ONE: ("/a",)}


def test_interrupted_save__leaves_the_old_book(book: AddressBook) -> None:
    book.save({ONE: ("/a",)})
    book.path.with_suffix(".new").write_text(GOOD[:10])  # as a kill in mid-write leaves it
    assert book.load() == {ONE: ("/a",)}
    book.save({TWO: ("/b",)})
    assert list(book.load()) == [TWO, ONE]
