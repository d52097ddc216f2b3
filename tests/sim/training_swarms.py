"""What the tests of training swarms share."""

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import trio

from iota_p2p_protocols.microbatch import MicrobatchId
from iota_p2p_testnet.training_swarm import Costs, Member, TrainingSwarm

# Fewer, longer pieces of work than the default: half the CPU time for a second of virtual time.
SLOW = Costs(forward_s=0.02, backward_s=0.04, background_s=0.02)
Loss = tuple[int, str, int, int]  # epoch, source, counter, micronats


@contextmanager
def noting_losses(*members: Member) -> Iterator[list[Loss]]:
    """Collect the loss of every microbatch that comes home to these sources."""
    losses: list[Loss] = []
    for member in members:
        note_losses(member, losses)
    yield losses


def note_losses(member: Member, losses: list[Loss]) -> None:
    """Collect one more source's losses."""

    def note(microbatch: MicrobatchId, loss: int) -> None:
        losses.append((microbatch.epoch, microbatch.source, microbatch.counter, loss))

    member.trainer.source.on_done = note


def mean_nats(losses: list[Loss]) -> float:
    return sum(loss for *_, loss in losses) / len(losses) / 1e6


def total(swarm: TrainingSwarm, name: str) -> int:
    """Sum one of the counts over all peers that are up."""
    return sum(getattr(member.trainer.share.counts, name) for member in swarm.members.values())


def offences(swarm: TrainingSwarm) -> dict[int, dict[str, int]]:
    """Return by a peer's number what those that are up charge it with, peers without any left out."""
    charged: dict[int, dict[str, int]] = {}
    for member in swarm.members.values():
        for other in swarm.known.values():
            for rule, count in member.peer.network.ledger.counts(other.peer.identity.peer_id).items():
                rules = charged.setdefault(other.number, {})
                rules[rule] = rules.get(rule, 0) + count
    return charged


async def kill_now_and_then(swarm: TrainingSwarm, seed: int, count: int, losses: list[Loss]) -> int:
    """Kill peers at drawn moments, never a stage's last; every other comes back, noting losses. Return how many."""
    rng = Random(seed)  # noqa: S311 - repeatable, not secret
    kills = 0
    for attempt in range(count):
        await trio.sleep(rng.uniform(0, 2.5))
        able = [m for m in swarm.members.values() if all(len(swarm.holders(s)) > 1 for s in m.trainer.share.stages)]
        if not able:
            continue
        victim = rng.choice(able)
        pinned = victim.trainer.keeper.pinned
        swarm.crash(victim)
        kills += 1
        if attempt % 2:
            await trio.sleep(rng.uniform(0, 2.5))
            note_losses(await swarm.start(victim.number, pinned=pinned, costs=SLOW), losses)
    return kills


async def drained(swarm: TrainingSwarm) -> None:
    """Start nothing new, and wait until everything under way is home."""
    # A peer an epoch behind hears of the next from those who go on.
    await swarm.until(lambda: len({member.trainer.share.epoch for member in swarm.members.values()}) == 1)
    for member in swarm.members.values():
        member.trainer.source.paused = True
    await swarm.until(lambda: total(swarm, "completed") + total(swarm, "lost") == total(swarm, "sent"), 600)
