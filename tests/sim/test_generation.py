"""Writing on over the simulated network: from whoever answers, with a window that slides."""

# ruff: noqa: ARG001  a clock fixture acts by being asked for

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import trio
from trio.testing import MockClock

from iota_p2p.generation.remote_model import ASK_TIMEOUT_S, RemoteModel
from iota_p2p.generation.sampling import Sampling
from iota_p2p.generation.text import TextWish, Written, write
from iota_p2p.network.streams import Request, Response
from iota_p2p.run.plan_file import load_plan
from iota_p2p.run.spec import DataSpec, RunSpec, ShardRef, TokenizerSpec
from iota_p2p_crypto.errors import PeerUnavailableError, UserError
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.errors import RefusedError
from iota_p2p_protocols.ids import INFERENCE
from iota_p2p_protocols.inference import InferenceResponse, PromptRequest, unpack_tokens
from tests.sim.calling_nodes import CallingNode, calling_nodes

SHARD = ShardRef(digest=bytes(32).hex(), num_tokens=1000)
PLAN = load_plan(Path(__file__).parents[2] / "configs" / "tiny.toml")
SPEC = PLAN.with_data(DataSpec(train=(SHARD,), heldout=(SHARD,)), seed=0)


def wish(prompt: str, num_tokens: int) -> TextWish:
    return TextWish(
        prompt=prompt, bootstrap=(), num_tokens=num_tokens, sampling=Sampling(temperature=0), seed=0, timeout_s=60
    )


class Answers:
    """A holder of stage 0 whose model always thinks that the next letter of the alphabet follows."""

    def __init__(self) -> None:
        self.windows: list[bytes] = []
        self.payload: bytes | None = None
        self.refuse = False
        self.sleep_s = 0.0

    async def __call__(self, peer_id: PeerId, request: Request) -> Response:  # noqa: ARG002 - anybody may ask
        tokens = PromptRequest.from_fields(request.header).tokens
        window = unpack_tokens(tokens, vocab_size=256, sequence_length=SPEC.model.sequence_length)
        self.windows.append(bytes(window))
        if self.refuse:
            raise RefusedError("no-such-stage", "expected a stage we hold, got 0")
        await trio.sleep(self.sleep_s)
        logits = np.zeros(256, "<f4")
        logits[window[-1] + 1] = 1
        payload = logits.tobytes() if self.payload is None else self.payload
        return Response(InferenceResponse(kind="logits").to_fields(), payload)


def model_of(us: CallingNode, *holders: CallingNode, spec: RunSpec = SPEC) -> RemoteModel:
    async def find_replicas() -> Sequence[PeerId]:
        if not holders:
            raise PeerUnavailableError("nobody serves stage 0")
        return [holder.peer_id for holder in holders]

    return RemoteModel(spec, us.streams, find_replicas, timeout_s=60)


async def written_by(model: RemoteModel, asked: TextWish) -> tuple[Written, list[str]]:
    written, shown = Written(), list[str]()
    await write(model, asked, written, shown.append)
    return written, shown


async def test_write__goes_on_from_the_prompt_letter_by_letter(autojump_clock: MockClock) -> None:
    async with calling_nodes(2) as (_, (us, peer)):
        answers = Answers()
        await peer.streams.serve(INFERENCE, answers)
        written, shown = await written_by(model_of(us, peer), wish("abc", 3))
    assert (written.text, written.tokens, written.complete) == ("def", list(b"def"), True)
    assert shown == ["abc", "d", "e", "f"]
    assert answers.windows == [b"abc", b"abcd", b"abcde"]


async def test_window__slides_when_the_text_is_longer_than_the_model_sees(autojump_clock: MockClock) -> None:
    length = SPEC.model.sequence_length
    prompt = "x" * (length - 1) + "a"
    async with calling_nodes(2) as (_, (us, peer)):
        answers = Answers()
        await peer.streams.serve(INFERENCE, answers)
        await written_by(model_of(us, peer), wish(prompt, 2))
    assert answers.windows == [prompt.encode(), prompt.encode()[1:] + b"b"]


async def test_write__another_holder_when_one_refuses_lies_or_hangs(autojump_clock: MockClock) -> None:
    async with calling_nodes(5) as (_, (us, *peers)):
        answers = [Answers() for _ in peers]
        answers[0].refuse = True
        answers[1].payload = np.full(256, np.nan, "<f4").tobytes()
        answers[2].sleep_s = ASK_TIMEOUT_S / 2
        for peer, answer in zip(peers, answers, strict=True):
            await peer.streams.serve(INFERENCE, answer)
        model = model_of(us, *peers)
        model._replicas = [peer.peer_id for peer in peers]
        written, _ = await written_by(model, wish("a", 2))
        assert us.streams.ledger.counts(peers[1].peer_id) == {"inference-logits": 1}
    assert written.text == "bc"
    assert [len(answer.windows) for answer in answers] == [1, 1, 2, 0]  # the slow one answered, so it was asked again


async def test_write__says_the_last_reason_when_nobody_answers_in_time(autojump_clock: MockClock) -> None:
    async with calling_nodes(1) as (_, (us,)):
        start_s = trio.current_time()
        with pytest.raises(PeerUnavailableError, match="no next token within 60 s: nobody serves stage 0"):
            await written_by(model_of(us), wish("a", 1))
        assert trio.current_time() - start_s == pytest.approx(60)


@pytest.mark.parametrize("payload", [b"", bytes(4 * 255), bytes(4 * 257)])
async def test_write__refuses_other_than_one_logit_a_token(payload: bytes, autojump_clock: MockClock) -> None:
    async with calling_nodes(2) as (_, (us, peer)):
        answers = Answers()
        answers.payload = payload
        await peer.streams.serve(INFERENCE, answers)
        with pytest.raises(PeerUnavailableError, match="expected 256 logits"):
            await written_by(model_of(us, peer), wish("a", 1))


async def test_write__refuses_a_run_whose_tokens_are_not_bytes(autojump_clock: MockClock) -> None:
    data = DataSpec(tokenizer=TokenizerSpec(kind="file", digest=bytes(32).hex()), train=(SHARD,), heldout=(SHARD,))
    async with calling_nodes(1) as (_, (us,)):
        with pytest.raises(UserError, match="not bytes"):
            await written_by(model_of(us, spec=PLAN.with_data(data, seed=0)), wish("a", 1))


async def test_write__keeps_what_has_come_when_it_is_cancelled(autojump_clock: MockClock) -> None:
    written = Written()
    async with calling_nodes(2) as (_, (us, peer)):
        answers = Answers()
        answers.sleep_s = 1
        await peer.streams.serve(INFERENCE, answers)
        with trio.move_on_after(2.5):
            await write(model_of(us, peer), wish("a", 10), written, lambda _: None)
    assert (written.text, written.complete) == ("bc", False)
