"""Forward passes through the network: bad prompts and bad answers are named, and crash nobody."""

# ruff: noqa: ARG001 - pytest-trio turns the clock only for tests that name it as an argument

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from iota_p2p.network.streams import Request, Response
from iota_p2p_crypto.errors import PeerUnavailableError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.errors import RefusedError
from iota_p2p_protocols.ids import INFERENCE
from iota_p2p_protocols.inference import HeldoutRequest, InferenceResponse, PromptRequest, pack_tokens
from iota_p2p_testnet.training_swarm import open_training_swarm, small_run
from tests.sim.training_swarms import SLOW, offences


@pytest.mark.parametrize(
    ("header", "payload", "rule"),
    [
        (PromptRequest(tokens=pack_tokens([7] * 33), stage=0), b"", "prompt-length"),
        (PromptRequest(tokens=pack_tokens([256]), stage=0), b"", "prompt-vocabulary"),
        (PromptRequest(tokens=b"\0" * 5, stage=0), b"", "prompt-length"),
        (PromptRequest(tokens=pack_tokens([7]), stage=0), b"x", "inference-payload"),
        (PromptRequest(tokens=pack_tokens([7]), stage=1), b"", "inference-payload"),
        (PromptRequest(tokens=pack_tokens([7]), stage=1), b"x", "boundary-length"),
        (HeldoutRequest(heldout=0, stage=0), b"x", "inference-payload"),
        (HeldoutRequest(heldout=0, stage=1), b"", "inference-payload"),
        (HeldoutRequest(heldout=2**32 - 1, stage=5), b"x", "no-such-stage"),
    ],
)
async def test_request__refused_by_name(
    header: PromptRequest | HeldoutRequest, payload: bytes, rule: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    spec = small_run(tmp_path)
    async with open_training_swarm(1, spec, tmp_path) as swarm:
        holder = await swarm.start(0, pinned=(0, 1), costs=SLOW)
        asker = await swarm.start(1, pinned=(), costs=SLOW)
        holder.trainer.source.paused = True
        await swarm.until(lambda: swarm.all_served)
        request = Request(header.to_fields(), payload)
        with pytest.raises(RefusedError) as caught:
            await asker.peer.network.streams.call(holder.peer.identity.peer_id, INFERENCE, request)
        assert caught.value.reason == rule


@pytest.mark.parametrize(
    ("answer", "rule"),
    [
        (Response(InferenceResponse(kind="logits").to_fields()), "inference-loss"),
        (Response(InferenceResponse(kind="loss", loss_micronats=10**9).to_fields()), "inference-loss"),
        (Response({}), "message-field"),
    ],
)
async def test_answer__that_lies_is_charged_and_had_elsewhere(
    answer: Response, rule: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Held-out passes meet a lying last stage; the stage in the middle is not blamed for it."""
    spec = small_run(tmp_path, num_stages=3)
    async with open_training_swarm(1, spec, tmp_path) as swarm:
        members = [await swarm.start(stage, pinned=(stage,), costs=SLOW) for stage in range(3)]
        liar = await swarm.start(3, pinned=(2,), costs=SLOW)

        async def lie(_: PeerId, __: Request) -> Response:
            await trio.lowlevel.checkpoint()
            return answer

        await liar.peer.network.streams.serve(INFERENCE, lie)
        members[0].trainer.source.paused = True
        await swarm.until(lambda: len(swarm.holders(2)) == 2 and swarm.all_served)
        await trio.sleep(2)
        for index in range(6):
            assert 3 < await members[0].trainer.inference.heldout_loss(index) < 8
        assert offences(swarm).keys() == {3}
        assert offences(swarm)[3].keys() == {rule}


async def test_evaluator__is_one_peer_and_another_when_it_dies(tmp_path: Path, autojump_clock: MockClock) -> None:
    spec = small_run(tmp_path)
    async with open_training_swarm(1, spec, tmp_path) as swarm:
        for number in range(3):
            member = await swarm.start(number, pinned=(0, 1), costs=SLOW)
            member.trainer.source.paused = True

        def evaluating() -> list[PeerId]:
            return [m.peer.identity.peer_id for m in swarm.members.values() if m.trainer.evaluator.loss_nats]

        await trio.sleep(12)
        assert evaluating() == [min(swarm.members)]
        swarm.crash(swarm.members[min(swarm.members)])
        await trio.sleep(30)
        assert evaluating() == [min(swarm.members)]


async def test_inference__unavailable_when_a_stage_has_nobody(tmp_path: Path, autojump_clock: MockClock) -> None:
    spec = small_run(tmp_path)
    async with open_training_swarm(1, spec, tmp_path) as swarm:
        first = await swarm.start(0, pinned=(0,), costs=SLOW)
        await swarm.until(lambda: bool(swarm.holders(0)))
        with pytest.raises(PeerUnavailableError, match="stage"):
            await first.trainer.inference.next_logits([1, 2])
