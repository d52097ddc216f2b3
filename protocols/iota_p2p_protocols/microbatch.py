"""Microbatch ids: which microbatch of which source in which epoch (spec: protocols/spec/activation.md).

An id says everything about a microbatch: its tokens follow from the run's data, so neither they nor their labels
travel. What is signed is the id's digest, which binds the run and the epoch as well.
"""

from typing import Annotated

from pydantic import Field

from iota_p2p_crypto.digest import Digest, tagged_digest
from iota_p2p_crypto.identity import PeerId, peer_id_to_bytes
from iota_p2p_protocols.advert import MAX_STAGES
from iota_p2p_protocols.message import Count, Message, PeerIdField

Stage = Annotated[int, Field(ge=0, lt=MAX_STAGES)]

# Counters from here on are second visits: of the same data as the counter so far below it. Above any number of
# microbatches that a source starts in an epoch: 35,000 a second for a year.
SECOND_VISIT = 2**40

_TAG = "iota-p2p/microbatch-id/1"


class MicrobatchId(Message):
    """The `counter`-th microbatch that a peer drives in an epoch.

    Attributes:
        epoch: the epoch it was started in.
        source: the peer that holds stage 0 of its pathway and drives it.
        counter: counts the source's microbatches in that epoch, from 0; with SECOND_VISIT added it is the same data
            once more, along another drawn pathway (`scoring.paired_probes`).
    """

    epoch: Count
    source: PeerIdField
    counter: Count

    @property
    def is_second(self) -> bool:
        """Whether it visits data that another microbatch visited before."""
        return self.counter >= SECOND_VISIT

    @property
    def data_counter(self) -> int:
        """The counter from which its data follows: that of the first visit."""
        return self.counter - SECOND_VISIT if self.is_second else self.counter

    def second_visit(self) -> "MicrobatchId":
        """Return the id of the same data's second visit."""
        return MicrobatchId(epoch=self.epoch, source=self.source, counter=self.counter + SECOND_VISIT)

    def digest(self, run_id: bytes) -> Digest:
        """Return the 32 bytes that stand for this microbatch of this run in everything signed."""
        return tagged_digest(
            _TAG,
            run_id,
            self.epoch.to_bytes(8, "big"),
            peer_id_to_bytes(PeerId(self.source)),
            self.counter.to_bytes(8, "big"),
        )


def live_epochs(current: int) -> range:
    """Return the epochs whose messages are of use now: the current one, and the one whose last words still arrive."""
    return range(max(0, current - 1), current + 1)
