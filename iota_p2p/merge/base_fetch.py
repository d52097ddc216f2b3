"""Fetching what a stage's epoch began with, from replicas: how one that joined, was left out or diverged comes back.

Whoever merged an epoch has the next one's first weights in memory. Most replicas have the same; a lone one that says
something else is not believed while others are there.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import trio

from iota_p2p.merge.block_fetch import CALL_S, patience_s
from iota_p2p.merge.collecting import FAILURES
from iota_p2p.merge.memory import vector_digest
from iota_p2p.merge.outer_step import OuterState, Vector
from iota_p2p.merge.round import Means
from iota_p2p.network.streams import Request
from iota_p2p_crypto.digest import DIGEST_BYTES
from iota_p2p_crypto.errors import InvalidProofError, MalformedError, PeerUnavailableError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.butterfly.codec import MAX_MAGNITUDE
from iota_p2p_protocols.butterfly.exchange import MAX_ANSWER_VALUES, Base, BaseRequest
from iota_p2p_protocols.ids import MERGE

_FLOAT_BYTES = 4
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BaseFetch:
    """Fetches one stage's base.

    Attributes:
        means: how replicas are called.
        stage: which stage.
        num_values: W.
        velocity: whether there is an outer momentum's memory, too.
    """

    means: Means
    stage: int
    num_values: int
    velocity: bool

    async def ask(self, replicas: Sequence[PeerId]) -> dict[PeerId, Base]:
        """Return what each replica that answers says its base is."""
        answers: dict[PeerId, Base] = {}

        async def ask_one(peer_id: PeerId) -> None:
            request = BaseRequest(stage=self.stage, digest=bytes(DIGEST_BYTES))
            try:
                with trio.fail_after(CALL_S):
                    response = await self.means.streams.call(peer_id, MERGE, Request(request.to_fields()))
                with self.means.streams.ledger.charging(peer_id):
                    answers[peer_id] = self._checked(Base.from_fields(response.header))
            except FAILURES as error:
                _log.debug("no base", extra={"peer": peer_id, "reason": str(error) or "too slow"})

        async with trio.open_nursery() as nursery:
            for replica in replicas:
                nursery.start_soon(ask_one, replica)
        return dict(sorted(answers.items()))

    def _checked(self, base: Base) -> Base:
        # [base-size] it is one of this stage
        if base.num_values != self.num_values or bool(base.velocity) > self.velocity:
            raise MalformedError("base-size", f"expected {self.num_values} values, got {base.num_values}")
        return base

    async def fetch(self, base: Base, sources: Sequence[PeerId]) -> OuterState:
        """Return a base from the first source that gives it.

        Raises:
            PeerUnavailableError: if none does.
        """
        for source in sources:
            try:
                theta_W = await self._vector(source, base, velocity=False)
                velocity_W = await self._vector(source, base, velocity=True) if base.velocity else None
                return OuterState(theta_W, velocity_W)
            except FAILURES as error:
                _log.info("base not fetched", extra={"peer": source, "reason": str(error) or "too slow"})
        raise PeerUnavailableError(f"expected the base of stage {self.stage} from somebody, got none")

    async def _vector(self, source: PeerId, base: Base, *, velocity: bool) -> Vector:
        vector_W = np.empty(self.num_values, dtype=np.float32)
        for first in range(0, self.num_values, MAX_ANSWER_VALUES):
            count = min(MAX_ANSWER_VALUES, self.num_values - first)
            request = BaseRequest(stage=self.stage, digest=base.digest, velocity=velocity, first=first, count=count)
            with trio.fail_after(patience_s(count * _FLOAT_BYTES)):
                response = await self.means.streams.call(source, MERGE, Request(request.to_fields()))
            payload = memoryview(response.payload).cast("B")
            with self.means.streams.ledger.charging(source):
                if len(payload) != count * _FLOAT_BYTES:
                    raise MalformedError("base-length", f"expected {count} values, got {len(payload)} bytes")
            vector_W[first : first + count] = np.frombuffer(payload, dtype="<f4")
        with self.means.streams.ledger.charging(source):
            await self.means.beside(partial(_check, vector_W, base.velocity if velocity else base.digest))
        return vector_W


def _check(vector_W: Vector, expected: bytes) -> None:
    # [base-digest] it is the state that was named, of finite weights
    if vector_digest(vector_W) != expected:
        raise InvalidProofError("base-digest", f"expected the state {expected.hex()[:16]}, got another")
    if not bool((np.abs(vector_W) <= MAX_MAGNITUDE).all()):  # true of NaN, too
        raise MalformedError("base-values", f"expected finite values up to {MAX_MAGNITUDE:.0f}")


def best_base(bases: dict[PeerId, Base], last_epoch: int) -> tuple[Base, list[PeerId]] | None:
    """Return the base to take, and who has it: of the latest epoch that there can be, the one that most replicas have.

    Of two that equally many have, the one with the lower digest: everybody chooses alike.
    """
    possible = {peer_id: base for peer_id, base in bases.items() if base.epoch <= last_epoch}
    if not possible:
        return None
    latest = max(base.epoch for base in possible.values())
    votes = Counter(base.digest for base in possible.values() if base.epoch == latest)
    chosen = min(votes, key=lambda name: (-votes[name], name))
    sources = [peer_id for peer_id, base in possible.items() if (base.epoch, base.digest) == (latest, chosen)]
    return possible[sources[0]], sources
