"""The process of a peer: home folder, key, daemon, signals, and what it tells its user."""

import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import trio

from iota_p2p.address_book import AddressBook
from iota_p2p.home import key_path
from iota_p2p.home_lock import lock_home
from iota_p2p.key_store import create_key, load_key
from iota_p2p.leaving import leave_at_once
from iota_p2p.network.daemon import open_daemon_host
from iota_p2p.network.daemon_config import DaemonConfig, Reachability
from iota_p2p.passphrase import ask_passphrase, read_passphrase
from iota_p2p.peer import Peer, PeerConfig, open_peer
from iota_p2p.refusals import TELL_EVERY_S, Refusals
from iota_p2p.run.epoch_note import EpochNote
from iota_p2p.run.run_files import SHARDS_NAME, STATES_NAME, state_folder
from iota_p2p.run.shards import ShardStore
from iota_p2p.run.spec import RunId
from iota_p2p.run_choice import ChosenRun, RunWish
from iota_p2p.run_supply import RunSupply
from iota_p2p.voice import Voice
from iota_p2p_crypto.identity import Identity, PeerId
from iota_p2p_crypto.keyfile import PassphraseError
from iota_p2p_protocols.advert import Capacity
from iota_p2p_protocols.ids import NO_RUN

_log = logging.getLogger(__name__)

TRAINING = "iota_p2p.training_process"
ADDRESS_BOOK_NAME = "peers.json"
REMEMBER_EVERY_S = 60.0
# Views change in bursts; a person reads one line, not two hundred.
MIN_REPORT_INTERVAL_S = 0.5
# Ctrl-C promises an end within 3 s. Leaving in good order takes 0.2 s, with a daemon that hangs 1.2 s; what takes
# longer is a thread that computes, and nobody needs its result any more.
LEAVE_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerOptions:
    """What the user asked for; see the help of `iota-p2p peer` for each."""

    home: Path
    bootstrap: Sequence[str]
    listen: Sequence[str]
    announce: Sequence[str]
    relay: bool
    passphrase_file: Path | None
    binary: Path | None
    as_json: bool
    reachability: Reachability = Reachability.AUTO
    run_file: Path | None = None
    run_id: RunId | None = None
    memory_bytes: int | None = None
    kept_bytes: int | None = None
    threads: int | None = None
    validate: bool = False


async def run_peer(options: PeerOptions) -> None:
    """Run a peer until SIGINT or SIGTERM, then leave in good order.

    Raises:
        UserError: if the home is taken, the key cannot be used, or the daemon cannot start.
    """
    with lock_home(options.home):
        identity = own_identity(options.home, options.passphrase_file)
        book = AddressBook(options.home / ADDRESS_BOOK_NAME)
        voice = Voice(as_json=options.as_json)
        async with trio.open_nursery() as outlasting:
            async with trio.open_nursery() as nursery:
                outlasting.start_soon(_stop_on_signal, nursery.cancel_scope)
                if options.bootstrap or options.run_file is not None:
                    nursery.start_soon(_import_training)  # now: the daemon starts and others are asked meanwhile
                await _run(identity, options, book, voice)
            outlasting.cancel_scope.cancel()


def own_identity(home: Path, passphrase_file: Path | None = None) -> Identity:
    """Return the identity of a home folder, made on the first start."""
    path = key_path(home)
    passphrase = None if passphrase_file is None else read_passphrase(passphrase_file)
    if not path.exists():
        return create_key(path, passphrase)
    try:
        return load_key(path, passphrase)
    except PassphraseError:
        if passphrase is not None or not sys.stdin.isatty():
            raise
        return load_key(path, ask_passphrase(path))


async def _run(identity: Identity, options: PeerOptions, book: AddressBook, voice: Voice) -> None:
    daemon = DaemonConfig(
        listen=options.listen,
        bootstrap=options.bootstrap,
        announce=options.announce,
        relay_service=options.relay,
        auto_nat=True,
        auto_relay=bool(options.bootstrap),
        reachability=options.reachability,
        binary=options.binary,
    )
    remembered = book.load()
    voice.say("starting", f"peer id  {identity.peer_id}", peer_id=identity.peer_id)
    refusals = Refusals()
    async with open_daemon_host(identity, daemon) as host:
        told = _tell_addresses(await host.addresses(), (), voice)
        if not options.bootstrap and not remembered:
            voice.say("first", "no bootstrap address: this is the first peer of a network; give others an address")
        known = (*options.bootstrap, *(address for addresses in remembered.values() for address in addresses))
        wish = RunWish(home=options.home, run_file=options.run_file, run_id=options.run_id, voice=voice)
        run = await wish.choose(host, known)
        memory_bytes = options.memory_bytes or _memory_bytes()
        config = PeerConfig(
            run_id=NO_RUN if run is None else run.spec.run_id,
            bootstrap=options.bootstrap,
            remembered=remembered,
            relay=options.relay,
            capacity=Capacity(memory_bytes=memory_bytes),
            load_percent=_load_percent,
        )
        async with open_peer(identity, host, config) as peer:
            peer.network.ledger.on_offence = refusals.note
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_remember, peer, book)
                    nursery.start_soon(_report, peer, voice, told)
                    nursery.start_soon(_report_refusals, refusals, voice)
                    if run is not None:
                        await _train(peer, run, options, memory_bytes, voice)
            finally:
                _tell_refusals(refusals, voice)
                save_addresses(peer, book)
                voice.say("stopping", "leaving")


async def _import_training() -> None:
    """Import torch in a thread: it takes seconds, for which the main thread would be deaf."""
    await trio.to_thread.run_sync(import_module, TRAINING, abandon_on_cancel=True)


async def _train(peer: Peer, run: ChosenRun, options: PeerOptions, memory_bytes: int, voice: Voice) -> None:
    """Train until cancelled."""
    note = EpochNote(state_folder(options.home / STATES_NAME, run.spec.run_id))
    epoch = note.read() if run.epoch is None else run.epoch
    supply = RunSupply(peer, run.spec, ShardStore(options.home / SHARDS_NAME), voice, lambda: epoch)
    await supply.fetch()  # meanwhile torch is imported
    await _import_training()  # waits for the one that began before
    import torch  # noqa: PLC0415 - two seconds that a peer without a run does not need

    from iota_p2p.training_process import TrainingProcess  # noqa: PLC0415 - the same

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    process = TrainingProcess(supply, options.home, epoch, memory_bytes, validates=options.validate)
    if options.kept_bytes is not None:
        process.kept_bytes = options.kept_bytes
    await process.run()


async def _stop_on_signal(peer: trio.CancelScope) -> None:
    """Let the peer leave in good order at the first signal, and do without if that takes too long."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        await anext(signals)
        peer.cancel()
        await trio.sleep(LEAVE_S)
        leave_at_once()


async def _remember(peer: Peer, book: AddressBook) -> None:
    while True:
        await trio.sleep(REMEMBER_EVERY_S)
        save_addresses(peer, book)


def save_addresses(peer: Peer, book: AddressBook) -> None:
    """Write the addresses of the peers that are live now."""
    adverts = {peer_id: peer.view.advert_of(peer_id) for peer_id in peer.view.live()}
    others = {
        peer_id: advert.addresses
        for peer_id, advert in adverts.items()
        if advert is not None and advert.addresses and peer_id != peer.identity.peer_id
    }
    if not others:
        return
    try:
        book.save(others)
    except OSError as error:  # a hint for the next start is not worth a running peer
        _log.warning("the address book was not saved: %s", error.strerror)


def _tell_addresses(addresses: Sequence[str], told: Sequence[str], voice: Voice) -> Sequence[str]:
    """Say the addresses not told before; return those to compare with next time."""
    for address in addresses:
        if address not in told:
            voice.say("address", f"address  {address}", address=address)
    return tuple(addresses)


async def _report(peer: Peer, voice: Voice, addresses: Sequence[str]) -> None:
    """Say who comes and goes, why nobody can be reached while we are alone, and our addresses when they change."""
    shown: set[PeerId] = {peer.identity.peer_id}
    told: dict[str, str] = {}
    while True:
        live = set(peer.view.live())
        for peer_id in sorted(live - shown):
            advert = peer.view.advert_of(peer_id)
            how = advert.reachability if advert else "unknown"
            voice.say("joined", f"+ {peer_id} ({how})", peer_id=peer_id, reachability=how, live=len(live))
        for peer_id in sorted(shown - live - {peer.identity.peer_id}):
            voice.say("gone", f"- {peer_id}", peer_id=peer_id, live=len(live))
        if live != shown:
            voice.say("view", f"{len(live)} peers", live=len(live))
        shown = live
        for name, reason in peer.joiner.failures.items():
            if told.get(name) != reason:
                voice.say("unreachable", f"cannot join through {name}: {reason}", candidate=name, reason=reason)
        told = dict(peer.joiner.failures)
        if advert := peer.view.advert_of(peer.identity.peer_id):
            addresses = _tell_addresses(advert.addresses, addresses, voice)
        with trio.move_on_after(5):  # failures to join and our own addresses do not change the view
            await peer.view_changed()
        await trio.sleep(MIN_REPORT_INTERVAL_S)


async def _report_refusals(refusals: Refusals, voice: Voice) -> None:
    while True:
        await refusals.wait()
        _tell_refusals(refusals, voice)
        await trio.sleep(TELL_EVERY_S)


def _tell_refusals(refusals: Refusals, voice: Voice) -> None:
    """Say who broke which rule, how often since this was last said, and one example."""
    told, num_others = refusals.take()
    for refusal in told:
        peer_id, rule, detail = refusal.offence.peer_id, refusal.offence.rule, refusal.offence.detail
        text = f"refused {peer_id}: {rule} ({refusal.count} times): {detail}"
        voice.say("refused", text, peer_id=peer_id, rule=rule, count=refusal.count, detail=detail)
    if num_others:
        voice.say("refused-others", f"refused {num_others} more offences", count=num_others)


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _load_percent() -> int:
    """Return how many of the machine's cores had work in the last minute, by everybody on it."""
    return min(100, round(100 * os.getloadavg()[0] / (os.cpu_count() or 1)))
