"""Adverts: bounded, ordered, dying by themselves; the vectors hold the refusals of whole envelopes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota_p2p_crypto import canonical
from iota_p2p_crypto.domains import ADVERT
from iota_p2p_protocols.advert import (
    LIFETIME_S,
    MAX_ADDRESS_CHARS,
    MAX_ADDRESSES,
    MAX_STAGES,
    REFRESH_S,
    Advert,
    StageOffer,
)
from iota_p2p_protocols.errors import MalformedError, RemoteProtocolError
from iota_p2p_protocols.ids import ADVERTS
from iota_p2p_protocols.message import UINT63_MAX, open_message, open_signed, seal_message
from tests.core.members import NOW_S, PEERS, RUN, advert_of, opened_advert

FIELDS: dict[str, Any] = opened_advert(PEERS[0]).payload.model_dump()


def offers(*indices: int) -> tuple[dict[str, Any], ...]:
    return tuple(StageOffer(stage=index, tokens_per_s=1).model_dump() for index in indices)


def test_advert__comes_back_as_it_was_sealed() -> None:
    data = advert_of(PEERS[0], 7, stages=(StageOffer(stage=1, tokens_per_s=900),), relay=True)
    verified = open_message(data, Advert, run_id=RUN, now_s=NOW_S)
    assert verified.signer == PEERS[0].peer_id
    assert verified.payload.stages == (StageOffer(stage=1, tokens_per_s=900),)
    assert verified.payload.relay


def test_largest_advert__fits_its_domain_and_topic() -> None:
    stages = tuple(StageOffer(stage=index, tokens_per_s=UINT63_MAX) for index in range(MAX_STAGES))
    data = advert_of(
        PEERS[0],
        UINT63_MAX,
        addresses=("/" * MAX_ADDRESS_CHARS,) * MAX_ADDRESSES,
        stages=stages,
        software="s" * 64,
    )
    assert len(open_signed(data, Advert).payload_bytes) <= ADVERT.max_payload_bytes
    assert len(data) <= ADVERTS.max_bytes


def test_refresh__comes_twice_in_a_lifetime() -> None:
    assert 2 * REFRESH_S <= LIFETIME_S


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("addresses", ("/a",) * (MAX_ADDRESSES + 1)),
        ("addresses", ("",)),
        ("addresses", ("a" * (MAX_ADDRESS_CHARS + 1),)),
        ("reachability", "everywhere"),
        ("relay", 1),
        ("oldest_version", 0),
        ("newest_version", 2**16 + 1),
        ("software", "s" * 65),
        ("capacity", {**FIELDS["capacity"], "load_percent": 101}),
        ("capacity", {**FIELDS["capacity"], "memory_bytes": -1}),
        ("capacity", {**FIELDS["capacity"], "tokens_per_s": 2**63}),
        ("capacity", {**FIELDS["capacity"], "cores": 8}),
        ("stages", offers(*range(MAX_STAGES - 1), MAX_STAGES - 2)),
        ("stages", ({**offers(0)[0], "stage": MAX_STAGES},)),
        ("stages", ({**offers(0)[0], "tokens_per_s": -1},)),
        ("leaving", None),
        ("expires", 0),
    ],
)
def test_from_fields__refuses_what_is_out_of_range(field: str, value: Any) -> None:
    with pytest.raises(MalformedError) as caught:
        Advert.from_fields({**FIELDS, field: value})
    assert caught.value.rule == "message-field"


@pytest.mark.parametrize("indices", [(1, 0), (0, 0), (0, 2, 1)])
def test_from_fields__refuses_stages_that_are_not_distinct_and_ascending(indices: tuple[int, ...]) -> None:
    with pytest.raises(MalformedError, match="distinct and ascending"):
        Advert.from_fields({**FIELDS, "stages": offers(*indices)})


def test_from_fields__refuses_an_oldest_version_over_the_newest() -> None:
    with pytest.raises(MalformedError, match="oldest_version"):
        Advert.from_fields({**FIELDS, "oldest_version": 2})


@pytest.mark.parametrize(("life_s", "accepted"), [(LIFETIME_S, True), (LIFETIME_S + 1, False), (0, False)])
def test_lifetime__is_bounded(life_s: int, accepted: Any) -> None:
    data = advert_of(PEERS[0], expires_s=NOW_S + life_s)
    if accepted:
        assert open_message(data, Advert, run_id=RUN, now_s=NOW_S).payload.expires_s == NOW_S + life_s
    else:
        with pytest.raises(MalformedError) as caught:
            open_message(data, Advert, run_id=RUN, now_s=NOW_S)
        assert caught.value.rule == "lifetime"


@given(st.binary(max_size=400))
def test_any_bytes__are_refused_by_a_named_rule(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        open_signed(data, Advert)


@given(st.recursive(st.none() | st.integers(-1, 2**63) | st.text(max_size=8) | st.binary(max_size=8), st.tuples))
def test_any_field__is_taken_or_refused_by_name(value: Any) -> None:
    for field in FIELDS:
        try:
            advert = Advert.from_fields({**FIELDS, field: value})
        except RemoteProtocolError:
            continue
        data = canonical.encode(advert.to_fields())
        assert Advert.from_fields(canonical.decode(data)) == advert
        assert open_signed(seal_message(advert, PEERS[0]), Advert).payload == advert
