"""Run ids as they are typed."""

from iota_p2p_crypto.errors import UserError
from iota_p2p_protocols.ids import RUN_ID_BYTES


def parse_run_id(text: str) -> bytes:
    """Return the run id in hex digits from a command line; raises UserError if it is none."""
    try:
        run_id = bytes.fromhex(text)
    except ValueError as error:
        raise UserError(f"expected a run id of {2 * RUN_ID_BYTES} hex digits, got {text!r:.80}") from error
    if len(run_id) != RUN_ID_BYTES:
        raise UserError(f"expected a run id of {2 * RUN_ID_BYTES} hex digits, got {len(text)} characters")
    return run_id
