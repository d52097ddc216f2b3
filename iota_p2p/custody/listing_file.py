"""A listing as a file: SHA-256 of everything that follows || length of the manifest, 4 bytes || manifest || digests."""

import os
from pathlib import Path

from iota_p2p_crypto.digest import DIGEST_BYTES, digest
from iota_p2p_crypto.errors import MalformedError, RemoteProtocolError
from iota_p2p_protocols.message import open_signed
from iota_p2p_protocols.state_manifest import Listing, StateManifest, listing_of

_LENGTH_BYTES = 4
_START = DIGEST_BYTES + _LENGTH_BYTES


def write_listing(path: Path, listing: Listing) -> None:
    """Replace a file by a listing, whole or not at all; raises OSError if the disk does not take it."""
    envelope = listing.manifest.envelope_bytes
    body = len(envelope).to_bytes(_LENGTH_BYTES, "big") + envelope + listing.packed_digests
    scratch = path.with_suffix(f".{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_bytes(digest(body) + body)
        scratch.replace(path)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise


def read_listing(path: Path, run_id: bytes) -> Listing | None:
    """Return a file's listing, or None if there is none that is good; a bad file is set aside, the last of its name.

    Its times were checked when it came.
    """
    try:
        data = path.read_bytes()
    except OSError:
        return None
    try:
        return _parse(data, run_id)
    except RemoteProtocolError:
        path.replace(path.with_suffix(".damaged"))
        return None


def _parse(data: bytes, run_id: bytes) -> Listing:
    if digest(memoryview(data)[DIGEST_BYTES:]) != data[:DIGEST_BYTES]:
        raise MalformedError("listing-file", "expected the digest of what was saved, got other bytes")
    end = _START + int.from_bytes(data[DIGEST_BYTES:_START], "big")
    manifest = open_signed(data[_START:end], StateManifest)
    if manifest.payload.run_id != run_id:
        raise MalformedError("listing-run", "expected a listing of our run, got another's")
    return listing_of(manifest, data[end:])
