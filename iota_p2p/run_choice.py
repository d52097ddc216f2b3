"""Which run a peer takes part in: the one named by its user, that of its home, or that of the network it joins."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from iota_p2p.home import default_home
from iota_p2p.network.host import Host
from iota_p2p.run.discovery import discover_run
from iota_p2p.run.run_files import SHARDS_NAME, SPEC_NAME, adopt_shards, keep_spec, read_spec
from iota_p2p.run.spec import RunId, RunSpec
from iota_p2p.voice import Voice
from iota_p2p_crypto.errors import UserError


@dataclass(frozen=True, slots=True)
class ChosenRun:
    """The run to take part in.

    Attributes:
        spec: what it is.
        epoch: in which its network is, as far as known; None if nobody was asked.
    """

    spec: RunSpec
    epoch: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunWish:
    """What decides about the run.

    Attributes:
        home: the peer's folder, which keeps the spec of the run it is in.
        run_file: the run the user named by file; the peer may be its first.
        run_id: the run the user demands.
        voice: told of peers that cannot be asked.
    """

    home: Path
    run_file: Path | None
    run_id: RunId | None
    voice: Voice

    async def choose(self, host: Host, addresses: Sequence[str]) -> ChosenRun | None:
        """Return the run, and keep its spec in the home folder; None for a network without one.

        With addresses of others the network is asked, again and again until one answers, because only it knows the
        epoch; its spec must be that of the run demanded, or of the home's last run, if there is any.

        Raises:
            UserError: if two of the three name different runs, or shards of the run that the user named are missing.
            MalformedError: if a file holds no spec.
        """
        kept = self.home / SPEC_NAME
        given = None if self.run_file is None else read_spec(self.run_file)
        known = given or (read_spec(kept) if kept.exists() else None)
        if known is not None and self.run_id is not None and self.run_id != known.run_id:
            raise UserError(
                f"expected run {self.run_id.hex()}, but {self.run_file or kept} is of run {known.run_id.hex()}"
            )
        if given is not None:
            adopt_shards(given, default_home() / SHARDS_NAME, self.home)
        run = None if known is None else ChosenRun(known)
        if addresses and given is None:
            run = await self._ask(host, addresses, self.run_id if known is None else known.run_id) or run
        if run is not None:
            keep_spec(kept, run.spec)
            run_id = run.spec.run_id.hex()
            self.voice.say("run", f"run      {run.spec.name} {run_id}", run_id=run_id, name=run.spec.name)
        return run

    async def _ask(self, host: Host, addresses: Sequence[str], expected: RunId | None) -> ChosenRun | None:
        told: dict[str, str] = {}

        def report(address: str, reason: str) -> None:
            if told.get(address) != reason:
                told[address] = reason
                text = f"cannot join through {address}: {reason}"
                self.voice.say("unreachable", text, candidate=address, reason=reason)

        found = await discover_run(host, addresses, expected, report)
        return None if found is None else ChosenRun(*found)
