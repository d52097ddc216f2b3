"""Tree heads: what a log claims to hold at one moment, signed by the log's owner.

A log is named by its run and its owner: one key in two runs keeps two logs, and heads of different logs never
contradict each other. Cosigners may add signatures to a head, but only the owner's makes it one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from iota_p2p_crypto.canonical import CanonicalValue
from iota_p2p_crypto.digest import DIGEST_BYTES
from iota_p2p_crypto.domains import TREE_HEAD
from iota_p2p_crypto.envelope import Verified, open_envelope, seal
from iota_p2p_crypto.errors import InvalidSignatureError, LocalProtocolError, MalformedError, WrongRunError
from iota_p2p_crypto.identity import Identity, PeerId, peer_id_from_bytes, peer_id_to_bytes
from iota_p2p_crypto.merkle import EMPTY_ROOT, MAX_LEAVES

MAX_TIMESTAMP_S = (1 << 53) - 1  # what every JSON reader can hold; far beyond any clock
_FIELDS = {"log_id": bytes, "root": bytes, "run_id": bytes, "size": int, "timestamp_s": int}


@dataclass(frozen=True, slots=True)
class TreeHead:
    """The size and root of one log.

    Attributes:
        run_id: the digest of the run's spec, 32 bytes.
        log_id: the peer whose log this is.
        size: the number of entries.
        root: the RFC 6962 root over them, 32 bytes.
        timestamp_s: Unix time of the owner's clock. A claim: order comes from the size alone.
    """

    run_id: bytes
    log_id: PeerId
    size: int
    root: bytes
    timestamp_s: int

    def to_fields(self) -> dict[str, CanonicalValue]:
        """Return the canonical payload."""
        return {
            "log_id": peer_id_to_bytes(self.log_id),
            "root": self.root,
            "run_id": self.run_id,
            "size": self.size,
            "timestamp_s": self.timestamp_s,
        }

    @classmethod
    def from_fields(cls, fields: CanonicalValue) -> "TreeHead":
        """Return the head of a canonical payload; raises MalformedError if it is none."""
        if type(fields) is not dict or fields.keys() != _FIELDS.keys():
            raise MalformedError("tree-head-fields", f"expected the fields {', '.join(_FIELDS)}, got {fields!r:.80}")
        for name, kind in _FIELDS.items():
            if type(fields[name]) is not kind:  # exactly: True is an int to isinstance
                raise MalformedError(
                    "tree-head-type", f"expected {kind.__name__} as {name}, got {type(fields[name]).__name__}"
                )
        for name in ("root", "run_id"):
            if len(fields[name]) != DIGEST_BYTES:
                raise MalformedError(
                    "tree-head-digest", f"expected {DIGEST_BYTES} bytes as {name}, got {len(fields[name])}"
                )
        for name, most in (("size", MAX_LEAVES), ("timestamp_s", MAX_TIMESTAMP_S)):
            if not 0 <= fields[name] <= most:
                raise MalformedError("tree-head-range", f"expected {name} in 0..{most}, got {fields[name]}")
        if fields["size"] == 0 and fields["root"] != EMPTY_ROOT:
            raise MalformedError("tree-head-empty", f"expected root {EMPTY_ROOT.hex()}, got {fields['root'].hex()}")
        return cls(**{**fields, "log_id": peer_id_from_bytes(fields["log_id"])})


def sign_tree_head(head: TreeHead, owner: Identity, cosigners: Sequence[Identity] = ()) -> bytes:
    """Return the envelope of a head of our own log."""
    if head.log_id != owner.peer_id:
        raise LocalProtocolError(f"expected a head of {owner.peer_id}'s log, got {head.log_id}'s")
    return seal(TREE_HEAD, head.to_fields(), (owner, *cosigners))


def open_tree_head(data: bytes, run_id: bytes) -> Verified[TreeHead]:
    """Check the envelope of a head and return it.

    Raises:
        RemoteProtocolError: as `open_envelope` does.
        InvalidSignatureError: if the log's owner is not among the signers.
        WrongRunError: if it is of another run.
    """
    verified = open_envelope(data, TREE_HEAD, TreeHead.from_fields)
    head = verified.payload
    if head.log_id not in verified.signers:
        raise InvalidSignatureError(
            "tree-head-owner", f"expected a signature by {head.log_id}, got {', '.join(verified.signers)}"
        )
    if head.run_id != run_id:
        raise WrongRunError("tree-head-run", f"expected run {run_id.hex()}, got {head.run_id.hex()}")
    return verified
