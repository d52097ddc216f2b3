"""Messages: strict fields, one run, one moment. The vectors hold most of the refusals."""

from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from iota_p2p_crypto.domains import ABSENCE, Domain
from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.errors import IgnoreError, MalformedError, RejectError
from iota_p2p_protocols.message import (
    DigestField,
    PeerIdField,
    SignedMessage,
    open_gossip,
    open_message,
    seal_message,
)

ME = Identity.from_seed(bytes(32))
RUN = bytes(range(32))
NOW_S = 1_700_000_000


class Note(SignedMessage):
    domain: ClassVar[Domain] = ABSENCE
    max_lifetime_s: ClassVar[int] = 60

    about: PeerIdField
    evidence: tuple[DigestField, ...] = ()


NOTE = Note(run_id=RUN, sequence=1, issued_s=NOW_S, expires_s=NOW_S + 60, about=ME.peer_id, evidence=(bytes(32),))


def test_message__comes_back_as_it_was_sealed() -> None:
    verified = open_message(seal_message(NOTE, ME), Note, run_id=RUN, now_s=NOW_S)
    assert verified.payload == NOTE
    assert verified.signer == ME.peer_id


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("run_id", RUN.hex()),
        ("run_id", RUN + b"\x00"),
        ("sequence", True),
        ("sequence", "1"),
        ("sequence", None),
        ("issued_s", 2**40 + 1),
        ("about", "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"),
        ("about", b"12D3KooW"),
        ("evidence", (bytes(31),)),
        ("evidence", {"0": bytes(32)}),
        ("unknown", 0),
    ],
)
def test_message__is_refused_with_the_name_of_the_field(field: str, value: Any) -> None:
    with pytest.raises(MalformedError, match=f"expected a valid Note: {field}") as caught:
        Note.from_fields(NOTE.to_fields() | {field: value})
    assert caught.value.rule == "message-field"


@pytest.mark.parametrize("fields", [None, 1, "a", b"a", (), ((1, 2),), {}], ids=repr)
def test_message__is_refused_when_it_is_no_map_of_its_fields(fields: Any) -> None:
    with pytest.raises(MalformedError):
        Note.from_fields(fields)


def test_message__cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        NOTE.sequence = 2  # type: ignore[misc]  # that it may not is what is tested


SEALED = seal_message(NOTE, ME)
SOMEBODY = Identity.from_seed(bytes(range(32)))


def test_gossip__opens_for_its_author() -> None:
    assert open_gossip(SEALED, ME.peer_id, Note, run_id=RUN, now_s=NOW_S).payload == NOTE


@pytest.mark.parametrize(("rule", "now_s"), [("expired", NOW_S + 60), ("issued-in-future", NOW_S - 31)])
def test_gossip__is_ignored_when_only_a_clock_is_wrong(rule: str, now_s: float) -> None:
    with pytest.raises(IgnoreError) as caught:
        open_gossip(SEALED, ME.peer_id, Note, run_id=RUN, now_s=now_s)
    assert caught.value.rule == rule


@pytest.mark.parametrize(
    ("rule", "data", "author", "run_id"),
    [
        ("gossip-author", SEALED, SOMEBODY, RUN),
        ("run-id", SEALED, ME, bytes(32)),
        ("lifetime", seal_message(NOTE.model_copy(update={"expires_s": NOW_S + 61}), ME), ME, RUN),
        ("signature", SEALED[:-1] + bytes([SEALED[-1] ^ 1]), ME, RUN),
    ],
)
def test_gossip__is_rejected_when_its_author_breaks_a_rule(
    rule: str, data: bytes, author: Identity, run_id: bytes
) -> None:
    with pytest.raises(RejectError) as caught:
        open_gossip(data, author.peer_id, Note, run_id=run_id, now_s=NOW_S)
    assert caught.value.rule == rule
