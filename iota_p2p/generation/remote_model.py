"""A network's current model as a stranger sees it: tokens go in, the next one's logits come out.

Holders of stage 0 are asked; they ask those of stage 1, and so on (`iota_p2p_protocols.inference`). One that
answered is asked again; when it fails, another one is, and when all have, the view is had anew.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from random import Random

import numpy as np
import numpy.typing as npt
import trio

from iota_p2p.network.streams import Request, Streams
from iota_p2p.run.spec import RunSpec
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.errors import PeerUnavailableError, RefusedError, RemoteProtocolError
from iota_p2p_protocols.ids import INFERENCE
from iota_p2p_protocols.inference import PromptRequest, check_response, pack_tokens

# Between rounds over all replicas: an empty stage is filled within seconds.
PAUSE_S = 0.5
# One replica has this long, with everything behind it: training goes first everywhere.
ASK_TIMEOUT_S = 30.0


@dataclass(slots=True)
class RemoteModel:
    """Asks a network for logits.

    Attributes:
        spec: the network's run.
        streams: how its peers are called.
        find_replicas: finds and connects the holders of stage 0; raises PeerUnavailableError if some stage has none.
        timeout_s: patience for one token.
        rng: which replica is asked first.
    """

    spec: RunSpec
    streams: Streams
    find_replicas: Callable[[], Awaitable[Sequence[PeerId]]]
    timeout_s: float
    rng: Random = field(default_factory=Random)
    _replicas: list[PeerId] = field(default_factory=list)

    async def next_logits(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """Return the logits, V, of the token after these; of more than fit the model, it sees the last ones.

        Raises:
            PeerUnavailableError: if they cannot be had in time, with the last reason.
        """
        window = list(tokens[-self.spec.model.sequence_length :])
        reason = "no answer"
        with trio.move_on_after(self.timeout_s):
            while True:
                try:
                    if not self._replicas:
                        self._replicas = list(await self.find_replicas())
                        self.rng.shuffle(self._replicas)
                    with trio.fail_after(ASK_TIMEOUT_S):
                        return await self._ask(self._replicas[0], window)
                except trio.TooSlowError:
                    reason = f"no answer of {self._replicas[0]} within {ASK_TIMEOUT_S:.0f} s"
                except (PeerUnavailableError, RefusedError, RemoteProtocolError) as error:
                    reason = str(error)
                del self._replicas[:1]
                if not self._replicas:
                    await trio.sleep(PAUSE_S)
        raise PeerUnavailableError(f"no next token within {self.timeout_s:.0f} s: {reason}")

    async def _ask(self, peer_id: PeerId, window: list[int]) -> npt.NDArray[np.float32]:
        request = PromptRequest(tokens=pack_tokens(window), stage=0)
        response = await self.streams.call(peer_id, INFERENCE, Request(request.to_fields()))
        with self.streams.ledger.charging(peer_id):
            payload = bytes(response.payload)
            check_response(request, response.header, payload, self.spec.model.vocab_size)
        return np.frombuffer(payload, "<f4")
