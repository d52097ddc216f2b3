"""Where a peer keeps its files."""

import os
from pathlib import Path

KEY_FILE_NAME = "identity.pem"


def default_home() -> Path:
    """Return IOTA_P2P_HOME if it is set, else ~/.iota-p2p; the only environment variable we read."""
    return Path(os.environ.get("IOTA_P2P_HOME") or Path.home() / ".iota-p2p")


def key_path(home: Path | None) -> Path:
    """Return the path of the identity key in a home folder."""
    return (home or default_home()) / KEY_FILE_NAME
