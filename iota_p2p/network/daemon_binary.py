"""Where the libp2p daemon's executable is."""

import importlib.util
import os
import platform
import sys
from pathlib import Path

from iota_p2p_crypto.errors import UserError

_INSIDE_HIVEMIND = Path("hivemind_cli") / "p2pd"


def find_daemon(configured: Path | None = None) -> Path:
    """Return the executable: the configured one, or the one inside the installed hivemind package.

    That package is only located, never imported: importing it takes seconds and starts threads.

    Raises:
        UserError: if there is none for this machine.
    """
    if configured is not None:
        if not os.access(configured, os.X_OK):
            raise UserError(f"No executable daemon at {configured}: correct the path, or leave it out.")
        return configured
    spec = importlib.util.find_spec("hivemind")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        binary = Path(folder) / _INSIDE_HIVEMIND
        if os.access(binary, os.X_OK):
            return binary
    raise UserError(
        f"No libp2p daemon for {sys.platform} {platform.machine()}: install hivemind 1.1.12 from a wheel (Linux"
        " x86_64 or aarch64, macOS arm64 or x86_64; on Windows inside WSL), or build p2pd from"
        " github.com/learning-at-home/go-libp2p-daemon and name it with --p2pd."
    )
