import json
from hashlib import sha512
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import (
    crypto_core_ed25519_add,
    crypto_core_ed25519_is_valid_point,
    crypto_core_ed25519_scalar_reduce,
    crypto_scalarmult_ed25519_base_noclamp,
    crypto_scalarmult_ed25519_noclamp,
)

from iota_p2p_crypto import vrf
from iota_p2p_crypto.edwards25519 import FIELD_PRIME, GROUP_ORDER, clear_cofactor, decode_point, encode_point
from iota_p2p_crypto.errors import InvalidProofError, MalformedError
from iota_p2p_crypto.identity import Identity, peer_id_of

VECTORS = Path(__file__).parents[2] / "protocols/vectors/vrf/rfc9381_b3.json"
CASES: list[dict[str, Any]] = json.loads(VECTORS.read_text())["cases"]
ME = Identity.from_seed(bytes(range(32)))
OTHER = Identity.from_seed(bytes(range(1, 33)))
ALPHA = b"epoch seed"
PROOF = vrf.prove(ME, ALPHA)
# Encodings of points of order 1, 2, 4 and 8 (RFC 9381 section 5.6.1 lists the ones a key may not be).
LOW_ORDER = [
    (1).to_bytes(32, "little"),
    (FIELD_PRIME - 1).to_bytes(32, "little"),
    bytes(32),
    (1 << 255).to_bytes(32, "little"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
]


def each_case(*fields: str) -> pytest.MarkDecorator:
    rows = [[case["counter"] if f == "counter" else bytes.fromhex(case[f]) for f in fields] for case in CASES]
    return pytest.mark.parametrize(",".join(fields), rows, ids=[case["name"] for case in CASES])


@each_case("seed", "public_key", "alpha", "proof", "output")
def test_rfc_vector__agrees(seed: bytes, public_key: bytes, alpha: bytes, proof: bytes, output: bytes) -> None:
    identity = Identity.from_seed(seed)
    assert identity.public_key == public_key
    assert vrf.prove(identity, alpha) == proof
    assert vrf.verify(identity.peer_id, alpha, proof) == output
    assert vrf.output_of(proof) == output


@each_case("seed", "x", "h", "k_string", "k", "u", "v")
def test_rfc_vector__agrees_with_itself(
    *, seed: bytes, x: bytes, h: bytes, k_string: bytes, k: bytes, u: bytes, v: bytes
) -> None:
    hashed = sha512(seed).digest()
    assert vrf._clamped(hashed[:32]) == x
    assert sha512(hashed[32:] + h).digest() == k_string
    assert crypto_core_ed25519_scalar_reduce(k_string) == k
    assert crypto_scalarmult_ed25519_base_noclamp(k) == u
    assert crypto_scalarmult_ed25519_noclamp(k, h) == v


@each_case("public_key", "alpha", "counter", "h")
def test_rfc_vector__finds_its_point_on_the_stated_try(public_key: bytes, alpha: bytes, counter: int, h: bytes) -> None:
    assert vrf._encode_to_curve(public_key, alpha) == h
    hits = [
        decode_point(sha512(b"\x03\x01" + public_key + alpha + bytes((i, 0))).digest()[:32]) for i in range(counter + 1)
    ]
    assert [hit is not None for hit in hits] == [False] * counter + [True]
    assert hits[-1] is not None
    assert encode_point(clear_cofactor(hits[-1])) == h


@each_case("public_key", "h", "u", "v", "proof")
def test_rfc_vector__challenge_covers_key_and_points(
    public_key: bytes, h: bytes, u: bytes, v: bytes, proof: bytes
) -> None:
    assert vrf._challenge(public_key, h, proof[:32], u, v) == proof[32:48]


@given(seed=st.binary(min_size=32, max_size=32), alpha=st.binary(max_size=200))
def test_verify__returns_the_provers_output(seed: bytes, alpha: bytes) -> None:
    identity = Identity.from_seed(seed)
    proof = vrf.prove(identity, alpha)
    assert proof == vrf.prove(identity, alpha)
    assert vrf.verify(identity.peer_id, alpha, proof) == vrf.output_of(proof)


@given(bit=st.integers(0, vrf.PROOF_BYTES * 8 - 1))
def test_verify__refuses_any_flipped_bit(bit: int) -> None:
    flipped = (int.from_bytes(PROOF, "little") ^ 1 << bit).to_bytes(vrf.PROOF_BYTES, "little")
    with pytest.raises((InvalidProofError, MalformedError)):
        vrf.verify(ME.peer_id, ALPHA, flipped)


@given(proof=st.binary(max_size=2 * vrf.PROOF_BYTES) | st.binary(min_size=80, max_size=80))
def test_verify__refuses_any_other_bytes(proof: bytes) -> None:
    with pytest.raises((InvalidProofError, MalformedError)):
        vrf.verify(ME.peer_id, ALPHA, proof)


@given(alpha=st.binary(max_size=40).filter(lambda alpha: alpha != ALPHA))
def test_verify__refuses_another_input(alpha: bytes) -> None:
    with pytest.raises(InvalidProofError) as caught:
        vrf.verify(ME.peer_id, alpha, PROOF)
    assert caught.value.rule == "vrf-challenge"


def test_verify__refuses_another_key() -> None:
    with pytest.raises(InvalidProofError) as caught:
        vrf.verify(OTHER.peer_id, ALPHA, PROOF)
    assert caught.value.rule == "vrf-challenge"


def test_verify__refuses_a_response_that_is_not_reduced() -> None:
    response = int.from_bytes(PROOF[48:], "little") + GROUP_ORDER  # the same scalar in a second encoding
    with pytest.raises(MalformedError) as caught:
        vrf.verify(ME.peer_id, ALPHA, PROOF[:48] + response.to_bytes(32, "little"))
    assert caught.value.rule == "vrf-response"


@pytest.mark.parametrize("start", [32, 48], ids=["challenge", "response"])
def test_verify__refuses_a_zero_scalar(start: int) -> None:
    end = {32: 48, 48: 80}[start]
    with pytest.raises(InvalidProofError) as caught:
        vrf.verify(ME.peer_id, ALPHA, PROOF[:start] + bytes(end - start) + PROOF[end:])
    assert caught.value.rule == "vrf-challenge"


@pytest.mark.parametrize(
    "gamma",
    [
        *LOW_ORDER,
        (FIELD_PRIME + 1).to_bytes(32, "little"),  # the identity again, not canonical
        (2).to_bytes(32, "little"),  # no point at all
        crypto_core_ed25519_add(PROOF[:32], LOW_ORDER[1]),  # right but for torsion
    ],
    ids=lambda gamma: gamma.hex()[:8],
)
def test_decoding__refuses_gamma_outside_the_prime_group(gamma: bytes) -> None:
    for call in (vrf.output_of, lambda proof: vrf.verify(ME.peer_id, ALPHA, proof)):
        with pytest.raises(MalformedError) as caught:
            call(gamma + PROOF[32:])
        assert caught.value.rule == "vrf-gamma"


@pytest.mark.parametrize("key", [*LOW_ORDER, (2).to_bytes(32, "little")], ids=lambda key: key.hex()[:8])
def test_verify__refuses_a_low_order_key(key: bytes) -> None:
    with pytest.raises(MalformedError) as caught:
        vrf.verify(peer_id_of(key), ALPHA, PROOF)
    assert caught.value.rule == "vrf-public-key"


def test_verify__refuses_what_is_no_peer_id() -> None:
    with pytest.raises(MalformedError) as caught:
        vrf.verify(peer_id_of(b"short"), ALPHA, PROOF)
    assert caught.value.rule == "peer-id"


@pytest.mark.parametrize("encoding", LOW_ORDER, ids=lambda encoding: encoding.hex()[:8])
def test_clear_cofactor__gives_the_identity_for_low_order(encoding: bytes) -> None:
    point = decode_point(encoding)
    assert point is not None
    assert clear_cofactor(point) == (0, 1)


@given(encoding=st.binary(min_size=32, max_size=32))
def test_decode_point__inverts_encode_and_agrees_with_libsodium(encoding: bytes) -> None:
    point = decode_point(encoding)
    if point is None:
        assert not crypto_core_ed25519_is_valid_point(encoding)
    else:
        cleared = clear_cofactor(point)
        assert encode_point(point) == encoding
        assert cleared == (0, 1) or crypto_core_ed25519_is_valid_point(encode_point(cleared))


@given(scalar=st.integers(1, GROUP_ORDER - 1))
def test_clear_cofactor__is_eight_times_the_point(scalar: int) -> None:
    encoding = crypto_scalarmult_ed25519_base_noclamp(scalar.to_bytes(32, "little"))
    point = decode_point(encoding)
    assert point is not None
    eight = crypto_scalarmult_ed25519_noclamp((8).to_bytes(32, "little"), encoding)
    assert encode_point(clear_cofactor(point)) == eight


@pytest.mark.parametrize(
    "encoding",
    [b"", bytes(31), bytes(33), FIELD_PRIME.to_bytes(32, "little"), (1 | 1 << 255).to_bytes(32, "little")],
    ids=["empty", "short", "long", "y = p", "minus zero"],
)
def test_decode_point__refuses_other_encodings(encoding: bytes) -> None:
    assert decode_point(encoding) is None
