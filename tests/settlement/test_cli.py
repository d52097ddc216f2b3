"""The verbs of settlement as their users call them, from keys to an audited contract."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from iota_p2p.cli import chain_access
from iota_p2p.cli.commands import app
from iota_p2p.key_store import create_key, load_key
from iota_p2p.settlement.dev_chain import dev_accounts
from iota_p2p_crypto.errors import UserError
from iota_p2p_crypto.identity import Identity, peer_id_to_bytes
from iota_p2p_protocols.message import seal_message
from iota_p2p_protocols.scoring.result import EpochResult
from iota_p2p_protocols.settlement.payout_tree import WEI_PER_UNIT
from tests.settlement.scene import ETHER, connect_to, rpc

RUN_ID = "ab" * 32
SHARES = (500, 300, 199, 1)
NUM_HOMES = 4


def iota(*words: object, typed: str = "") -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], input=typed)


def said(*words: object) -> Any:
    result = iota(*words, "--json")
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


def make_homes(folder: Path) -> list[Path]:
    """Homes of four peers, each with an identity and one of the chain's funded accounts."""
    homes = [folder / f"home{index}" for index in range(NUM_HOMES)]
    for home, account in zip(homes, dev_accounts()[8:], strict=False):
        create_key(home / "identity.pem")
        (home / "account.key").write_text(account.key)
        (home / "account.key").chmod(0o600)
    return homes


def write_result(path: Path, identities: list[Identity], epoch: int = 0) -> Path:
    ordered = sorted(zip((one.peer_id for one in identities), SHARES, strict=True), key=_by_peer)
    result = EpochResult(
        run_id=bytes.fromhex(RUN_ID),
        sequence=epoch,
        issued_s=2**40 - 2**20,  # after every binding
        expires_s=2**40,
        epoch=epoch,
        seed=bytes(32),
        records=(bytes(32),),
        pot=sum(SHARES),
        payouts=tuple((peer_id, 2 * share, share) for peer_id, share in ordered),
    )
    path.write_bytes(seal_message(result, *identities[:3]))
    return path


def _by_peer(row: tuple[Any, int]) -> bytes:
    return peer_id_to_bytes(row[0])


@pytest.mark.usefixtures("scene")
def test_settlement__from_keys_to_an_audited_contract(
    rpc_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    homes = make_homes(tmp_path)
    identities = [load_key(home / "identity.pem") for home in homes]
    files = [write_result(tmp_path / "result", identities)]
    terms = ("--bond", ETHER, "--min-seats", 3, "--dispute", 60, "--withdrawal", 120)
    first = ("--rpc", rpc_url, "--home", homes[0])
    contract = said("chain", "deploy", *first, "--run-id", RUN_ID, *terms)["contract"]
    assert said("chain", "deploy", *first, "--run-id", RUN_ID, *terms)["contract"] == contract, "once"
    at = ("--rpc", rpc_url, "--contract", contract)
    for home in homes:
        assert iota("chain", "register", *at, "--home", home).exit_code == 0
    for _ in range(2):  # the same purpose: paid once
        funded = iota("chain", "fund", *at, "--home", homes[0], "--amount", 10**15, "--purpose", "start")
        assert funded.stdout == f"pot  {10**15:,} wei\n"

    for index, home in enumerate(homes):
        monkeypatch.setenv("IOTA_P2P_HOME", str(home))
        files.append(tmp_path / f"binding{index}")
        bound = said("key", "payout", "--run-id", RUN_ID, "--out", files[-1])
        assert (bound["peer_id"], bound["account"]) == (identities[index].peer_id, dev_accounts()[8 + index].address)

    settle = ("settle", *files, "--epoch", 0, *at)
    assert "needs the votes of 3" in str(iota(*settle, "--home", homes[0]).exception)
    votes = [tmp_path / f"vote{index}" for index in range(3)]
    for home, vote in zip(homes, votes, strict=False):
        assert iota(*settle, "--home", home, "--vote", vote).exit_code == 0
    settle = ("settle", *files, *votes, "--epoch", 0, *at)
    assert said(*settle, "--home", homes[0])["by_us"] is True
    assert said(*settle, "--home", homes[1])["by_us"] is False
    assert iota("chain", "show", *at).exit_code == 0

    claim = ("claim", *files, *at, "--home", homes[3])
    assert "0" in said(*claim)["waiting"], "the dispute window is open"
    for method, *params in (("evm_increaseTime", 60), ("evm_mine",)):
        rpc(connect_to(rpc_url), str(method), *params)
    assert said(*claim) == {"claims_paid": 1, "paid_wei": 1 * WEI_PER_UNIT, "waiting": {}}
    assert said(*claim, "--everybody")["paid_wei"] == (sum(SHARES) - 1) * WEI_PER_UNIT
    assert said(*claim, "--everybody")["claims_paid"] == 0, "nobody is paid twice"

    audited = said("audit", "chain", *files, *at)
    assert audited == {
        "epochs_settled": 1,
        "claims_paid": NUM_HOMES,
        "total_paid": sum(SHARES) * WEI_PER_UNIT,
        "pending": [],
        "failures": [],
    }
    # Without one of the bindings the files tell of other payouts than the contract has made.
    disagreeing = iota("audit", "chain", *files[:-1], *at, "--json")
    assert disagreeing.exit_code == 21
    assert [one["rule"] for one in json.loads(disagreeing.stdout)["failures"]] == ["settlement-root"]


@pytest.mark.usefixtures("scene")
def test_vote__reject_a_second_one_that_differs(rpc_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    homes = make_homes(tmp_path)
    identities = [load_key(home / "identity.pem") for home in homes]
    result = write_result(tmp_path / "result", identities)
    monkeypatch.setenv("IOTA_P2P_HOME", str(homes[0]))
    terms = ("--min-seats", 3, "--dispute", 0, "--withdrawal", 0)
    contract = said("chain", "deploy", "--rpc", rpc_url, "--run-id", RUN_ID, *terms)["contract"]
    at = ("--epoch", 0, "--rpc", rpc_url, "--contract", contract, "--vote", tmp_path / "vote")
    assert iota("settle", result, *at).exit_code == 0
    first = (tmp_path / "vote").read_bytes()
    assert iota("settle", result, *at).exit_code == 0
    assert (tmp_path / "vote").read_bytes() == first
    said("key", "payout", "--run-id", RUN_ID, "--out", tmp_path / "binding")
    assert "would cost its bond" in str(iota("settle", result, tmp_path / "binding", *at).exception)


@pytest.mark.usefixtures("scene")
def test_vote_and_binding__are_signed_with_an_encrypted_key(
    rpc_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    homes = make_homes(tmp_path)
    identities = [load_key(home / "identity.pem") for home in homes]
    (homes[0] / "identity.pem").unlink()
    identities[0] = create_key(homes[0] / "identity.pem", b"secret words")
    result = write_result(tmp_path / "result", identities)
    monkeypatch.setenv("IOTA_P2P_HOME", str(homes[0]))
    (tmp_path / "passphrase").write_text("secret words\n")
    from_file = ("--passphrase-file", tmp_path / "passphrase")
    terms = ("--min-seats", 3, "--dispute", 0, "--withdrawal", 0)
    contract = said("chain", "deploy", "--rpc", rpc_url, "--run-id", RUN_ID, *terms)["contract"]
    binding = ("key", "payout", "--run-id", RUN_ID, "--out", tmp_path / "binding")
    vote = ("settle", result, "--epoch", 0, "--rpc", rpc_url, "--contract", contract, "--vote", tmp_path / "vote")
    for words in (binding, vote):
        assert "wrong passphrase" in str(iota(*words, typed="other words\n").exception)
        assert iota(*words, typed="secret words\n").exit_code == 0
        assert iota(*words, *from_file).exit_code == 0
    for file in ("binding", "vote"):
        assert identities[0].peer_id in iota("inspect", tmp_path / file).stdout


def test_export_bittensor__prints_the_u16_vector(tmp_path: Path) -> None:
    identities = [Identity.from_seed(bytes([index]) * 32) for index in range(NUM_HOMES)]
    result = write_result(tmp_path / "result", identities)
    uids = {identity.peer_id: 7 - index for index, identity in enumerate(identities)}
    (tmp_path / "uids").write_text(json.dumps(uids))
    exported = json.loads(iota("export", "bittensor", result, "--epoch", 0, "--uids", tmp_path / "uids").stdout)
    assert exported["uids"] == [4, 5, 6, 7]
    assert exported["weights_u16"] == [131, 26083, 39321, 65535]
    assert "not submitted" in exported["kind"]


def test_key_payout__makes_an_account_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IOTA_P2P_HOME", str(tmp_path))
    create_key(tmp_path / "identity.pem")
    words = ("key", "payout", "--run-id", RUN_ID, "--out", tmp_path / "payout.env", "--new-account")
    bound = said(*words)
    assert (tmp_path / "account.key").stat().st_mode & 0o777 == 0o600
    assert json.loads(iota("inspect", tmp_path / "payout.env", "--json").stdout)["fields"]["account"] == (
        bound["account"][2:].lower()
    )
    assert "is not overwritten" in str(iota(*words).exception)


def test_without_the_extra__verbs_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain_access, "find_spec", lambda _: None)
    for words in (
        ("chain", "dev"),
        ("chain", "show", "--rpc", "http://127.0.0.1:1", "--contract", "0x" + "00" * 20),
        ("key", "payout", "--run-id", RUN_ID, "--out", "x"),
    ):
        error = iota(*words).exception
        assert isinstance(error, UserError), words
        assert "pip install 'iota-p2p[settlement]'" in str(error)


@pytest.mark.usefixtures("scene")
def test_no_contract__is_told(rpc_url: str) -> None:
    nowhere = iota("chain", "show", "--rpc", rpc_url, "--contract", "0x" + "11" * 20)
    assert "there is no settlement contract" in str(nowhere.exception)
    assert "address of 40 hex digits" in str(
        iota("chain", "show", "--rpc", rpc_url, "--contract", "nonsense").exception
    )


@contextmanager
def running_chain(*words: str) -> Iterator[tuple[subprocess.Popen[bytes], Any]]:
    """Run a chain that ends with this process at the latest; yield it and what it said."""
    # A shell that runs the tests in the background ignores Ctrl-C on behalf of all its children; a user's does not.
    attentive = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    program = attentive + "from iota_p2p.cli.main import main; main()"
    command = [sys.executable, "-c", program, "chain", "dev", "--json", "--attached", *words]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ)
    ) as process:
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_chain_dev__serves_other_processes_and_stops_cleanly(stop: signal.Signals) -> None:
    with running_chain() as (process, fields):
        w3 = connect_to(fields["rpc_url"])
        assert w3.eth.get_balance(fields["accounts"][0]["address"]) == 10**24
        process.send_signal(stop)
        assert process.wait(timeout=30) == 130
        assert process.stderr is not None
        assert process.stderr.read() == b""


@pytest.mark.slow
def test_chain_dev__ends_with_its_parent_and_goes_on_from_its_state(tmp_path: Path) -> None:
    state = str(tmp_path / "chain.log")
    with running_chain("--state", state) as (process, fields):
        genesis = connect_to(fields["rpc_url"]).eth.get_block(0)["hash"]
        assert process.stdin is not None
        process.stdin.close()  # as the system does when the parent is killed
        assert process.wait(timeout=30) == 0
    with running_chain("--state", state) as (_, fields):
        assert connect_to(fields["rpc_url"]).eth.get_block(0)["hash"] == genesis
