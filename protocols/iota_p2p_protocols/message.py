"""The base of every message: strict, frozen, validated models over the canonical encoding.

`Message` is anything that travels. `SignedMessage` adds the fields every signed payload carries, which bind it to
one run, give it an order and let it die by itself. `open_message` is how the code base obtains one.
"""

from typing import Annotated, Any, ClassVar, Protocol, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.functional_validators import AfterValidator

from iota_p2p_crypto.canonical import CanonicalValue
from iota_p2p_crypto.domains import Domain
from iota_p2p_crypto.envelope import Verified, open_envelope, seal
from iota_p2p_crypto.identity import Identity, PeerId, parse_peer_id
from iota_p2p_protocols.errors import (
    IgnoreError,
    MalformedError,
    RejectError,
    RemoteProtocolError,
    StaleError,
    WrongRunError,
)
from iota_p2p_protocols.ids import RUN_ID_BYTES

MAX_CLOCK_SKEW_S = 30  # NTP keeps machines within one; half a minute tolerates those without it

UINT63_MAX = 2**63 - 1  # fits a signed 64-bit integer everywhere


def _peer_id(text: str) -> PeerId:
    try:
        return parse_peer_id(text)
    except RemoteProtocolError as error:
        raise ValueError(str(error)) from error


PeerIdField = Annotated[str, AfterValidator(_peer_id)]
DigestField = Annotated[bytes, Field(min_length=32, max_length=32)]
Count = Annotated[int, Field(ge=0, le=UINT63_MAX)]
UnixSeconds = Annotated[int, Field(ge=0, le=2**40)]  # the year 36812; beyond it arithmetic is somebody's joke


class Message(BaseModel):
    """Anything that travels: unknown fields, wrong types and out-of-range values are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, ser_json_bytes="hex")

    @classmethod
    def from_fields(cls, fields: Any) -> Self:
        """Validate a decoded canonical value.

        Raises:
            MalformedError: naming the first field that does not fit.
        """
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "message"
            raise MalformedError(
                "message-field", f"expected a valid {cls.__name__}: {where:.80}: {first['msg']:.120}"
            ) from error

    def to_fields(self) -> CanonicalValue:
        """Return the value to encode."""
        return self.model_dump()


class SignedMessage(Message):
    """A payload that is signed.

    Attributes:
        run_id: the 32-byte run it belongs to; zeros for a network without a run.
        sequence: grows with every message of this kind by this signer, across restarts.
        issued_s: when it was signed, Unix seconds.
        expires_s: when it stops being true by itself, Unix seconds.
    """

    domain: ClassVar[Domain]
    max_lifetime_s: ClassVar[int]

    run_id: Annotated[bytes, Field(min_length=RUN_ID_BYTES, max_length=RUN_ID_BYTES)]
    sequence: Count
    issued_s: UnixSeconds
    expires_s: UnixSeconds

    def check_current(self, run_id: bytes, now_s: float) -> None:
        """Check that the message is for this run and of this moment.

        Raises:
            WrongRunError: if it belongs to another run.
            MalformedError: if it lives longer than its kind may, or not at all.
            StaleError: if it comes from the future or has expired.
        """
        if self.run_id != run_id:
            raise WrongRunError("run-id", f"expected run {run_id.hex()[:16]}, got {self.run_id.hex()[:16]}")
        # No clock is to blame for this one, so it is not staleness, which gossip forgives.
        if not 0 < self.expires_s - self.issued_s <= self.max_lifetime_s:
            raise MalformedError(
                "lifetime", f"expected 1 to {self.max_lifetime_s} s of life, got {self.expires_s - self.issued_s}"
            )
        if self.issued_s > now_s + MAX_CLOCK_SKEW_S:
            raise StaleError("issued-in-future", f"expected a time up to {now_s:.0f}, got {self.issued_s}")
        if self.expires_s <= now_s:
            raise StaleError("expired", f"expected an expiry after {now_s:.0f}, got {self.expires_s}")


M = TypeVar("M", bound=SignedMessage)


def seal_message(message: SignedMessage, *signers: Identity) -> bytes:
    """Return the envelope of a message, signed by each identity for the message's own domain."""
    return seal(message.domain, message.to_fields(), signers)


def open_signed(data: bytes, kind: type[M]) -> Verified[M]:
    """Check an envelope and its payload's form, but neither its run nor its times: a pure function of the bytes.

    Raises:
        RemoteProtocolError: the subclass and its `rule` say what is wrong.
    """
    return open_envelope(data, kind.domain, kind.from_fields)


class Opener(Protocol):
    """`open_signed`, or a cache in front of it."""

    def __call__(self, data: bytes, kind: type[M]) -> Verified[M]:
        """Open an envelope as `open_signed` does."""
        ...


def open_message(
    data: bytes, kind: type[M], *, run_id: bytes, now_s: float, opener: Opener = open_signed
) -> Verified[M]:
    """Check an envelope, its payload's form, its run and its times.

    Raises:
        RemoteProtocolError: the subclass and its `rule` say what is wrong.
    """
    verified = opener(data, kind)
    verified.payload.check_current(run_id, now_s)
    return verified


def open_gossip(
    data: bytes, author: PeerId, kind: type[M], *, run_id: bytes, now_s: float, opener: Opener = open_signed
) -> Verified[M]:
    """Check a signed message that came by gossip: the rules every topic of signed messages shares.

    Raises:
        IgnoreError: if it has merely expired or its clock runs ahead.
        RejectError: if its author breaks a rule.
    """
    # [IGNORE] it is current: gossip may arrive late, and clocks differ
    # [REJECT] it is a well-formed message of this kind and run with a valid signature
    try:
        verified = open_message(data, kind, run_id=run_id, now_s=now_s, opener=opener)
    except StaleError as error:
        raise IgnoreError(error.rule, str(error)) from error
    except RemoteProtocolError as error:
        raise RejectError(error.rule, str(error)) from error
    # [REJECT] its signer is its author: nobody speaks for another, and old messages cannot be replayed
    if verified.signers != (author,):
        raise RejectError("gossip-author", f"expected a message signed by its author {author}, got {verified.signers}")
    return verified
