"""`iota-p2p`: the first lines of the command, which can be interrupted before anything else is imported."""

import sys

from iota_p2p.cli.exit_codes import INTERRUPTED


def main() -> None:
    """Run the command; Ctrl-C while it still imports, which takes seconds on a busy machine, leaves no traceback."""
    try:
        from iota_p2p.cli.commands import run_command

        run_command()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
