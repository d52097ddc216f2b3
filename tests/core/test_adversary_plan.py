"""Which peers of a testnet cheat."""

import pytest

from iota_p2p_crypto.errors import UserError
from iota_p2p_testnet.adversary_plan import NAMES, plan_adversaries
from iota_p2p_testnet.merge_adversaries import NAMES as MERGE_NAMES
from iota_p2p_testnet.validator_adversaries import VALIDATOR_KINDS
from iota_p2p_testnet.work_adversaries import WORK_KINDS


def test_plan__turns_the_last_peers_bad() -> None:
    """The first peer founds the network and stays honest."""
    assert plan_adversaries(["nan=2", "scaled"], 8) == {8: "nan", 7: "nan", 6: "scaled"}
    assert plan_adversaries([], 3) == {}


@pytest.mark.parametrize("text", ["someone=1", "nan=x", "nan=-1", "nan=99999", "=2", ""])
def test_plan__refuses_what_it_does_not_know(text: str) -> None:
    """And says what there is."""
    with pytest.raises(UserError, match="NAME of bad-reducer"):
        plan_adversaries([text], 8)


def test_plan__leaves_somebody_honest() -> None:
    """A network of cheats shows nothing."""
    with pytest.raises(UserError, match="at least one must be honest"):
        plan_adversaries(["nan=4", "scaled=4"], 8)


def test_names__are_those_of_the_cheats() -> None:
    """The launcher must not import what imports torch to know them."""
    assert set(NAMES) == MERGE_NAMES | WORK_KINDS.keys() | VALIDATOR_KINDS.keys()
