"""Finding out which run a network trains, from any of its peers."""

import time
from collections.abc import Callable, Sequence

import trio

from iota_p2p.membership.announcer import SOFTWARE
from iota_p2p.membership.greeting import Greeting
from iota_p2p.network.host import Host
from iota_p2p.network.network import open_network
from iota_p2p.run.exchange import fetch_spec
from iota_p2p.run.spec import RunId, RunSpec
from iota_p2p_crypto.errors import MalformedError
from iota_p2p_protocols.errors import PeerUnavailableError, RefusedError, RemoteProtocolError
from iota_p2p_protocols.ids import NO_RUN

ATTEMPT_TIMEOUT_S = 10.0
# Between rounds over all addresses: a bootstrap peer that is being restarted is back soon.
PAUSE_S = 2.0


async def discover_run(
    host: Host, addresses: Sequence[str], expected: RunId | None, report: Callable[[str, str], None]
) -> tuple[RunSpec, int] | None:
    """Return the run of the first peer that answers and its epoch; None if that peer's network has no run.

    Tries the addresses again and again, telling `report` (address, reason) of each failure; the patience is the
    caller's.
    """
    async with open_network(host, NO_RUN) as network:
        greeting = Greeting(network.streams, expected or NO_RUN, SOFTWARE, time.time)
        while True:
            for address in addresses:
                try:
                    with trio.fail_after(ATTEMPT_TIMEOUT_S):
                        peer_id = await host.connect(address)
                        greeted = await greeting.greet(peer_id)
                        if greeted.hello.run_id == NO_RUN:
                            return None
                        return await fetch_spec(network.streams, peer_id, expected or RunId(greeted.hello.run_id))
                except MalformedError:
                    raise
                except (trio.TooSlowError, PeerUnavailableError, RefusedError, RemoteProtocolError) as error:
                    report(address, str(error) or f"no answer within {ATTEMPT_TIMEOUT_S:.0f} s")
            await trio.sleep(PAUSE_S)
