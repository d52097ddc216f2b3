"""`iota-p2p generate` against real peers that train the tiny run."""

import json
import signal
import subprocess
from pathlib import Path

import pytest
import trio

from iota_p2p.run.configs import find_config
from iota_p2p.run.founding import found_run
from iota_p2p.run.plan_file import load_plan
from iota_p2p.run.shards import ShardStore
from iota_p2p.run.tokens import ByteTokenizer
from iota_p2p_crypto.identity import Identity
from tests.net.peer_processes import COMMAND, PeerProcess, Swarm, open_swarm

pytestmark = pytest.mark.net

NOBODY = "/ip4/127.0.0.1/tcp/9/p2p/" + Identity.from_seed(bytes(32)).peer_id


async def trains(peer: PeerProcess) -> None:
    """Wait until a peer has seen microbatches home."""
    await peer.hears(
        lambda events: any(event["event"] == "status" and event["tokens"] > 0 for event in events), timeout_s=40
    )


def make_run(swarm: Swarm, name: str) -> Path:
    """Write a small run's spec, and its shards into the home of the peer that starts it."""
    documents = [f"def function_{number}(argument):\n    return argument\n" * 20 for number in range(64)]
    store = ShardStore(swarm.folder / name / "shards")
    spec = found_run(load_plan(find_config("tiny")), documents, ByteTokenizer(), store, seed=0)
    path = swarm.folder / "tiny.run"
    path.write_bytes(spec.to_bytes())
    return path


async def test_generate__writes_text_with_the_model_of_two_peers_and_stops_at_once_on_ctrl_c() -> None:
    async with open_swarm() as swarm:
        run = make_run(swarm, "first")
        first = await swarm.start("first", "--run", str(run), "--threads", "1")
        await trains(first)
        second = await swarm.start("second", "--threads", "1", bootstrap=[first.address])
        await second.hears(lambda events: any(e["event"] == "working" for e in events), timeout_s=40)
        steps = ["data", "speed", "stage", "working"]  # of a joiner's start, as it says them
        assert [one for one in dict.fromkeys(e["event"] for e in second.events) if one in steps] == steps

        asked = ("generate", "def ", "--tokens", "3", "--temperature", "0")
        status, output, errors = await swarm.run(*asked, "--bootstrap", second.address, "--json")
        assert (status, errors) == (0, "")
        written = json.loads(output)
        assert len(written["tokens"]) == 3
        assert written["complete"] is True
        assert bytes(written["tokens"]).decode(errors="replace") == written["text"]

        command = [*COMMAND, "generate", "def ", "--tokens", "100000", "--bootstrap", first.address]
        process = await trio.lowlevel.open_process(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=swarm.environment()
        )
        assert process.stdout is not None
        assert process.stderr is not None
        with trio.fail_after(30):
            shown = b""
            while len(shown) < len(b"def ") + 1:
                shown += await process.stdout.receive_some()
        assert shown.startswith(b"def ")
        process.send_signal(signal.SIGINT)
        with trio.fail_after(3):
            assert await process.wait() == 130
        assert await process.stderr.receive_some() == b""


async def test_generate__says_so_when_the_network_trains_no_run() -> None:
    async with open_swarm() as swarm:
        peer = await swarm.start("peer")
        status, output, errors = await swarm.run("generate", "def ", "--bootstrap", peer.address)
        assert (status, output) == (1, "")
        assert errors == "iota-p2p: this network trains no run: there is no model to ask\n"


async def test_generate__names_the_stages_that_are_missing() -> None:
    async with open_swarm() as swarm:
        run = make_run(swarm, "peer")
        # Room for one stage of about 100 MiB, so three are held by nobody.
        peer = await swarm.start("peer", "--run", str(run), "--threads", "1", "--memory", "130")
        await peer.hears(
            lambda events: any(e["event"] == "status" and any(s["serving"] for s in e["stages"]) for e in events),
            timeout_s=40,
        )
        status, output, errors = await swarm.run("generate", "def ", "--bootstrap", peer.address, "--timeout", "5")
        assert (status, output) == (1, "")
        assert errors.startswith("iota-p2p: nobody serves stages")
        assert errors.count("\n") == 1


async def test_generate__says_why_in_one_line_when_nobody_answers() -> None:
    async with open_swarm() as swarm:
        status, output, errors = await swarm.run("generate", "a", "--bootstrap", NOBODY, "--timeout", "1")
        assert (status, output) == (1, "")
        assert errors.startswith(f"iota-p2p: no peer answered: {NOBODY}: ")
        assert errors.count("\n") == 1


async def test_generate__usage_error_when_the_address_is_none() -> None:
    async with open_swarm() as swarm:
        status, output, errors = await swarm.run("generate", "a", "--bootstrap", "localhost:4001")
        assert (status, output) == (2, "")
        assert errors.count("\n") == 1
