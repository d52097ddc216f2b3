"""Checks of the home folder: can it be written, is its key usable, does another process hold it."""

import os
from pathlib import Path

from iota_p2p.doctor.finding import Finding, Status
from iota_p2p.doctor.machine import nearest_existing
from iota_p2p.home_lock import is_home_locked
from iota_p2p.key_store import load_key
from iota_p2p_crypto.errors import UserError
from iota_p2p_crypto.identity import Identity
from iota_p2p_crypto.keyfile import KeyFileError, PassphraseError


def check_home(home: Path) -> Finding:
    """D102: the home folder can be written, or made."""
    try:
        folder = nearest_existing(home)
    except OSError as error:
        return Finding("D102", Status.FAIL, f"{home} cannot be entered: {error.strerror}", _own(home))
    if not folder.is_dir():
        return Finding("D102", Status.FAIL, f"{folder} is not a folder", "choose a folder with --home")
    if not os.access(folder, os.W_OK | os.X_OK):
        return Finding("D102", Status.FAIL, f"{folder} cannot be written by this user", _own(folder))
    return Finding("D102", Status.OK, f"{home}" if folder == home else f"{home} does not exist yet and can be made")


def _own(folder: Path) -> str:
    return f"run 'sudo chown -R $(id -u) {folder}', or choose another folder with --home"


def check_identity(key_path: Path) -> tuple[Finding, Identity | None]:
    """D103: the identity key can be read; returns it if that needs no passphrase."""
    if not key_path.exists():
        cause = f"no key at {key_path} yet: 'iota-p2p peer' makes one; a throw-away identity serves this examination"
        return Finding("D103", Status.OK, cause), None
    try:
        identity = load_key(key_path)
    except PassphraseError:
        cause = f"skipped because {key_path} is encrypted; a throw-away identity serves this examination"
        return Finding("D103", Status.SKIPPED, cause), None
    except KeyFileError as error:
        fix = f"restore {key_path} from your copy, or move it away and run 'iota-p2p key new --out {key_path}'"
        return Finding("D103", Status.FAIL, str(error), fix), None
    except UserError as error:
        ours = key_path.stat().st_uid == os.geteuid()
        fix = f"run '{'' if ours else f'sudo chown $(id -u) {key_path}; '}chmod 600 {key_path}'"
        return Finding("D103", Status.FAIL, str(error), fix), None
    return Finding("D103", Status.OK, f"{identity.peer_id} in {key_path}"), identity


def check_lock(home: Path) -> Finding:
    """D104: no other process works in this home."""
    if is_home_locked(home):
        cause = (
            f"another process, most likely a running peer, holds {home}; a throw-away identity serves this examination"
        )
        fix = "nothing, if it is your peer and it is well; to start a second one, give it its own --home"
        return Finding("D104", Status.WARN, cause, fix)
    return Finding("D104", Status.OK, f"no process holds {home}")
