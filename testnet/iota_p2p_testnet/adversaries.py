"""Peers that break one rule each and are honest in everything else: the real parts with one behaviour changed.

member = await swarm.start(3, twist=lie_in_answers(nan_gradient))
"""

import struct
from collections.abc import Awaitable, Callable

import trio

from iota_p2p.network.streams import Request, Response, Streams
from iota_p2p.peer import Peer
from iota_p2p.training.trainer import Trainer
from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.identity import Identity, PeerId
from iota_p2p_protocols.activation import ActivationRequest
from iota_p2p_protocols.ids import ACTIVATION, MERGE, STATE, ProtocolSpec
from iota_p2p_protocols.receipt import open_receipt, seal_receipt
from iota_p2p_protocols.refusal import Refusal, seal_refusal
from iota_p2p_testnet.training_swarm import Twist

Lie = Callable[[Identity, Response], Response]
RequestLie = Callable[[Identity, Request], Request]
_STRANGER = Identity.from_seed(bytes(32))


def lie_in_answers(lie: Lie) -> Twist:
    """Do the work of a stage, and then answer something else."""

    async def twist(peer: Peer, trainer: Trainer) -> None:
        async def answer(caller: PeerId, request: Request) -> Response:
            return lie(peer.identity, await trainer.worker.answer(caller, request))

        await peer.network.streams.serve(ACTIVATION, answer)

    return twist


def short_gradient(_: Identity, response: Response) -> Response:
    """Leave the gradient's last byte out."""
    return Response(response.header, bytes(response.payload)[:-1])


def other_gradient(_: Identity, response: Response) -> Response:
    """Send another gradient than the one receipted."""
    return Response(response.header, bytes(len(response.payload)))


def nan_gradient(me: Identity, response: Response) -> Response:
    """Send float32 NaN throughout, properly receipted."""
    payload = struct.pack("<f", float("nan")) * (len(response.payload) // 4)
    receipt = open_receipt(_bytes(response.header["receipt"])).payload.model_copy(
        update={"out_digest": digest(payload)}
    )
    return Response({**response.header, "receipt": seal_receipt(receipt, me)}, payload)


def forged_receipt(_: Identity, response: Response) -> Response:
    """Show a receipt that somebody else signed."""
    receipt = open_receipt(_bytes(response.header["receipt"])).payload
    return Response({**response.header, "receipt": seal_receipt(receipt, _STRANGER)}, response.payload)


def no_answer_at_all(_: Identity, response: Response) -> Response:
    """Answer with an empty header."""
    return Response({}, response.payload)


def answers_of_the_past() -> Lie:
    """Return a lie that gives the first answer to every request."""
    first: list[Response] = []

    def lie(_: Identity, response: Response) -> Response:
        first.append(response)
        return first[0]

    return lie


async def hang(peer: Peer, _: Trainer) -> None:
    """Twist: take every microbatch and never answer."""

    async def answer(_: PeerId, __: Request) -> Response:
        await trio.sleep_forever()
        return Response({})

    await peer.network.streams.serve(ACTIVATION, answer)


def dawdle(seconds: float) -> Twist:
    """Answer rightly, and late."""

    async def twist(peer: Peer, trainer: Trainer) -> None:
        async def answer(caller: PeerId, request: Request) -> Response:
            await trio.sleep(seconds)
            return await trainer.worker.answer(caller, request)

        await peer.network.streams.serve(ACTIVATION, answer)

    return twist


async def serve_wrong_chunks(peer: Peer, trainer: Trainer) -> None:
    """Twist: change a byte of every part of a state, a contribution or a result that we serve.

    What we sign and say of them is true.
    """

    async def serve(protocol: ProtocolSpec, answer: Callable[[PeerId, Request], Awaitable[Response]]) -> None:
        async def lie(caller: PeerId, request: Request) -> Response:
            response = await answer(caller, request)
            chunk = bytes(response.payload)
            if not chunk or (protocol == STATE and "stage" in request.header):  # the list of chunks is said
                return response
            return Response(response.header, chunk[:-1] + bytes([chunk[-1] ^ 1]))

        await peer.network.streams.serve(protocol, lie)

    await serve(STATE, trainer.custody.server.answer)
    if trainer.merger is not None:
        await serve(MERGE, trainer.merger.server.answer)


async def work_in_vain(peer: Peer, trainer: Trainer) -> None:
    """Twist: do all the work of every microbatch, have it done behind us, and never answer."""

    async def answer(caller: PeerId, request: Request) -> Response:
        await trainer.worker.answer(caller, request)
        await trio.sleep_forever()
        return Response({})

    await peer.network.streams.serve(ACTIVATION, answer)


async def decline(peer: Peer, trainer: Trainer) -> None:
    """Twist: advertise a stage and refuse every microbatch as `busy`."""

    async def answer(_: PeerId, request: Request) -> Response:
        header = ActivationRequest.from_fields(request.header)
        refusal = Refusal(
            microbatch=header.microbatch.digest(trainer.share.terms.run_id),
            stage=header.stage,
            reason="busy",
            queue_length=0,
        )
        return Response({"loss_record": b"", "receipt": b"", "refusal": seal_refusal(refusal, peer.identity)})

    await peer.network.streams.serve(ACTIVATION, answer)


class _LyingStreams(Streams):
    """A peer's streams whose calls on activations say something else."""

    def __init__(self, streams: Streams, me: Identity, lie: RequestLie) -> None:
        self.ledger = streams.ledger
        self._streams = streams
        self._me = me
        self._lie = lie

    async def call(self, peer_id: PeerId, spec: ProtocolSpec, request: Request) -> Response:
        return await self._streams.call(peer_id, spec, self._lie(self._me, request))


def lie_in_requests(lie: RequestLie) -> Twist:
    """Change every activation we send."""

    async def twist(peer: Peer, trainer: Trainer) -> None:
        trainer.worker.pathway.streams = _LyingStreams(peer.network.streams, peer.identity, lie)
        await trio.lowlevel.checkpoint()

    return twist


def short_activation(_: Identity, request: Request) -> Request:
    """Leave the activation's last byte out."""
    return Request(request.header, bytes(request.payload)[:-1])


def other_activation(_: Identity, request: Request) -> Request:
    """Send another activation than the one receipted."""
    return Request(request.header, bytes(len(request.payload)))


def nan_activation(me: Identity, request: Request) -> Request:
    """Send float32 NaN throughout, properly receipted."""
    payload = struct.pack("<f", float("nan")) * (len(request.payload) // 4)
    header = ActivationRequest.from_fields(request.header)
    receipt = open_receipt(header.chain[-1]).payload.model_copy(update={"out_digest": digest(payload)})
    chain = (*header.chain[:-1], seal_receipt(receipt, me))
    return Request(header.model_copy(update={"chain": chain}).to_fields(), payload)


def stolen_receipt(_: Identity, request: Request) -> Request:
    """Show a receipt that somebody else signed."""
    header = ActivationRequest.from_fields(request.header)
    receipt = open_receipt(header.chain[-1]).payload
    chain = (*header.chain[:-1], seal_receipt(receipt, _STRANGER))
    return Request(header.model_copy(update={"chain": chain}).to_fields(), request.payload)


def far_counter(_: Identity, request: Request) -> Request:
    """Ask for a microbatch that the data does not have."""
    header = ActivationRequest.from_fields(request.header)
    microbatch = header.microbatch.model_copy(update={"counter": 1 << 39})
    return Request(header.model_copy(update={"microbatch": microbatch}).to_fields(), request.payload)


def requests_of_the_past() -> RequestLie:
    """Return a lie that sends every other time a request as old as the first."""
    sent: list[Request] = []

    def lie(_: Identity, request: Request) -> Request:
        sent.append(request)
        return request if len(sent) % 2 else sent[0]

    return lie


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"expected bytes in our own header, got {type(value)}")
    return value
