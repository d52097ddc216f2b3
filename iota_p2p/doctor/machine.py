"""Checks of this machine: the daemon's executable, disk, memory, torch."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import trio

from iota_p2p.doctor.finding import Finding, Status
from iota_p2p.network.daemon_binary import find_daemon
from iota_p2p_crypto.errors import UserError

_MIB = 2**20
# Below the first, logs and checkpoints will soon fail; the second holds two checkpoints of a stage of 200 million
# parameters (4 bytes of weight and 8 of optimizer state each).
MIN_DISK_BYTES, GOOD_DISK_BYTES = 512 * _MIB, 5 * 1024 * _MIB
# A small stage with its daemon was measured at 415 MB (347 and 68).
MIN_MEMORY_BYTES, GOOD_MEMORY_BYTES = 512 * _MIB, 2048 * _MIB

# A flag of the daemon that no other program has; it prints all of them when asked for help.
_DAEMON_MARK = b"-forceReachabilityPrivate"
_TORCH_SCRIPT = """\
import torch
device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
print(torch.__version__, device)
"""


async def check_daemon(configured: Path | None) -> Finding:
    """D101: the daemon's executable is there and is one for this machine."""
    try:
        binary = find_daemon(configured)
    except UserError as error:
        fix = (
            "correct --p2pd, or leave it out"
            if configured
            else f"run '{sys.executable} -m pip install hivemind==1.1.12'"
        )
        return Finding("D101", Status.FAIL, str(error), fix)
    fix = f"run '{sys.executable} -m pip install --force-reinstall --no-deps hivemind==1.1.12'"
    if configured:
        fix = "name a p2pd built for this machine with --p2pd, or leave it out"
    try:
        done = await trio.run_process([str(binary), "-help"], capture_stdout=True, capture_stderr=True, check=False)
    except OSError as error:
        return Finding("D101", Status.FAIL, f"{binary} cannot be run: {error.strerror}", fix)
    if _DAEMON_MARK not in done.stdout + done.stderr:
        return Finding("D101", Status.FAIL, f"{binary} runs, but is not the libp2p daemon", fix)
    return Finding("D101", Status.OK, str(binary))


def check_disk(home: Path) -> Finding:
    """D105: the disk of the home folder has room."""
    folder = nearest_existing(home)
    return judge_disk(folder, shutil.disk_usage(folder).free)


def nearest_existing(path: Path) -> Path:
    """Return the path itself or the first of its parents that exists."""
    return next(candidate for candidate in (path, *path.absolute().parents) if candidate.exists())


def judge_disk(folder: Path, free_bytes: int) -> Finding:
    """Say whether so many free bytes suffice."""
    cause = f"{free_bytes // _MIB} MiB free for {folder}"
    fix = f"free at least {GOOD_DISK_BYTES // _MIB} MiB there, or choose a folder on another disk with --home"
    if free_bytes < MIN_DISK_BYTES:
        return Finding("D105", Status.FAIL, cause, fix)
    if free_bytes < GOOD_DISK_BYTES:
        return Finding("D105", Status.WARN, cause, fix)
    return Finding("D105", Status.OK, cause)


def check_memory() -> Finding:
    """D106: memory for a stage is available now."""
    available_bytes = _available_memory_bytes(Path("/proc/meminfo"))
    if available_bytes is None:
        return Finding("D106", Status.SKIPPED, f"skipped because {sys.platform} does not tell how much is available")
    return judge_memory(available_bytes)


def _available_memory_bytes(meminfo: Path) -> int | None:
    """Return what Linux says is available to new programs; elsewhere all memory there is; None if unknown."""
    if meminfo.exists():
        for line in meminfo.read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return int(value.removesuffix("kB")) * 1024
    if "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def judge_memory(available_bytes: int) -> Finding:
    """Say whether so much available memory suffices."""
    cause = f"{available_bytes // _MIB} MiB of memory available"
    fix = f"end other programs until {GOOD_MEMORY_BYTES // _MIB} MiB are available, or use a machine with more memory"
    if available_bytes < MIN_MEMORY_BYTES:
        return Finding("D106", Status.FAIL, cause, fix)
    if available_bytes < GOOD_MEMORY_BYTES:
        return Finding("D106", Status.WARN, cause, fix)
    return Finding("D106", Status.OK, cause)


async def check_torch(python: Sequence[str] = (sys.executable, "-P")) -> Finding:
    """D107: torch can be imported; says the device it would use.

    In a process of its own: a broken CUDA installation can crash or hang the one that imports torch, and killing
    it is then possible. `python` is the interpreter with its options.
    """
    done = await trio.run_process([*python, "-c", _TORCH_SCRIPT], capture_stdout=True, capture_stderr=True, check=False)
    if done.returncode:
        last_line = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        cause = f"torch cannot be imported: {last_line or f'the process ended with {done.returncode}'}"
        return Finding("D107", Status.FAIL, cause, f"run '{python[0]} -m pip install --force-reinstall torch==2.13.0'")
    version, _, device = done.stdout.decode(errors="replace").strip().rpartition(" ")
    return Finding("D107", Status.OK, f"{device} (torch {version})")
