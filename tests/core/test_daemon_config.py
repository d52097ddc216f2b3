from pathlib import Path

import pytest

from iota_p2p.network.daemon_binary import find_daemon
from iota_p2p.network.daemon_config import DaemonConfig, Reachability
from iota_p2p.network.daemon_runs import fix_port
from iota_p2p_crypto.errors import UserError
from iota_p2p_crypto.identity import Identity

PEER = f"/ip4/10.0.0.1/tcp/1/p2p/{Identity.from_seed(bytes(32)).peer_id}"


def flags_of(config: DaemonConfig) -> list[str]:
    return config.flags(config.listen, Path("/run/control"), Path("/run/key"))


def test_flags__keep_to_ourselves_by_default() -> None:
    """No UPnP, no QUIC (it loses data), no relaying for others, no dialling of public nodes."""
    flags = flags_of(DaemonConfig())
    assert {"-natPortMap=0", "-quic=0", "-relayService=0", "-dhtServer=1", "-listen=/unix/run/control"} <= set(flags)
    assert not {flag.partition("=")[0] for flag in flags} & {"-b", "-bootstrapPeers", "-autoRelay", "-dht"}


def test_flags__name_the_relays_when_relays_are_wanted() -> None:
    """Without names the daemon would take the public ones."""
    assert f"-trustedRelays={PEER}" in flags_of(DaemonConfig(auto_relay=True, bootstrap=(PEER,)))
    assert "-forceReachabilityPrivate=1" in flags_of(DaemonConfig(reachability=Reachability.PRIVATE))


@pytest.mark.parametrize(
    "fields",
    [
        {"listen": ()},
        {"listen": ("127.0.0.1:4001",)},
        {"bootstrap": ("/ip4/10.0.0.1/tcp/1",)},
        {"announce": ("/ip4/10.0.0.1/tcp/1",)},
        {"auto_relay": True},
    ],
)
def test_config__user_error_when_it_makes_no_sense(fields: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(UserError):
        DaemonConfig(**fields)  # type: ignore[arg-type] # one field of each kind


def test_find_daemon__user_error_when_the_configured_one_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No executable daemon at"):
        find_daemon(tmp_path / "p2pd")


@pytest.mark.parametrize(
    ("listen", "fixed"),
    [
        ("/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/4001"),
        ("/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/tcp/4001"),
        ("/ip4/0.0.0.0/tcp/0/ws", "/ip4/0.0.0.0/tcp/4002/ws"),
        ("/ip6/::/tcp/0", "/ip6/::/tcp/4003"),
        ("/ip4/10.0.0.1/tcp/0", "/ip4/10.0.0.1/tcp/0"),
        ("/ip4/0.0.0.0/tcp/80", "/ip4/0.0.0.0/tcp/80"),
    ],
)
def test_fix_port__keeps_the_port_the_daemon_got(listen: str, fixed: str) -> None:
    actual = ("/ip4/127.0.0.1/tcp/4002/ws", "/ip4/127.0.0.1/tcp/4001", "/ip6/::1/tcp/4003")
    assert fix_port(listen, actual) == fixed
