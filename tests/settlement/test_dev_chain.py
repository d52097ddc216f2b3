"""The local chain as a guest in a process."""

import sys

from iota_p2p.settlement import dev_chain


def test_recursion_limit__stays_pythons_own_when_the_chain_is_imported() -> None:
    """With py-evm's, JSON nested a hundred thousand deep ends the process instead of raising."""
    assert dev_chain.DEFAULT_ACCOUNTS > 0
    assert sys.getrecursionlimit() < 10_000
