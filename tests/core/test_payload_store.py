"""Payloads are kept for two epochs after the last one that used them, within a bound."""

from iota_p2p.training.payload_store import PayloadStore
from iota_p2p_crypto.digest import digest


def test_payload__kept_for_two_epochs() -> None:
    store = PayloadStore()
    name = store.add(3, b"abc")
    store.forget_before(3)
    assert store.get(name) == b"abc"
    store.forget_before(4)
    assert store.get(name) is None
    assert store.stored_bytes == 0


def test_payload__kept_for_longer_when_a_later_epoch_names_it() -> None:
    store = PayloadStore()
    name, other = store.add(3, b"abc"), store.add(3, b"def")
    store.keep(4, name)
    store.keep(4, digest(b"never seen"))
    store.add(4, b"def")
    store.forget_before(4)
    assert (store.get(name), store.get(other)) == (b"abc", b"def")
    store.keep(2, name)
    store.forget_before(4)
    assert store.get(name) == b"abc"


def test_store__drops_the_oldest_beyond_its_bound() -> None:
    store = PayloadStore(limit_bytes=10)
    names = [store.add(0, bytes([i]) * 4) for i in range(3)]
    assert [store.get(name) is not None for name in names] == [False, True, True]
    assert store.stored_bytes == 8
    store.add(0, bytes([2]) * 4)
    assert store.stored_bytes == 8
    store.add(0, bytes(11))
    assert store.stored_bytes == 0
