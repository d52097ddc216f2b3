"""Envelopes with one signature, as nearly all are: taken apart by where their bytes lie, without decoding.

Their bytes are the same but for payload, signer and signature:

    83 a7 payload  | c4, c5 or c6, length | payload | ab payloadType, the type, aa signatures 91 82 a5 keyid c4 26
    | 38 bytes | a3 sig c4 40 | 64 bytes

What fits is byte for byte what the encoder makes of these parts, and so in canonical form. What does not is for the
decoder to judge, which names what is wrong with it.
"""

from functools import lru_cache
from typing import NamedTuple

from iota_p2p_crypto import canonical
from iota_p2p_crypto.domains import Domain

_HEAD = b"\x83\xa7payload"
_KEYID_BYTES, _SIGNATURE_BYTES = 38, 64
_MARK = b"\xa3sig\xc4\x40"
_TAIL_BYTES = _KEYID_BYTES + len(_MARK) + _SIGNATURE_BYTES
_HEADER_BYTES = {0xC4: 2, 0xC5: 3, 0xC6: 5}  # by the first byte of a msgpack byte string


class Single(NamedTuple):
    """The parts of an envelope with one signature; nothing in it has been verified."""

    payload: bytes
    keyid: bytes
    signature: bytes


def take_single(data: bytes, domain: Domain) -> Single | None:
    """Return the parts of an envelope of a domain, or None if these bytes are none with one signature."""
    middle = _middle(domain.payload_type)
    header_bytes = _HEADER_BYTES.get(data[len(_HEAD)], 0) if len(data) > len(_HEAD) else 0
    start = len(_HEAD) + header_bytes
    end = len(data) - len(middle) - _TAIL_BYTES
    if not header_bytes or not 0 <= end - start <= domain.max_payload_bytes:
        return None
    keyid_at = end + len(middle)
    mark_at = keyid_at + _KEYID_BYTES
    fits = data[:start] == _HEAD + _header(end - start) and data[end:keyid_at] == middle
    if not fits or data[mark_at : mark_at + len(_MARK)] != _MARK:
        return None
    return Single(data[start:end], data[keyid_at:mark_at], data[-_SIGNATURE_BYTES:])


def _header(length: int) -> bytes:
    """Return the shortest msgpack header of a byte string."""
    if length < 1 << 8:
        return b"\xc4" + length.to_bytes(1, "big")
    if length < 1 << 16:
        return b"\xc5" + length.to_bytes(2, "big")
    return b"\xc6" + length.to_bytes(4, "big")


@lru_cache(64)  # more than there are domains
def _middle(payload_type: str) -> bytes:
    """Return what lies between payload and key id: what the encoder puts there."""
    signature = {"keyid": bytes(_KEYID_BYTES), "sig": bytes(_SIGNATURE_BYTES)}
    sample = canonical.encode({"payload": b"", "payloadType": payload_type, "signatures": [signature]})
    return sample[len(_HEAD) + len(_header(0)) : -_TAIL_BYTES]
