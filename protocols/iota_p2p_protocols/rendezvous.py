"""Under which key peers find each other in the DHT."""

from hashlib import sha256

from iota_p2p_crypto import canonical

_PREFIX = b"iota-p2p rendezvous v1\0"


def key(run_id: bytes, purpose: str, epoch: int) -> bytes:
    """Return the 32-byte key under which all who serve a purpose in an epoch of a run provide.

    The epoch is part of it, so that what peers announced for earlier ones is never found again.
    """
    return sha256(_PREFIX + canonical.encode((run_id, purpose, epoch))).digest()
