"""Ctrl-C before a command has begun: it is still importing, which takes seconds on a busy machine."""

import subprocess
import sys

import pytest

# Interrupts itself in the middle of what `iota-p2p peer` imports. A shell that runs the tests in the background ignores
# Ctrl-C on behalf of all its children; a user's does not.
PROGRAM = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)

class Interrupter:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupter())
from iota_p2p.cli.main import main
main()
"""


@pytest.mark.parametrize("module", ["typer", "iota_p2p.cli.peers", "iota_p2p.peer_process"])
def test_interrupt__exits_130_without_a_traceback_while_importing(module: str) -> None:
    command = [sys.executable, "-c", PROGRAM.format(module=module), "peer"]
    done = subprocess.run(command, check=False, capture_output=True, timeout=120)
    assert (done.returncode, done.stdout) == (130, b"")
    assert b"Traceback" not in done.stderr
