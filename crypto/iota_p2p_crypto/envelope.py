"""Signed envelopes: DSSE over exact bytes (spec: protocols/spec/envelope.md).

An envelope is canonical msgpack `{"payload": bytes, "payloadType": str, "signatures": [{"keyid", "sig"}, ...]}`.
What is signed is DSSE's pre-authentication encoding of the payload type and the payload exactly as received; nothing
is ever re-serialised before it is checked. `keyid` is the signer's 38-byte peer id, which contains the public key.

`open_envelope` is the only way to a `Verified` value of what others signed: it raises or returns one, and never a
bool. `sign` returns one of what we sign ourselves.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar, final

from iota_p2p_crypto import canonical
from iota_p2p_crypto.digest import Digest, digest
from iota_p2p_crypto.domains import DOMAIN_BY_PAYLOAD_TYPE, MAX_PAYLOAD_BYTES, Domain
from iota_p2p_crypto.errors import InvalidSignatureError, LocalProtocolError, MalformedError, OversizedError
from iota_p2p_crypto.identity import (
    SIGNATURE_BYTES,
    Identity,
    PeerId,
    peer_id_from_bytes,
    peer_id_to_bytes,
    verify_signature,
)
from iota_p2p_crypto.single_signature import take_single

T = TypeVar("T")

# Type names and length prefixes, and 64 signatures of 38 + 64 bytes and their keys.
MAX_OVERHEAD_BYTES = 8192
MAX_ENVELOPE_BYTES = MAX_PAYLOAD_BYTES + MAX_OVERHEAD_BYTES

_ENVELOPE_KEYS = ("payload", "payloadType", "signatures")
_SIGNATURE_KEYS = ("keyid", "sig")


@final
@dataclass(frozen=True, slots=True, init=False)
class Verified(Generic[T]):
    """A payload whose signatures have been checked, by `open_envelope`, or were made by us, in `sign`.

    There is no constructor, and with it no `dataclasses.replace`; copying and pickling are refused too, because they
    would build a value past the check. Send `envelope_bytes` and open them again.

    Attributes:
        payload: the decoded payload.
        signers: who signed it, in the envelope's order (sorted by id bytes).
        payload_bytes: the exact bytes that were signed.
        envelope_bytes: the exact bytes of the whole envelope, for passing on.
    """

    payload: T
    signers: tuple[PeerId, ...]
    payload_bytes: bytes
    envelope_bytes: bytes

    def __init__(self, *_: object, **__: object) -> None:
        raise LocalProtocolError("a Verified value comes from open_envelope or sign, never from a constructor")

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled."""
        raise LocalProtocolError("a Verified value cannot be copied or pickled: open its envelope_bytes again")

    @property
    def signer(self) -> PeerId:
        """The one signer; raises LocalProtocolError if there are several."""
        if len(self.signers) != 1:
            raise LocalProtocolError(f"expected one signer, got {len(self.signers)}")
        return self.signers[0]

    @property
    def digest(self) -> Digest:
        """SHA-256 of the payload bytes: the name of what was signed, whoever signed it."""
        return digest(self.payload_bytes)


@dataclass(frozen=True, slots=True)
class SignatureEntry:
    """One claimed signature of an unopened envelope."""

    peer_id: PeerId
    signature: bytes


@dataclass(frozen=True, slots=True)
class _Parts:
    """An envelope taken apart; nothing in it has been verified."""

    domain: Domain
    payload: bytes
    signatures: tuple[SignatureEntry, ...]


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """Return DSSE's PAE: the bytes that are signed (DSSE v1 protocol, "Signature Definition")."""
    type_bytes = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(type_bytes), type_bytes, len(payload), payload)


def seal(domain: Domain, payload: canonical.CanonicalValue, signers: Sequence[Identity]) -> bytes:
    """Encode a payload, sign it with every identity, and return the envelope's bytes.

    Raises:
        LocalProtocolError: if the payload or the number of signers breaks the domain's bounds.
    """
    return _assemble(_signed(domain, payload, signers))


def _signed(domain: Domain, payload: canonical.CanonicalValue, signers: Sequence[Identity]) -> _Parts:
    payload_bytes = canonical.encode(payload)
    if len(payload_bytes) > domain.max_payload_bytes:
        raise LocalProtocolError(
            f"expected a {domain.name} payload of at most {domain.max_payload_bytes} bytes, got {len(payload_bytes)}"
        )
    if not 1 <= len(signers) <= domain.max_signatures or len({signer.peer_id for signer in signers}) < len(signers):
        raise LocalProtocolError(
            f"expected 1 to {domain.max_signatures} distinct signers of a {domain.name}, got {len(signers)}"
        )
    message = pre_authentication_encoding(domain.payload_type, payload_bytes)
    entries = [SignatureEntry(signer.peer_id, signer.sign(message)) for signer in signers]
    return _Parts(domain, payload_bytes, tuple(entries))


def sign(domain: Domain, payload: T, fields: canonical.CanonicalValue, signer: Identity) -> Verified[T]:
    """Sign a payload alone and return what opening it gives, without checking the signature we have just made.

    Args:
        domain: what it is signed for.
        payload: what opening the envelope would parse from `fields`.
        fields: its canonical value.
        signer: our identity.

    Raises:
        LocalProtocolError: as `seal`.
    """
    parts = _signed(domain, fields, (signer,))
    return _verified(payload, parts, _assemble(parts))


def merge_signatures(envelopes: Sequence[bytes]) -> bytes:
    """Join the signatures of envelopes over one and the same payload into one envelope.

    The result is assembled, not verified: whoever relies on it opens it.

    Raises:
        RemoteProtocolError: if one is malformed, they differ in type or payload, or have too many signers together.
    """
    parts = [_take_apart(envelope) for envelope in envelopes]
    first = parts[0]
    entries: dict[PeerId, SignatureEntry] = {}
    for part in parts:
        if (part.domain, part.payload) != (first.domain, first.payload):
            raise MalformedError("envelope-merge", "expected signatures over one payload, got different payloads")
        entries.update((entry.peer_id, entry) for entry in part.signatures)
    _check_signature_count(first.domain, len(entries))
    return _assemble(_Parts(first.domain, first.payload, tuple(entries.values())))


def open_envelope(data: bytes, domain: Domain, parse: Callable[[Any], T]) -> Verified[T]:
    """Check an envelope and return its payload.

    Args:
        data: the envelope's bytes as received.
        domain: what it must have been signed for.
        parse: turns the canonical value into the payload type; raises RemoteProtocolError if it does not fit.

    Raises:
        OversizedError: if the envelope, its payload or its list of signatures exceeds the domain's bounds.
        MalformedError: if it is not canonical, or was signed for another domain.
        InvalidSignatureError: if any one of its signatures does not verify.
    """
    parts = _with_one_signature(data, domain) or _take_apart(data)
    if parts.domain != domain:
        raise MalformedError("envelope-domain", f"expected {domain.payload_type}, got {parts.domain.payload_type}")
    message = pre_authentication_encoding(domain.payload_type, parts.payload)
    for entry in parts.signatures:
        verify_signature(entry.peer_id, message, entry.signature)
    payload = parse(canonical.decode(parts.payload, max_bytes=domain.max_payload_bytes))
    return _verified(payload, parts, data)


def _verified(payload: T, parts: _Parts, data: bytes) -> Verified[T]:
    """Build the value `Verified.__init__` refuses to build; called after the last check, or by the signer."""
    verified: Verified[T] = object.__new__(Verified)
    object.__setattr__(verified, "payload", payload)
    object.__setattr__(verified, "signers", tuple(entry.peer_id for entry in parts.signatures))
    object.__setattr__(verified, "payload_bytes", parts.payload)
    object.__setattr__(verified, "envelope_bytes", data)
    return verified


def domain_of(data: bytes) -> Domain:
    """Return the domain an envelope claims, so that a reader can choose how to open it.

    Raises:
        RemoteProtocolError: as `open_envelope`, except that no signature is checked.
    """
    return _take_apart(data).domain


def _with_one_signature(data: bytes, domain: Domain) -> _Parts | None:
    """Return what `_take_apart` would, of what is clearly an envelope of this domain with one signature."""
    single = take_single(data, domain)
    if single is None:
        return None
    entry = SignatureEntry(peer_id_from_bytes(single.keyid), single.signature)
    return _Parts(domain, single.payload, (entry,))


def _take_apart(data: bytes) -> _Parts:
    """Check the form of an envelope: sizes, keys, domain, and a sorted list of distinct signers."""
    value = canonical.decode(data, max_bytes=MAX_ENVELOPE_BYTES)
    if type(value) is not dict or tuple(value) != _ENVELOPE_KEYS:
        raise MalformedError("envelope-form", f"expected a map of {', '.join(_ENVELOPE_KEYS)}, got {value!r:.80}")
    payload, payload_type, signatures = value["payload"], value["payloadType"], value["signatures"]
    if type(payload) is not bytes or type(payload_type) is not str or type(signatures) is not tuple:
        raise MalformedError("envelope-form", "expected bytes, a type and a list of signatures, got other types")
    domain = DOMAIN_BY_PAYLOAD_TYPE.get(payload_type)
    if domain is None:
        raise MalformedError("envelope-type", f"expected a known payload type, got {payload_type!r:.80}")
    if len(payload) > domain.max_payload_bytes:
        raise OversizedError(
            "envelope-payload-size", f"expected at most {domain.max_payload_bytes} bytes, got {len(payload)}"
        )
    _check_signature_count(domain, len(signatures))
    return _Parts(domain, payload, tuple(_signature_entries(signatures)))


def _check_signature_count(domain: Domain, count: int) -> None:
    if not 1 <= count <= domain.max_signatures:
        raise OversizedError("envelope-signatures", f"expected 1 to {domain.max_signatures} signatures, got {count}")


def _signature_entries(signatures: Sequence[Any]) -> list[SignatureEntry]:
    entries = []
    previous = b""
    for item in signatures:
        if type(item) is not dict or tuple(item) != _SIGNATURE_KEYS:
            raise MalformedError("envelope-form", f"expected a signature of keyid and sig, got {item!r:.80}")
        keyid, signature = item["keyid"], item["sig"]
        if type(keyid) is not bytes or type(signature) is not bytes:
            raise MalformedError("envelope-form", "expected keyid and sig as bytes, got other types")
        peer_id = peer_id_from_bytes(keyid)
        if len(signature) != SIGNATURE_BYTES:
            raise MalformedError("envelope-form", f"expected a sig of {SIGNATURE_BYTES} bytes, got {len(signature)}")
        if keyid <= previous:
            raise MalformedError("envelope-signer-order", "expected distinct signers sorted by id, got others")
        previous = keyid
        entries.append(SignatureEntry(peer_id, signature))
    return entries


def _assemble(parts: _Parts) -> bytes:
    """Return the envelope's bytes, with the signatures in the order `_take_apart` demands."""
    entries = sorted((peer_id_to_bytes(entry.peer_id), entry.signature) for entry in parts.signatures)
    return canonical.encode(
        {
            "payload": parts.payload,
            "payloadType": parts.domain.payload_type,
            "signatures": [{"keyid": keyid, "sig": signature} for keyid, signature in entries],
        }
    )


__all__ = [
    "MAX_ENVELOPE_BYTES",
    "InvalidSignatureError",
    "Verified",
    "domain_of",
    "merge_signatures",
    "open_envelope",
    "pre_authentication_encoding",
    "seal",
    "sign",
]
