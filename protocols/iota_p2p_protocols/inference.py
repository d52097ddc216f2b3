"""Inference: a forward pass through the network's current stages, on `/iota-p2p/inference/1`.

For the held-out loss and for generating text. Like activation it is a nested call, but nothing comes back except
the last stage's result, nothing is signed and nobody is paid: it tells people how the model does.
"""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from iota_p2p_protocols.errors import MalformedError
from iota_p2p_protocols.loss_record import MAX_LOSS_MICRONATS
from iota_p2p_protocols.message import Count, Message
from iota_p2p_protocols.microbatch import Stage

TOKEN_BYTES = 4  # unsigned, little-endian: any vocabulary we allow
LOGIT_BYTES = 4  # float32, little-endian
MAX_PROMPT_TOKENS = 16 * 1024  # 64 KiB of header; longer contexts than any run we ship trains on


class HeldoutRequest(Message):
    """Ask for the loss on a batch of held-out text, which everybody has; the encoded activation follows.

    Attributes:
        heldout: index of the batch.
        stage: the stage that is asked.
    """

    heldout: Annotated[int, Field(ge=0, lt=2**32)]
    stage: Stage


class PromptRequest(Message):
    """Ask for the logits of the token after these; the encoded activation follows.

    Attributes:
        tokens: the text so far, TOKEN_BYTES each.
        stage: the stage that is asked.
    """

    tokens: Annotated[bytes, Field(min_length=TOKEN_BYTES, max_length=MAX_PROMPT_TOKENS * TOKEN_BYTES)]
    stage: Stage


class InferenceResponse(Message):
    """The last stage's result, passed up unchanged: a loss, or logits as payload (float32, little-endian).

    Attributes:
        kind: which of the two.
        loss_micronats: mean loss per token in millionths of a nat; 0 beside logits.
    """

    kind: Literal["loss", "logits"]
    loss_micronats: Count = 0


def parse_request(fields: dict[str, object], payload: bytes) -> HeldoutRequest | PromptRequest:
    """Return the request in a header, with its activation beside it; raises MalformedError."""
    header = HeldoutRequest.from_fields(fields) if "heldout" in fields else PromptRequest.from_fields(fields)
    # [inference-payload] an activation comes to every stage but the first; its length is the boundary's to check
    if bool(payload) != (header.stage > 0):
        raise MalformedError("inference-payload", f"expected a payload after stage 0, got {len(payload)} bytes")
    return header


def check_response(request: HeldoutRequest | PromptRequest, fields: object, payload: bytes, vocab_size: int) -> None:
    """Check that an answer is one to what was asked; raises MalformedError."""
    answer = InferenceResponse.from_fields(fields)
    if isinstance(request, HeldoutRequest):
        # [inference-loss] it is a loss that there can be
        if answer.kind != "loss" or answer.loss_micronats > MAX_LOSS_MICRONATS or payload:
            raise MalformedError("inference-loss", f"expected a loss, got {answer}")
        return
    # [inference-logits] it is one finite number for each token of the vocabulary
    if answer.kind != "logits" or len(payload) != LOGIT_BYTES * vocab_size:
        raise MalformedError("inference-logits", f"expected {vocab_size} logits, got {len(payload)} bytes")
    if not np.isfinite(np.frombuffer(payload, "<f4")).all():
        raise MalformedError("inference-logits", "expected finite logits, got some that are not")


def pack_tokens(tokens: list[int]) -> bytes:
    """Return token ids as bytes."""
    return b"".join(token.to_bytes(TOKEN_BYTES, "little") for token in tokens)


def unpack_tokens(data: bytes, *, vocab_size: int, sequence_length: int) -> list[int]:
    """Return a prompt's token ids; raises MalformedError if they are too many, or one is not in the vocabulary."""
    if len(data) % TOKEN_BYTES:
        raise MalformedError("prompt-length", f"expected {TOKEN_BYTES} bytes a token, got {len(data)} bytes")
    tokens = [int.from_bytes(data[at : at + TOKEN_BYTES], "little") for at in range(0, len(data), TOKEN_BYTES)]
    if not 0 < len(tokens) <= sequence_length:
        raise MalformedError("prompt-length", f"expected 1 to {sequence_length} tokens, got {len(tokens)}")
    if max(tokens) >= vocab_size:
        raise MalformedError("prompt-vocabulary", f"expected tokens below {vocab_size}, got {max(tokens)}")
    return tokens
