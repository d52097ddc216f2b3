"""Replay: from a stage's first weights of an epoch, its work log and the payloads the log names, to its last weights.

The same code as in training runs in the same order, so on the same platform the result is the same to the last bit.
That also goes for microbatches under way when the epoch began: their forwards stand in its log again.
"""

from collections.abc import Callable

import torch

from iota_p2p.model.compute import Held, StageCompute
from iota_p2p.run.data import RunData
from iota_p2p_crypto.errors import PeerUnavailableError
from iota_p2p_protocols.work_log import Backward, Forward, WorkLog

FindPayload = Callable[[bytes], bytes | None]


def replay(compute: StageCompute, log: WorkLog, data: RunData, find: FindPayload) -> None:
    """Do everything in a log again, on a stage that stands where it stood when the epoch began.

    Args:
        compute: the stage of the run's seed (which its fixed tables come from), restored from its state at the epoch's
            first moment; changed in place.
        log: what is to be done, checked as `WorkLog.from_bytes` checks it.
        data: the run's tokens.
        find: returns a payload by its digest, or None.

    Raises:
        PeerUnavailableError: if a payload is not there.
        MalformedError, DivergedError: if a payload is not what this stage works on.
    """
    held: dict[int, Held] = {}
    num_summed = 0
    for position, entry in enumerate(log.entries):
        if isinstance(entry, Forward):
            window_BT1 = torch.from_numpy(data.training_window(entry.microbatch))
            payload = None if compute.stage.is_first else _found(find, entry.in_digest)
            held[position] = compute.forward(window_BT1, payload)
        elif isinstance(entry, Backward):
            gradient = None if compute.stage.is_last else _found(find, entry.in_digest)
            compute.backward(held.pop(entry.forward), gradient)
            num_summed += 1
        else:
            compute.step(num_summed)
            num_summed = 0


def _found(find: FindPayload, name: bytes) -> bytes:
    payload = find(name)
    if payload is None:
        raise PeerUnavailableError(f"expected the payload {name.hex()[:16]} that the log names, got none")
    return payload
