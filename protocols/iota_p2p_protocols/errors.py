"""The error tree of everything peers say to each other; the whole of it is drawn in `iota_p2p_crypto.errors`.

This module adds what only a conversation can go wrong with:

    RemoteProtocolError
    ├── UnsupportedVersionError   no protocol version in common
    └── RejectError               gossip that breaks a topic's rule: charged to its author
    IotaError
    ├── IgnoreError               gossip that is merely of no use now: dropped in silence
    └── RefusedError              a peer declined a request and said why; nobody broke a rule
"""

from iota_p2p_crypto.errors import (
    InvalidProofError,
    InvalidSignatureError,
    IotaError,
    LocalProtocolError,
    MalformedError,
    OversizedError,
    PeerUnavailableError,
    ProtocolError,
    RemoteProtocolError,
    StaleError,
    UserError,
    WrongRunError,
)


class UnsupportedVersionError(RemoteProtocolError):
    """The other side speaks no protocol version that we do."""


class RejectError(RemoteProtocolError):
    """Gossip that breaks a rule of its topic; the author is charged."""


class IgnoreError(IotaError):
    """Gossip that is well-formed but of no use: seen before, out of date, too early; nobody is charged.

    Attributes:
        rule: stable, kebab-case name of the rule that made it useless.
    """

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


class RefusedError(IotaError):
    """A peer declined our request with a reason.

    Attributes:
        reason: stable, kebab-case word from the peer's answer (bounded; not to be trusted beyond display).
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


__all__ = [
    "IgnoreError",
    "InvalidProofError",
    "InvalidSignatureError",
    "IotaError",
    "LocalProtocolError",
    "MalformedError",
    "OversizedError",
    "PeerUnavailableError",
    "ProtocolError",
    "RefusedError",
    "RejectError",
    "RemoteProtocolError",
    "StaleError",
    "UnsupportedVersionError",
    "UserError",
    "WrongRunError",
]
