"""Adverts: what a peer says of itself, signed, numbered and dying by itself (spec: protocols/spec/membership.md)."""

from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from iota_p2p_crypto.domains import ADVERT, Domain
from iota_p2p_protocols.message import Count, Message, SignedMessage

MAX_ADDRESSES = 16  # a host with several interfaces, IPv4 and IPv6, and a few relays
MAX_ADDRESS_CHARS = 256  # a relayed address holds two peer ids of 52 characters
MAX_STAGES = 64  # more stages than any published run has
LIFETIME_S = 1800  # a peer that vanished without a trace is forgotten after half an hour
REFRESH_S = 900  # half a lifetime, so that one lost refresh does no harm

Reachability = Literal["public", "private", "relayed", "unknown"]


class StageOffer(Message):
    """One stage a peer holds, and how fast it has measured itself to be on it.

    Attributes:
        stage: index of the stage.
        tokens_per_s: measured throughput, forward and backward together; 0 = not measured yet.
    """

    stage: Annotated[int, Field(ge=0, lt=MAX_STAGES)]
    tokens_per_s: Count


class Capacity(Message):
    """What a peer could carry, as it measured itself; 0 means not measured.

    Attributes:
        memory_bytes: memory it gives to the run.
        upload_bytes_per_s: measured upload.
        download_bytes_per_s: measured download.
        tokens_per_s: measured throughput on one stage of the run.
        load_percent: how busy it is, 0 to 100.
    """

    memory_bytes: Count = 0
    upload_bytes_per_s: Count = 0
    download_bytes_per_s: Count = 0
    tokens_per_s: Count = 0
    load_percent: Annotated[int, Field(ge=0, le=100)] = 0


class Advert(SignedMessage):
    """A peer's signed self-description.

    Attributes:
        addresses: full multiaddresses at which it may be reached.
        reachability: how others reach it, as far as it knows itself.
        relay: whether it relays for peers that cannot be dialled.
        oldest_version: the oldest protocol version it speaks.
        newest_version: the newest one.
        software: name and version of its software, for people.
        capacity: what it could carry.
        stages: the stages it holds, ascending.
        leaving: True in the last advert of a peer that leaves in good order.
    """

    domain: ClassVar[Domain] = ADVERT
    max_lifetime_s: ClassVar[int] = LIFETIME_S

    addresses: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=MAX_ADDRESS_CHARS)], ...], Field(max_length=MAX_ADDRESSES)
    ]
    reachability: Reachability = "unknown"
    relay: bool = False
    oldest_version: Annotated[int, Field(ge=1, le=2**16)]
    newest_version: Annotated[int, Field(ge=1, le=2**16)]
    software: Annotated[str, Field(max_length=64)]
    capacity: Capacity = Capacity()
    stages: Annotated[tuple[StageOffer, ...], Field(max_length=MAX_STAGES)] = ()
    leaving: bool = False

    @model_validator(mode="after")
    def _check_order(self) -> "Advert":
        indices = [offer.stage for offer in self.stages]
        if any(low >= high for low, high in pairwise(indices)):
            raise ValueError("stages must be distinct and ascending")
        if self.oldest_version > self.newest_version:
            raise ValueError("oldest_version must not exceed newest_version")
        return self
