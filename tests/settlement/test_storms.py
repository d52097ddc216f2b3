"""Deaths, outages, lost answers and reorganisations in random order, of a payment that nothing but the journal guards.

Paying in is the one call that the contract takes any number of times: if the client ever made it twice, it would show.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
import requests

from iota_p2p.settlement.errors import ChainError
from tests.settlement.faults import Client, Killed
from tests.settlement.scene import ETHER, OUTSIDER, POT, Scene, rpc

GIFT = ETHER // 7
LIVES = 12
DEATHS, OUTAGES, REORGANISATIONS = 0.04, 0.10, 0.04  # shares of the steps; some forty make a payment


class Storm:
    """What happens at the steps of a client: nothing, mostly."""

    def __init__(self, random: Random, turn_back: Callable[[], None]) -> None:
        self._random = random
        self._turn_back = turn_back

    def __call__(self, step: str) -> None:
        draw = self._random.random()
        if draw < DEATHS:
            raise Killed
        if draw < DEATHS + OUTAGES and step.startswith("eth_"):
            raise requests.ConnectionError("reset")
        if 1 - draw < REORGANISATIONS:
            self._turn_back()


def pay_in_a_storm(scene: Scene, url: str, journal: Path, seed: int) -> None:
    random = Random(seed)  # noqa: S311 - a seeded test
    snapshots = [rpc(scene.w3, "evm_snapshot")]

    def turn_back() -> None:
        rpc(scene.w3, "evm_revert", snapshots.pop())
        snapshots.append(rpc(scene.w3, "evm_snapshot"))

    storm = Storm(random, turn_back)
    for _ in range(LIVES):
        with (
            suppress(Killed, ChainError),
            Client(url, scene.contract.address, OUTSIDER, journal, before=storm, after=storm, polls=8) as client,
        ):
            client.contract.fund(client.submitter, GIFT, "gift")
    with Client(url, scene.contract.address, OUTSIDER, journal) as client:
        client.contract.fund(client.submitter, GIFT, "gift")
    assert scene.contract.treasury().pot_wei == POT + GIFT


@pytest.mark.parametrize("seed", range(3))
def test_payment__is_made_once_in_a_storm(scene: Scene, rpc_url: str, tmp_path: Path, seed: int) -> None:
    pay_in_a_storm(scene, rpc_url, tmp_path / "settlement.sqlite", seed)


@pytest.mark.slow
def test_payment__is_made_once_in_many_storms(scene: Scene, rpc_url: str, tmp_path: Path) -> None:
    for seed in range(3, 43):
        snapshot = rpc(scene.w3, "evm_snapshot")
        pay_in_a_storm(scene, rpc_url, tmp_path / f"{seed}.sqlite", seed)
        rpc(scene.w3, "evm_revert", snapshot)
