"""`MergeServer`: answers the other members of our merges (protocol MERGE, `exchange`)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from iota_p2p.merge.memory import MergeMemory
from iota_p2p.network.streams import Request, Response
from iota_p2p_crypto.errors import MalformedError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.butterfly.exchange import BaseRequest, BlocksRequest, Note, ResultRequest
from iota_p2p_protocols.framing import Payload


@dataclass(frozen=True, slots=True)
class MergeServer:
    """Answers one call after the other.

    Attributes:
        memory: what can be asked for.
        take: takes a letter for a merge of ours; raises RefusedError if there is none such now.
    """

    memory: MergeMemory
    take: Callable[[PeerId, Note], None]

    async def answer(self, caller: PeerId, request: Request) -> Response:
        """Answer one call; raises RemoteProtocolError if the caller broke a rule."""
        fields = request.header
        match fields.get("kind"):
            case "note":
                self.take(caller, Note.from_fields(fields))
                return Response({})
            case "blocks":
                return Response({}, _joined(self.memory.blocks(BlocksRequest.from_fields(fields))))
            case "result":
                return Response({}, _joined(self.memory.results(ResultRequest.from_fields(fields))))
            case "base":
                about, parts = self.memory.base(BaseRequest.from_fields(fields))
                return Response(about.to_fields(), _joined(parts))
            case other:
                raise MalformedError("merge-kind", f"expected a known kind of request, got {other!r:.40}")


def _joined(parts: Sequence[bytes | memoryview]) -> Payload:
    return parts[0] if len(parts) == 1 else b"".join(parts)
