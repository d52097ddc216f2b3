"""Payouts on an EVM chain: the contract, its client, and a local chain. All but this file needs the extra."""

import sys
from importlib import import_module
from importlib.util import find_spec

RECURSION_LIMIT = 1000  # Python's own

# The Ethereum libraries import py_ecc, which raises the interpreter's limit a hundredfold for pairings that we never
# compute. With a limit that high, JSON nested deeply enough ends the whole process by a segmentation fault instead of
# an error, and an RPC may send any. It is raised when py_ecc is first imported: so that is here, and taken back.
if find_spec("py_ecc") is not None:
    import_module("py_ecc")
    sys.setrecursionlimit(RECURSION_LIMIT)
