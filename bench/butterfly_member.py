"""One member of the butterfly benchmark as a process of its own (see `bench/butterfly.py`).

Says one JSON object a line: where it is, and what each round came to. Is told, a line each: the others, then `go` for
every round.
"""

import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import trio

from iota_p2p.merge.encounter import Encounter, Outcome
from iota_p2p.merge.letters import Letters
from iota_p2p.merge.meeting import MeetingTask
from iota_p2p.merge.memory import MergeMemory
from iota_p2p.merge.merge_server import MergeServer
from iota_p2p.merge.outer_step import Vector
from iota_p2p.merge.record import bytes_formula
from iota_p2p.merge.round import Means, T, commit
from iota_p2p.network.daemon import open_daemon_host
from iota_p2p.network.daemon_config import DaemonConfig
from iota_p2p.network.streams import open_streams
from iota_p2p_crypto.digest import Digest
from iota_p2p_crypto.identity import Identity, PeerId
from iota_p2p_protocols.butterfly.codecs import CODECS
from iota_p2p_protocols.butterfly.contribution import Contribution
from iota_p2p_protocols.butterfly.exchange import Note
from iota_p2p_protocols.errors import PeerUnavailableError, RefusedError
from iota_p2p_protocols.ids import MERGE
from iota_p2p_protocols.message import open_signed, seal_message

RUN_ID = sha256(b"the butterfly benchmark").digest()
STAGE = 0
HIVEMIND_PREFIX = "butterfly"
HIVEMIND_TIMEOUT_S = 180.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def say(**fields: Any) -> None:
    """Tell the benchmark something."""
    print(json.dumps(fields), flush=True)


def vector_of(number: int, num_values: int) -> Vector:
    """Return a member's pseudo-gradient."""
    return 0.01 * np.random.default_rng(number).standard_normal(num_values, dtype=np.float32)


def cpu_s() -> dict[str, float]:
    """Return the processor time of this process and all below it: that of daemons, and that of the rest."""
    fields: dict[int, tuple[str, list[str]]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            name, _, numbers = path.joinpath("stat").read_text().rpartition(")")
            fields[int(path.name)] = name, numbers.split()
    family = {os.getpid()}
    while below := {pid for pid, (_, rest) in fields.items() if int(rest[1]) in family} - family:
        family |= below
    total = {"python": 0.0, "daemon": 0.0}
    for name, rest in (fields[pid] for pid in family if pid in fields):
        total["daemon" if "(p2pd" in name else "python"] += (int(rest[11]) + int(rest[12])) / TICKS_PER_S
    return total


def spent_s(since: dict[str, float]) -> dict[str, float]:
    """Return the processor time since another moment."""
    return {kind: round(seconds - since[kind], 2) for kind, seconds in cpu_s().items()}


async def _beside(work: Callable[[], T], /) -> T:
    return await trio.to_thread.run_sync(work)


class _Timed(MeetingTask):
    """Notes when there is a certificate."""

    def _tell(self) -> None:
        Member.agreed_s = time.perf_counter()
        super()._tell()


@dataclass
class Member:
    """A member of our own butterfly."""

    means: Means
    codec: str
    number: int
    num_values: int
    gradient: Vector = field(init=False)
    mean_W: Vector = field(init=False)
    residual: Vector | None = None
    agreed_s = 0.0
    memory: MergeMemory = field(default_factory=MergeMemory)
    letters: Letters | None = None
    epoch: int = -1

    def __post_init__(self) -> None:
        """Have memory for the mean before the first round, as gloo and hivemind have their tensors."""
        self.mean_W = np.ones(self.num_values, dtype=np.float32)

    def take(self, caller: PeerId, note: Note) -> None:
        """Take a letter of the round that we are in, or that is about to begin."""
        if self.letters is None or note.epoch > self.letters.epoch:
            raise RefusedError("not-yet", "expected a round that has begun")
        if note.epoch == self.letters.epoch:
            self.letters.take(caller, note.what, note.data)

    def prepare(self) -> None:
        """Have a pseudo-gradient for the next round."""
        self.gradient = vector_of(self.number, self.num_values)

    async def round(self, others: set[PeerId], nursery: trio.Nursery) -> None:
        """Take part in one round and tell what came of it."""
        before, began_s = cpu_s(), time.perf_counter()
        self.epoch += 1
        self.letters = letters = Letters(self.means, STAGE, self.epoch, nursery)
        committed = await _beside(lambda: commit(self.gradient, CODECS[self.codec], self.residual))
        self.residual = committed.residual_W
        contribution = self._contribution(committed.commitment.root)
        committed_s = time.perf_counter()
        self.memory.keep_committed(STAGE, self.epoch, contribution.digest, committed)
        alive = others | {self.means.identity.peer_id}
        encounter = Encounter(
            means=self.means,
            letters=letters,
            memory=self.memory,
            own=contribution,
            committed=committed,
            seed=RUN_ID,
            into_W=self.mean_W,
            expected=lambda: alive,
            meet=_Timed,
        )
        outcome = await encounter.run()
        times = {"seconds": time.perf_counter() - began_s, "cpu_s": spent_s(before)}
        self.memory.forget_before(STAGE, self.epoch - 1)
        nursery.start_soon(_end, letters)
        self._tell(outcome, **times, committed_s=committed_s, agreed_s=Member.agreed_s)

    def _tell(self, outcome: Outcome | None, **times: Any) -> None:
        if outcome is None:
            say(**times, members=0)
            return
        say(
            **times,
            members=len(outcome.round_.members),
            lost=outcome.reduction.lost_shards,
            bytes=outcome.reduction.bytes_in,
            formula=bytes_formula(outcome.round_),
            digest=sha256(outcome.reduction.gradient_W.data).hexdigest(),
        )

    def _contribution(self, root: bytes) -> Any:
        now_s = int(time.time())
        contribution = Contribution(
            run_id=RUN_ID,
            sequence=self.epoch,
            issued_s=now_s,
            expires_s=now_s + 600,
            epoch=self.epoch,
            stage=STAGE,
            codec=self.codec,
            num_values=self.num_values,
            root=Digest(root),
            samples=10 + self.number,  # nobody's weight is 1
            base_digest=RUN_ID,
            log_root=RUN_ID,
            end_digest=RUN_ID,
        )
        return open_signed(seal_message(contribution, self.means.identity), Contribution)


async def _end(letters: Letters) -> None:
    letters.end()
    await trio.lowlevel.checkpoint()


async def _lines() -> AsyncIterator[str]:
    while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
        yield line.strip()


async def butterfly(number: int, num_values: int, codec: str) -> None:
    """Be a member of our own butterfly until nobody wants another round."""
    identity = Identity.from_seed((number + 1).to_bytes(32, "big"))
    config = DaemonConfig(listen=("/ip4/127.0.0.1/tcp/0",))
    async with (
        open_daemon_host(identity, config) as host,
        open_streams(host) as streams,
        trio.open_nursery() as nursery,
    ):
        means = Means(identity=identity, run_id=RUN_ID, streams=streams, beside=_beside, clock=time.time)
        member = Member(means, codec, number, num_values)
        member.prepare()
        await streams.serve(MERGE, MergeServer(member.memory, member.take).answer)
        say(address=(await host.addresses())[0], peer_id=identity.peer_id)
        others: set[PeerId] = set()
        async for line in _lines():
            if line != "go":
                told = json.loads(line)
                others = {PeerId(peer_id) for peer_id in told["peers"]}
                for address in told["addresses"]:
                    try:
                        await host.connect(address)
                    except PeerUnavailableError as error:
                        say(text=str(error))
                say(ready=True)
            else:
                await member.round(others, nursery)
                member.prepare()
                say(ready=True)
        nursery.cancel_scope.cancel()


def gloo(number: int, num_values: int, _: str) -> None:
    """All-reduce by torch.distributed."""
    import torch  # noqa: PLC0415 - slow, and only for this
    import torch.distributed as dist  # noqa: PLC0415 - the same

    torch.set_num_threads(1)
    say(address="", peer_id=str(number))
    told = json.loads(sys.stdin.readline())
    dist.init_process_group("gloo", init_method=told["store"], rank=number, world_size=told["count"])
    own = torch.from_numpy(vector_of(number, num_values))
    tensor = own.clone()
    say(ready=True)
    for _line in sys.stdin:
        before, began_s = cpu_s(), time.perf_counter()
        dist.all_reduce(tensor)
        tensor /= told["count"]
        times = {"seconds": time.perf_counter() - began_s, "cpu_s": spent_s(before)}
        say(**times, members=told["count"], digest=sha256(tensor.numpy().data).hexdigest())
        tensor.copy_(own)
        say(ready=True)


def hivemind(number: int, num_values: int, codec: str) -> None:
    """Average by hivemind's DecentralizedAverager; a round is matchmaking and all-reduce, as ours is."""
    import hivemind as hm  # noqa: PLC0415 - slow, and only for this
    import torch  # noqa: PLC0415 - the same
    from hivemind.compression import Float16Compression, NoCompression  # noqa: PLC0415 - the same

    torch.set_num_threads(1)
    listen = ["/ip4/127.0.0.1/tcp/0"]
    dht = hm.DHT(start=True, host_maddrs=listen) if number == 0 else None
    say(address="" if dht is None else str(dht.get_visible_maddrs()[0]), peer_id=str(number))
    told = json.loads(sys.stdin.readline())
    dht = dht or hm.DHT(start=True, host_maddrs=listen, initial_peers=told["addresses"][:1])
    averager = hm.averaging.DecentralizedAverager(
        [torch.from_numpy(vector_of(number, num_values))],
        dht,
        prefix=HIVEMIND_PREFIX,
        start=True,
        target_group_size=told["count"],
        min_matchmaking_time=5.0,
        compression=Float16Compression() if codec == "float16" else NoCompression(),
    )
    say(ready=True)
    for _line in sys.stdin:
        before, began_s = cpu_s(), time.perf_counter()
        gathered = averager.step(timeout=HIVEMIND_TIMEOUT_S)
        times = {"seconds": time.perf_counter() - began_s, "cpu_s": spent_s(before)}
        say(**times, members=len(gathered or ()))
        say(ready=True)
    averager.shutdown()
    dht.shutdown()


def main() -> None:
    """Be the member that the arguments say: kind, number, values, codec."""
    kind, number, num_values, codec = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    os.environ["OMP_NUM_THREADS"] = "1"
    if kind == "ours":
        trio.run(butterfly, number, num_values, codec)
    else:
        {"gloo": gloo, "hivemind": hivemind}[kind](number, num_values, codec)


if __name__ == "__main__":
    main()
