r"""Showing work and asking for it: the stream behind a work commitment.

request   {"epoch", "stage", "what": "log", "checkpoint" or "stash", "index": which, "offset": bytes to leave out,
          "digests": ()}
response  {"total": bytes of the whole}, payload: at most PIECE_BYTES of it
request   {..., "what": "payloads", "index": 0, "offset": 0, "digests": (digest, ...)}
response  {"total": payloads that follow}, payload: (length 4 bytes big-endian || payload)*, as far as they fit;
          length 0 for one that is not there
request   {..., "what": "receipts", "index": 0, "offset": 0, "digests": (digest of a loss record, ...)}
response  likewise, the receipts that came with gradients from whoever did the stage
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import trio
from pydantic import Field

from iota_p2p.network.streams import Request, Response, Streams
from iota_p2p.training.payload_store import MAX_STORED_BYTES, PayloadStore
from iota_p2p.training.return_store import ReturnStore
from iota_p2p.validation.series import parts_of, put
from iota_p2p.validation.work_keeper import KeptWork, WorkKeeper
from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.errors import MalformedError, PeerUnavailableError, RefusedError
from iota_p2p_protocols.ids import REPLAY
from iota_p2p_protocols.message import Count, DigestField, Message
from iota_p2p_protocols.microbatch import Stage
from iota_p2p_protocols.receipt import MAX_RECEIPT_BYTES
from iota_p2p_protocols.scoring.segments import MAX_SEGMENTS

# For 8 MiB over a home uplink of 4 Mbit/s, twice; payloads as large take their time only on fast networks.
PATIENCE_S = 40.0
PIECE_BYTES = 8 << 20
MAX_DIGESTS = 256  # 9 KiB of a header

What = Literal["log", "checkpoint", "stash", "payloads", "receipts"]


class ReplayRequest(Message):
    """Show me what a commitment of yours rests on, or what was signed of gradients that came back to you.

    Attributes:
        epoch, stage: which commitment; for receipts who signed them did that stage.
        what: which part.
        index: of the checkpoint or stash, as in the commitment.
        offset: bytes of it to leave out.
        digests: for payloads, which; for receipts the digests of the loss records they are about.
    """

    epoch: Count
    stage: Stage
    what: What
    index: Annotated[int, Field(ge=0, le=MAX_SEGMENTS)]
    offset: Count
    digests: Annotated[tuple[DigestField, ...], Field(max_length=MAX_DIGESTS)]


class ReplayAnswer(Message):
    """Some of it is the payload.

    Attributes:
        total: bytes of the whole; for payloads and receipts how many follow.
    """

    total: Count


async def serve_replay(streams: Streams, keeper: WorkKeeper, payloads: PayloadStore, returns: ReturnStore) -> None:
    """Show our work, and what came back to us, to whoever asks, from now on."""

    async def answer(_: PeerId, request: Request) -> Response:
        wanted = ReplayRequest.from_fields(request.header)
        if wanted.what == "receipts":
            return _parts(wanted.digests, partial(returns.get, wanted.epoch, wanted.stage))
        kept = keeper.kept(wanted.epoch, wanted.stage)
        if kept is None:
            raise RefusedError("unknown-work", "expected an epoch and a stage whose work we keep, got others")
        if wanted.what == "payloads":
            return _parts(wanted.digests, payloads.get)
        whole = _part(kept, wanted)
        piece = whole[wanted.offset : wanted.offset + PIECE_BYTES]
        return Response(ReplayAnswer(total=len(whole)).to_fields(), piece)

    await streams.serve(REPLAY, answer)


def _part(kept: KeptWork, wanted: ReplayRequest) -> bytes:
    if wanted.what == "log":
        return kept.segments.log.to_bytes()
    states = kept.segments.checkpoints if wanted.what == "checkpoint" else kept.segments.stashes
    if wanted.index >= len(states):
        raise RefusedError("unknown-work", f"expected one of {len(states)} states, got {wanted.index}")
    return states[wanted.index]


def _parts(digests: Sequence[bytes], find: Callable[[bytes], bytes | None]) -> Response:
    count, data = 0, bytearray()
    for name in digests:
        if not put(data, find(name) or b"", REPLAY.max_payload_bytes):
            break
        count += 1
    return Response(ReplayAnswer(total=count).to_fields(), bytes(data))


@dataclass(frozen=True, slots=True)
class ReplaySource:
    """Asks one peer for one epoch's work on one stage.

    All raise PeerUnavailableError if it cannot be reached, declines or is too slow, and MalformedError if it sends
    something else; it has been charged then.
    """

    streams: Streams
    peer_id: PeerId
    epoch: int
    stage: int

    async def fetch(self, what: What, max_bytes: int, index: int = 0) -> bytes:
        """Return a log, checkpoint or stash of at most `max_bytes`; its digest is for the caller to compare."""
        data = bytearray()
        while True:
            response = await self._ask(what, index=index, offset=len(data))
            with self.streams.ledger.charging(self.peer_id):
                total = ReplayAnswer.from_fields(response.header).total
                piece = bytes(response.payload)
                if total > max_bytes or len(data) + len(piece) > total or not piece:
                    raise MalformedError("replay-answer", f"expected some of at most {max_bytes} bytes, got {total}")
            data += piece
            if len(data) == total:
                return bytes(data)

    async def payloads(self, digests: Sequence[bytes], max_bytes: int) -> dict[bytes, bytes]:
        """Return the payloads that the peer still has, by digest; each has at most `max_bytes`.

        The peer has named the digests itself, so all together are bounded by what an honest one keeps.
        """
        found = await self._all_of("payloads", digests, max_bytes)
        with self.streams.ledger.charging(self.peer_id):
            for name, payload in found.items():
                if digest(payload) != name:
                    raise MalformedError("replay-payload", f"expected {name.hex()[:16]}, got another payload")
        return found

    async def receipts(self, records: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the envelopes that the peer has of receipts about loss records; what they say is not checked."""
        return await self._all_of("receipts", records, MAX_RECEIPT_BYTES)

    async def _all_of(self, what: What, digests: Sequence[bytes], max_bytes: int) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        position = num_bytes = 0
        while position < len(digests):
            asked = tuple(digests[position : position + MAX_DIGESTS])
            response = await self._ask(what, digests=asked)
            with self.streams.ledger.charging(self.peer_id):
                count = ReplayAnswer.from_fields(response.header).total
                sent = list(parts_of(bytes(response.payload), "replay-form", what))
                if not 0 < count <= len(asked) or len(sent) != count:
                    raise MalformedError("replay-answer", f"expected some of {len(asked)} {what}, got {count}")
                num_bytes += sum(map(len, sent))
                if max(map(len, sent)) > max_bytes or num_bytes > MAX_STORED_BYTES:
                    raise MalformedError("replay-payload", f"expected {what} of {max_bytes} bytes, got {num_bytes}")
            found.update({name: part for name, part in zip(asked, sent, strict=False) if part})
            position += count
        return found

    async def _ask(self, what: What, *, index: int = 0, offset: int = 0, digests: tuple[bytes, ...] = ()) -> Response:
        request = ReplayRequest(
            epoch=self.epoch, stage=self.stage, what=what, index=index, offset=offset, digests=digests
        )
        try:
            with trio.fail_after(PATIENCE_S):
                return await self.streams.call(self.peer_id, REPLAY, Request(request.to_fields()))
        except (RefusedError, trio.TooSlowError) as error:
            raise PeerUnavailableError(f"expected {self.peer_id} to show its work: {error}") from error
