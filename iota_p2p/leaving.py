"""The one place where a peer's process ends without Python taking itself apart."""

import logging
import os
import sys
from typing import NoReturn

from iota_p2p.cli.exit_codes import INTERRUPTED


def leave_at_once() -> NoReturn:
    """End an interrupted peer's process now; what was said is written out first.

    A peer calls this when all it owns is closed, or has had its time. Python would go on to take torch apart, which
    costs 0.6 s of a core, ten seconds on a badly overloaded machine; a thread that still imports torch can crash
    while that happens; and a thread that computes would be waited for. The system closes our files, gives the home
    free and breaks the connection that keeps the daemon alive (`network.daemon_process`), as after a kill -9.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(INTERRUPTED)
