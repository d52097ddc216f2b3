"""Errors that name the guilty party.

    IotaError
    ├── ProtocolError                 abstract: somebody broke the rules
    │   ├── LocalProtocolError        our bug: crash the task, never caught below main
    │   └── RemoteProtocolError       the peer's fault: refuse, count it against the peer
    │       ├── MalformedError        bytes that are not what their type says
    │       ├── OversizedError        more than the bound
    │       ├── InvalidSignatureError a signature that does not verify, or a wrong signer
    │       ├── StaleError            expired, rolled back, or from another epoch
    │       ├── WrongRunError         signed for another run
    │       └── InvalidProofError     a VRF, Merkle or commitment proof that does not hold
    ├── PeerUnavailableError          nobody's fault: timeout, reset, gone; retry elsewhere
    └── UserError                     the user's fault: one sentence with the fix, exit code 2

Every message says what was expected and what came, in that order.
"""


class IotaError(Exception):
    """Root of every error this project raises on purpose."""


class ProtocolError(IotaError):
    """Somebody broke a protocol rule; always one of the two subclasses."""


class LocalProtocolError(ProtocolError):
    """Our own code broke a rule: a bug here, never something a peer can cause."""


class RemoteProtocolError(ProtocolError):
    """A peer (or whoever wrote the bytes) broke a rule.

    Attributes:
        rule: stable, kebab-case name of the broken rule, for logs, metrics and vectors.
    """

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


class MalformedError(RemoteProtocolError):
    """Bytes that do not decode to what their type says."""


class OversizedError(RemoteProtocolError):
    """Something larger, deeper or more numerous than its stated bound."""


class InvalidSignatureError(RemoteProtocolError):
    """A signature that does not verify, or a signer who has no business here."""


class StaleError(RemoteProtocolError):
    """A message that has expired, goes back in sequence, or belongs to another epoch."""


class WrongRunError(RemoteProtocolError):
    """A message signed for another run."""


class InvalidProofError(RemoteProtocolError):
    """A VRF, Merkle, consistency or commitment proof that does not hold."""


class PeerUnavailableError(IotaError):
    """The peer cannot be reached or did not answer in time: nobody broke a rule."""


class UserError(IotaError):
    """The user asked for something impossible; the message is one sentence with the fix."""
