"""Key files on a real disk; their contents are tested in `test_keyfile`."""

import os
import stat
from pathlib import Path

import pytest

from iota_p2p.key_store import create_key, load_key, peer_id_of_key, read_key_file
from iota_p2p_crypto.errors import UserError
from iota_p2p_crypto.keyfile import MAX_KEY_FILE_BYTES, KeyFileError, PassphraseError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "identity.pem"


def test_key__comes_back_as_it_was_created(path: Path) -> None:
    created = create_key(path)
    assert load_key(path).seed == created.seed
    assert peer_id_of_key(path) == created.peer_id


def test_key__is_for_its_owner_only_and_leaves_nothing_beside_it(path: Path) -> None:
    before = os.umask(0)  # the most careless setting there is
    try:
        create_key(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_existing_file__is_not_overwritten(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"precious")
    with pytest.raises(UserError, match="exists and is not overwritten"):
        create_key(path)
    assert path.read_bytes() == b"precious"
    assert list(path.parent.iterdir()) == [path]


def test_dangling_link__is_not_followed(path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(path.parent / "elsewhere")
    with pytest.raises(UserError, match="exists"):
        create_key(path)
    assert not (path.parent / "elsewhere").exists()


def test_create__is_refused_when_the_folder_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot use the folder"):
        create_key(tmp_path / "file" / "identity.pem")


def test_passphrase__is_needed_to_load_but_not_to_name(path: Path) -> None:
    created = create_key(path, b"open sesame")
    assert load_key(path, b"open sesame").seed == created.seed
    assert peer_id_of_key(path) == created.peer_id
    for wrong in (None, b"open sesam"):
        with pytest.raises(PassphraseError, match=str(path)):
            load_key(path, wrong)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_key_that_others_may_use__is_not_read(path: Path, mode: int) -> None:
    create_key(path)
    path.chmod(mode)
    for read in (load_key, peer_id_of_key):
        with pytest.raises(UserError, match=f"mode {mode:04o}.*chmod 600"):
            read(path)


def test_missing_key__is_refused_with_the_verb_that_makes_one(path: Path) -> None:
    with pytest.raises(UserError, match="iota-p2p key new --out"):
        load_key(path)


def test_folder__is_no_key(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        load_key(tmp_path)


def test_link_to_a_private_key__is_read(path: Path) -> None:
    created = create_key(path)
    link = path.parent / "link.pem"
    link.symlink_to(path)
    assert load_key(link).peer_id == created.peer_id


@pytest.mark.parametrize("how", ["empty", "garbage", "truncated"])
def test_damaged_key__is_refused_by_name(path: Path, how: str) -> None:
    create_key(path)
    data = path.read_bytes()
    path.write_bytes({"empty": b"", "garbage": b"\x00" * 64, "truncated": data[: len(data) // 2]}[how])
    for read in (load_key, peer_id_of_key):
        with pytest.raises(KeyFileError, match=str(path)):
            read(path)


def test_huge_file__is_read_to_its_bound_only(path: Path) -> None:
    create_key(path)
    with path.open("ab") as file:
        file.truncate(10 * MAX_KEY_FILE_BYTES)
    assert len(read_key_file(path)) == MAX_KEY_FILE_BYTES + 1
    with pytest.raises(KeyFileError):
        load_key(path)
