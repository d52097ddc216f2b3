"""The local chain as a guest in a process, and what it keeps."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from iota_p2p.settlement.chain_log import open_chain_log
from iota_p2p.settlement.contract_client import SettlementContract
from iota_p2p.settlement.dev_chain import DevChainServer
from iota_p2p_crypto.errors import UserError
from tests.settlement.scene import OUTSIDER, TERMS, Scene, connect_to, deploy_scene, rpc, tree_of

TREE = tree_of(3)


@pytest.mark.parametrize("name", ["account", "submitter", "dev_chain"])
def test_recursion_limit__stays_pythons_own_whatever_is_imported(name: str) -> None:
    """With py_ecc's or py-evm's, JSON nested a hundred thousand deep ends the process instead of raising."""
    program = f"import sys, iota_p2p.settlement.{name}; print(sys.getrecursionlimit())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1000"]


@contextmanager
def kept_chain(path: Path) -> Iterator[str]:
    """Run a chain on a state file; yield its URL."""
    with open_chain_log(path, 16) as log, DevChainServer(log=log) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.url
        finally:
            server.shutdown()
            thread.join()


def test_state__of_a_chain_is_the_same_in_its_next_life(tmp_path: Path) -> None:
    path = tmp_path / "chain.log"
    with kept_chain(path) as url:
        scene = deploy_scene(connect_to(url))
        scene.settle(0, TREE)
        genesis = scene.w3.eth.get_block(0)["hash"]
        state, treasury = scene.contract.epoch_state(0), scene.contract.treasury()
        scene.pass_time(TERMS.dispute_s)
        scene.claim(0, TREE, 1)
        claimed = scene.contract.claimed_events()
    with path.open("ab") as file:
        file.write(b"1700000000 02f8")  # a death in the middle of a line
    with kept_chain(path) as url:
        scene = Scene(connect_to(url), SettlementContract(connect_to(url), scene.contract.address))
        assert scene.w3.eth.get_block(0)["hash"] == genesis, "journals know it by this"
        assert scene.contract.epoch_state(0).deadline_s == state.deadline_s
        assert scene.contract.treasury() == treasury
        assert scene.contract.claimed_events() == claimed
        assert scene.balance(TREE.payouts[1].account) == TREE.payouts[1].amount_wei
        assert scene.refusal(OUTSIDER, "claim", *scene.claim_arguments(0, TREE, 1)) == "claimed-already"
        scene.claim(0, TREE, 2)
    with kept_chain(path) as url:
        assert SettlementContract(connect_to(url), scene.contract.address).is_claimed(0, 2)


def test_state__goes_on_from_an_hour_ago(tmp_path: Path) -> None:
    path = tmp_path / "chain.log"
    with kept_chain(path) as url:
        scene = deploy_scene(connect_to(url))
        scene.settle(0, TREE)
        deadline_s = scene.contract.epoch_state(0).deadline_s
    head, *mined = path.read_text().splitlines()
    genesis = json.loads(head)
    pairs = [line.split() for line in mined]
    older = [json.dumps(genesis | {"genesis_s": genesis["genesis_s"] - 3600})]
    older += [f"{int(time_s) - 3600} {raw}" for time_s, raw in pairs]
    path.write_text("\n".join(older) + "\n")
    with kept_chain(path) as url:
        scene = Scene(connect_to(url), SettlementContract(connect_to(url), scene.contract.address))
        assert scene.contract.epoch_state(0).deadline_s == deadline_s - 3600
        scene.claim(0, TREE, 0)  # the dispute window has passed meanwhile


def test_state__reject_a_second_chain_on_one_file(tmp_path: Path) -> None:
    path = tmp_path / "chain.log"
    with open_chain_log(path, 16), pytest.raises(UserError, match="another chain"), open_chain_log(path, 16):
        pass


def test_state__reject_another_kind_of_file(tmp_path: Path) -> None:
    path = tmp_path / "chain.log"
    for text in ("hello\n", "[]\n", '{"genesis_s": 1}\n', '{"genesis_s": 1, "accounts": 2}\nx y\n'):
        path.write_text(text)
        with pytest.raises(UserError, match="is not the state"), open_chain_log(path, 16):
            pass


def test_state__reject_turning_back_on_a_kept_chain(tmp_path: Path) -> None:
    with kept_chain(tmp_path / "chain.log") as url, pytest.raises(AssertionError, match="error"):
        rpc(connect_to(url), "evm_snapshot")
