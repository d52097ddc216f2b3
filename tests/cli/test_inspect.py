"""`iota-p2p inspect`: valid, or the exact reason why not."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from iota_p2p.audit.inspection import inspect_envelope, inspect_roster
from iota_p2p_crypto.domains import TREE_HEAD
from iota_p2p_crypto.envelope import seal
from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.advert import LIFETIME_S, Advert
from iota_p2p_protocols.butterfly.reducer_fault import make_reducer_fault
from iota_p2p_protocols.epoch_close import EpochClose
from iota_p2p_protocols.ids import NO_RUN
from iota_p2p_protocols.message import seal_message
from tests.butterfly.gradients import vector
from tests.butterfly.merges import flipped, merge_of
from tests.butterfly.rosters import FOUR, certificate_of, progress, proposal_of
from tests.core.members import NOW_S, RUN

SIGNER = Identity.from_seed(bytes(range(32)))


def advert(issued_s: int) -> bytes:
    return seal_message(
        Advert(
            run_id=NO_RUN,
            sequence=1,
            issued_s=issued_s,
            expires_s=issued_s + LIFETIME_S,
            addresses=("/ip4/127.0.0.1/tcp/4001",),
            oldest_version=1,
            newest_version=1,
            software="test",
        ),
        SIGNER,
    )


def inspect(data: bytes, *words: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", "from iota_p2p.cli.main import main; main()", "inspect", "-", *words]
    return subprocess.run(command, check=False, capture_output=True, input=data, timeout=60)


def report(data: bytes, *words: str) -> dict[str, Any]:
    done = inspect(data, "--json", *words)
    fields: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if fields["valid"] else 3)
    return fields


def test_inspect__valid_when_fresh() -> None:
    fields = report(advert(int(time.time())))
    assert fields["signers"] == [SIGNER.peer_id]
    assert (fields["type"], fields["version"]) == ("advert", 1)
    assert fields["fields"]["addresses"] == ["/ip4/127.0.0.1/tcp/4001"]
    assert fields["current"].startswith("yes")


def test_inspect__valid_but_not_current_when_expired() -> None:
    fields = report(advert(1_000_000))
    assert fields["valid"] is True
    assert fields["current"].startswith("no: expected an expiry after")


def test_inspect__valid_when_its_payload_has_no_model() -> None:
    fields = report(seal(TREE_HEAD, {"epoch": 3, "root": b"\x01\x02"}, [SIGNER]))
    assert fields["fields"] == {"epoch": 3, "root": "0102"}


def test_inspect__reject_another_run() -> None:
    fields = report(advert(int(time.time())), "--run-id", "11" * 32)
    assert fields["rule"] == "run-id"


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "signature"),
        (lambda data: data[:-1], "canonical-msgpack"),
        (lambda data: data + b"\x00", "canonical-trailing"),
        (lambda data: data[:0], "canonical-msgpack"),
        (lambda data: data.replace(b"vnd.iota-p2p.advert", b"vnd.iota-p2p.advent"), "envelope-type"),
        (lambda data: data * 10_000, "canonical-size"),
    ],
)
def test_inspect__names_the_broken_rule(change: Any, rule: str) -> None:
    fields = report(change(advert(int(time.time()))))
    assert (fields["valid"], fields["rule"]) == (False, rule)


def test_inspect__reject_missing_file(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from iota_p2p.cli.main import main; main()", "inspect", str(tmp_path / "none")]
    done = subprocess.run(command, check=False, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)


def test_inspect__names_the_liar_of_a_fault() -> None:
    merge = merge_of("top-k", [vector(300, seed) for seed in range(2)], [1, 1])
    said = merge.report(1, flipped)
    fault = make_reducer_fault(merge.certificate, said, 0, merge.inputs(0), merge.claimed(0, flipped))
    fields = report(fault)
    assert (fields["type"], fields["guilty"]) == ("fault", merge.identities[1].peer_id)
    assert fields["fields"]["kind"] == "reducer"
    assert report(fault, "--run-id", "77" * 32)["rule"] == "run-id"
    assert report(fault[:-1])["rule"] == "fault-blocks"
    assert b"guilty" in inspect(fault).stdout


def test_inspect__shows_a_roster_with_its_contributions_and_whether_it_is_certified() -> None:
    fields = report(certificate_of(FOUR).data)
    assert (fields["type"], fields["valid"], fields["fields"]["samples"]) == ("roster", True, [40] * 4)
    assert fields["certified"] == "yes: 4 of 4 members signed, 3 are enough"
    proposal = proposal_of(FOUR)
    assert inspect_roster(proposal.data, None, NOW_S)["certified"].startswith("no: 1 of 4")
    assert inspect_envelope(proposal.roster.envelope_bytes, None, NOW_S)["certified"].startswith("no: 1 of 4")
    assert inspect_roster(proposal.data, NO_RUN, NOW_S)["rule"] == "run-id"
    assert inspect_roster(proposal.data[:-1], None, NOW_S)["rule"] == "canonical-msgpack"


def test_inspect__checks_what_a_close_holds() -> None:
    fields = {"run_id": RUN, "sequence": 3, "issued_s": NOW_S, "expires_s": NOW_S + 600, "epoch": 3, "reason": "target"}
    for epoch, rule in ((3, None), (4, "close-evidence")):
        evidence = (progress(FOUR[0], 5, epoch).envelope_bytes,)
        close = EpochClose.model_validate({**fields, "evidence": evidence})
        assert inspect_envelope(seal_message(close, FOUR[0]), None, NOW_S).get("rule") == rule
