"""The doctor with real daemons: a healthy network, and each way a bootstrap address can be wrong."""

import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import trio

from iota_p2p.doctor.examination import Examination, Options, examine
from iota_p2p.doctor.finding import Finding, Status
from iota_p2p.home_lock import lock_home
from iota_p2p.key_store import create_key
from iota_p2p.network.daemon import DaemonHost, open_daemon_host
from iota_p2p.network.dial_probe import identify_listener
from iota_p2p.peer import Peer, PeerConfig, open_peer
from iota_p2p_crypto.errors import PeerUnavailableError
from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.advert import Advert
from iota_p2p_protocols.ids import NO_RUN
from iota_p2p_protocols.message import seal_message
from tests.net.daemons import LOOPBACK, identity, open_hosts

pytestmark = pytest.mark.net


@asynccontextmanager
async def open_bootstrap(own: Identity, *bootstrap: str) -> AsyncIterator[tuple[DaemonHost, Peer, str]]:
    """A whole peer on loopback that dials back, and its address."""
    with trio.fail_after(60):
        async with (
            open_daemon_host(own, LOOPBACK) as host,
            open_peer(own, host, PeerConfig(bootstrap=bootstrap)) as peer,
        ):
            yield host, peer, (await host.addresses())[0]


async def examined(home: Path, *bootstrap: str, listen: str = LOOPBACK.listen[0]) -> dict[str, Finding]:
    options = Options(home=home, key_path=home / "identity.pem", bootstrap=bootstrap, listen=(listen,), binary=None)
    examination = Examination(lambda _code, _subject: None, lambda _finding: None)
    with trio.fail_after(60):
        await examine(options, examination)
    return {finding.code: finding for finding in examination.found}


async def test_doctor__finds_nothing_wrong_with_a_healthy_pair(tmp_path: Path) -> None:
    own = create_key(tmp_path / "identity.pem")
    async with open_bootstrap(identity(1)) as (host, _, address):
        found = await examined(tmp_path, address)
        assert own.peer_id not in {connection.peer_id for connection in await host.connections()}
    assert {code for code in found if code > "D2" and found[code].status is not Status.OK} == set()
    assert own.peer_id in found["D202"].cause
    assert f"{host.peer_id} reached us at 127.0.0.1" in found["D203"].cause


async def test_doctor__names_a_bootstrap_peer_that_is_down(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    found = await examined(tmp_path, f"/ip4/127.0.0.1/tcp/{port}/p2p/{identity(1).peer_id}")
    assert (found["D302"].status, "refused" in found["D302"].cause) == (Status.FAIL, True)
    assert f":{port}" in found["D302"].fix
    assert found["D202"].status is Status.OK
    assert {found[code].status for code in ("D203", "D204", "D205", "D303", "D304")} == {Status.SKIPPED}


async def test_doctor__names_who_is_really_there(tmp_path: Path) -> None:
    async with open_hosts(1) as (host,):
        (address,) = await host.addresses()
        transport = address.partition("/p2p/")[0]
        found = await examined(tmp_path, f"{transport}/p2p/{identity(2).peer_id}")
    assert found["D302"].status is Status.OK
    assert (found["D303"].status, address in found["D303"].fix) == (Status.FAIL, True)
    assert found["D304"].status is Status.SKIPPED


async def test_doctor__names_a_port_that_is_not_libp2p(tmp_path: Path) -> None:
    received = []

    async def talk_garbage(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):  # a probe that has seen enough hangs up
            await stream.send_all(b"220 mail.example.org ESMTP\r\n")
            received.append(await stream.receive_some())

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, talk_garbage, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        found = await examined(tmp_path, f"/ip4/127.0.0.1/tcp/{port}/p2p/{identity(1).peer_id}")
        nursery.cancel_scope.cancel()
    assert (found["D303"].status, "no libp2p peer" in found["D303"].cause) == (Status.FAIL, True)
    assert set(received) <= {b""}, "nothing is sent to what has not greeted as libp2p"


async def test_doctor__names_a_peer_that_does_not_speak_our_protocols(tmp_path: Path) -> None:
    async with open_hosts(1) as (host,):
        found = await examined(tmp_path, (await host.addresses())[0])
    assert found["D303"].status is Status.OK
    assert found["D304"].status is Status.FAIL


async def test_doctor__names_another_node_with_our_identity(tmp_path: Path) -> None:
    own = create_key(tmp_path / "identity.pem")
    async with (
        open_bootstrap(identity(1)) as (_, bootstrap, address),
        open_bootstrap(own, address) as (_, _, twin_address),
    ):
        while not bootstrap.view.is_live(own.peer_id):
            await bootstrap.view_changed()
        found = await examined(tmp_path, address)
    assert found["D205"].status is Status.FAIL
    assert twin_address.partition("/p2p/")[0] in found["D205"].cause


async def test_doctor__does_not_take_itself_for_its_twin(tmp_path: Path) -> None:
    """A former run that died unheard left an advert with the port that the doctor's own node now listens on."""
    own = create_key(tmp_path / "identity.pem")
    with socket.create_server(("127.0.0.1", 0)) as server:
        transport = f"/ip4/127.0.0.1/tcp/{server.getsockname()[1]}"
    now_s = int(time.time())
    advert = Advert(
        run_id=NO_RUN,
        sequence=now_s * 1000,
        issued_s=now_s,
        expires_s=now_s + 600,
        addresses=(f"{transport}/p2p/{own.peer_id}",),
        oldest_version=1,
        newest_version=1,
        software="test",
    )
    async with open_bootstrap(identity(1)) as (_, bootstrap, address):
        assert bootstrap.membership.intake.take_all([seal_message(advert, own)]) == 1
        found = await examined(tmp_path, address, listen=transport)
    assert (found["D205"].status, transport in found["D205"].cause) == (Status.OK, True)


async def test_doctor__uses_a_throw_away_identity_when_the_home_is_held(tmp_path: Path) -> None:
    own = create_key(tmp_path / "identity.pem")
    with lock_home(tmp_path):
        found = await examined(tmp_path)
    assert found["D104"].status is Status.WARN
    assert "throw-away" in found["D202"].cause
    assert own.peer_id not in found["D202"].cause


async def test_probe__proves_a_real_daemon_without_disturbing_it() -> None:
    async with open_hosts(1) as (host,):
        port = int((await host.addresses())[0].split("/")[4])
        assert await identify_listener("127.0.0.1", port) == host.peer_id
        assert await identify_listener("localhost", port) == host.peer_id
        assert await host.connections() == ()
    with pytest.raises(PeerUnavailableError):
        await identify_listener("127.0.0.1", port)
