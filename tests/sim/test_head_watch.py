"""Heads of validators' logs are cosigned as long as each continues the last; two that exclude each other convict."""

# ruff: noqa: ARG001 - pytest-trio turns the clock only for tests that name it as an argument

from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from iota_p2p.audit.dossier import EQUIVOCATION_KIND
from iota_p2p.validation.validation import Validation
from iota_p2p_crypto.domains import TREE_HEAD
from iota_p2p_crypto.transparency_log import TransparencyLog
from iota_p2p_crypto.tree_head import open_tree_head, sign_tree_head
from iota_p2p_protocols.ids import HEADS
from iota_p2p_protocols.scoring.equivocation import open_equivocation_proof
from iota_p2p_protocols.scoring.score_record import ScoreRecord
from iota_p2p_testnet.training_swarm import open_training_swarm, small_run
from tests.sim.test_bulletin_exchange import two_validators

RECORDS = (b"record 0", b"record 1", b"record 2")


async def know_each_other(*validations: Validation) -> None:
    """Wait until all have registered, and let them compare who has."""
    await trio.sleep(1)
    for validation in validations:
        await validation.validator.exchange.compare()


async def announce(owner: Validation, entries: tuple[bytes, ...]) -> None:
    """Let a validator sign a log of some entries, whatever it has signed before, and wait until all have heard."""
    member = owner.validator.bulletin.member
    head = TransparencyLog(owner.share.terms.run_id, member.identity.peer_id, entries).head(1)
    await owner.validator.bulletin.pass_on(HEADS, sign_tree_head(head, member.identity))
    await trio.sleep(0.2)


async def kept(by: Validation, owner: Validation) -> list[tuple[int, int]]:
    """Return size and number of signatures of the heads of a log that somebody puts into its ledger now."""
    by.validator.heads.keep(0)
    await by.write()
    me = owner.validator.bulletin.member.identity.peer_id
    heads = [open_tree_head(one.envelope, by.share.terms.run_id) for one in by.ledger.facts(TREE_HEAD.name)]
    return [(head.payload.size, len(head.signers)) for head in heads if head.payload.log_id == me]


async def test_head__is_cosigned_where_it_continues_the_last(tmp_path: Path, autojump_clock: MockClock) -> None:
    spec = small_run(tmp_path)
    async with open_training_swarm(0, spec, tmp_path) as swarm, AsyncExitStack() as stack:
        owner, other = await two_validators(tmp_path, swarm, stack, stake=1)
        for epoch, record in enumerate(RECORDS):
            owner.ledger.sign_once(ScoreRecord.domain.name, epoch, partial(bytes, record))
        await know_each_other(owner, other)
        await announce(owner, RECORDS[:1])
        await announce(owner, RECORDS)
        assert await kept(other, owner) == [(3, 2)]
        assert await kept(owner, owner) == [(3, 2)]


@pytest.mark.parametrize("rewritten", [(b"another",), (b"another", *RECORDS[1:])])
async def test_rewritten_log__gets_no_signature(
    rewritten: tuple[bytes, ...], tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Of the same size it is a proof by itself; of another, nobody can be convicted, and nobody cosigns."""
    spec = small_run(tmp_path)
    async with open_training_swarm(0, spec, tmp_path) as swarm, AsyncExitStack() as stack:
        owner, other = await two_validators(tmp_path, swarm, stack, stake=1)
        await know_each_other(owner, other)
        await announce(owner, RECORDS[:1])
        await announce(owner, rewritten)
        assert await kept(other, owner) == [(1, 2)]
        proofs = [open_equivocation_proof(one.envelope) for one in other.ledger.facts(EQUIVOCATION_KIND)]
        me = owner.validator.bulletin.member.identity.peer_id
        assert [proof.guilty for proof in proofs] == ([me] if len(rewritten) == 1 else [])
