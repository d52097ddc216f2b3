"""Writing on: a prompt goes in, and text comes out token by token until there is enough of it."""

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import trio

from iota_p2p.generation.byte_text import BYTE_VALUES, ByteText, prompt_tokens
from iota_p2p.generation.remote_model import RemoteModel
from iota_p2p.generation.sampling import Sampling
from iota_p2p.generation.visit import visit_network
from iota_p2p_crypto.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class TextWish:
    """What the user asked for; see the help of `iota-p2p generate` for each."""

    prompt: str
    bootstrap: Sequence[str]
    num_tokens: int
    sampling: Sampling
    seed: int | None
    timeout_s: float


@dataclass(slots=True)
class Written:
    """What has come so far.

    Attributes:
        run_id: of the run whose model wrote it; None before that is known.
        tokens: those written, without the prompt's.
        text: what they say.
        seconds: they took.
        complete: False if it was interrupted.
    """

    run_id: bytes | None = None
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    seconds: float = 0.0
    complete: bool = False


async def write_until_interrupted(wish: TextWish, show: Callable[[str], None]) -> Written:
    """Write on from a prompt, showing each piece of text as it comes, until there is enough or Ctrl-C.

    Raises:
        UserError: if an address is none, or the run's tokens are not bytes.
        PeerUnavailableError: if the network cannot be reached, has no run, or lacks a stage.
    """
    written = Written()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def wait_for_signal() -> None:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(wait_for_signal)
            async with visit_network(wish.bootstrap, wish.timeout_s) as model:
                await write(model, wish, written, show)
            nursery.cancel_scope.cancel()
    return written


async def write(model: RemoteModel, wish: TextWish, written: Written, show: Callable[[str], None]) -> None:
    """Ask a model for one token after the other; `written` holds what has come whenever this is cancelled."""
    spec = model.spec
    if spec.data.tokenizer.kind != "bytes" or spec.model.vocab_size > BYTE_VALUES:
        raise UserError(f"the tokens of run {spec.run_id.hex()} are not bytes, and text can be had of bytes only")
    written.run_id = spec.run_id
    rng, letters = np.random.default_rng(wish.seed), ByteText()
    tokens = prompt_tokens(wish.prompt)
    show(wish.prompt)
    start_s = trio.current_time()
    for _ in range(wish.num_tokens):
        token = wish.sampling.choose(await model.next_logits(tokens), rng)
        tokens.append(token)
        written.tokens.append(token)
        written.seconds = trio.current_time() - start_s
        _add(written, letters.add(token), show)
    _add(written, letters.end(), show)
    written.complete = True


def _add(written: Written, piece: str, show: Callable[[str], None]) -> None:
    if piece:
        written.text += piece
        show(piece)
