"""What every test shares: its flags and one hypothesis profile."""

import pytest
from hypothesis import settings

# Shared machines pause for longer than any deadline; a property that is really slow shows in the test's own time.
settings.register_profile("iota", deadline=None)
settings.load_profile("iota")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-vectors",
        action="store_true",
        help="regenerate the generated files under protocols/vectors before running them",
    )
    parser.addoption("--rpc", metavar="URL", help="run tests/settlement against this EVM test chain, not our own")
