"""What gossip missed comes by comparing bulletins: two validators have one electorate."""

# ruff: noqa: ARG001 - pytest-trio turns the clock only for tests that name it as an argument

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from trio.testing import MockClock

from iota_p2p.network.streams import Request, Response
from iota_p2p.validation.validation import Validation, open_validation
from iota_p2p_crypto.envelope import Verified, merge_signatures
from iota_p2p_crypto.identity import Identity, PeerId
from iota_p2p_protocols.ids import BULLETIN
from iota_p2p_protocols.message import open_signed, seal_message
from iota_p2p_protocols.scoring.election import Registration
from iota_p2p_protocols.scoring.result import EpochResult
from iota_p2p_testnet.training_swarm import TrainingSwarm, open_training_swarm, small_run
from tests.sim.test_validation import config_of

UNHEARD = Identity.from_seed(bytes([77]) * 32)


async def two_validators(folder: Path, swarm: TrainingSwarm, stack: AsyncExitStack, stake: int = 0) -> list[Validation]:
    """Start two peers that know each other; without a stake they do not offer themselves."""
    validations = []
    for number in range(2):
        member = await swarm.start(number, pinned=(number,))
        config = replace(config_of(folder, member, stack), stake=stake)
        validations.append(await stack.enter_async_context(open_validation(member.peer, member.trainer.share, config)))
    await swarm.until(lambda: all(len(one.peer.view.live()) == 2 for one in swarm.members.values()))
    return validations


def registration(run_id: bytes, now_s: float) -> bytes:
    fields = {"run_id": run_id, "sequence": 1, "issued_s": int(now_s), "expires_s": int(now_s) + 3600}
    return seal_message(Registration.model_validate({**fields, "epoch": 0, "stake": 1}), UNHEARD)


async def test_comparing__brings_a_registration_that_gossip_missed(tmp_path: Path, autojump_clock: MockClock) -> None:
    spec = small_run(tmp_path)
    async with open_training_swarm(0, spec, tmp_path) as swarm, AsyncExitStack() as stack:
        one, other = await two_validators(tmp_path, swarm, stack)
        heard = one.validator.bulletin
        envelope = registration(spec.run_id, heard.member.clock())
        heard.take_registration(open_signed(envelope, Registration))
        assert UNHEARD.peer_id not in other.validator.bulletin.registrations
        await other.validator.exchange.compare()
        assert [found.envelope_bytes for found in other.validator.bulletin.registrations[UNHEARD.peer_id]] == [envelope]


def result(run_id: bytes, now_s: float, signers: Sequence[Identity]) -> Verified[EpochResult]:
    fields = {"run_id": run_id, "sequence": 0, "issued_s": int(now_s), "expires_s": int(now_s) + 3600, "epoch": 0}
    payload = EpochResult.model_validate(
        {**fields, "seed": bytes(32), "records": (bytes(32),), "pot": 0, "payouts": ()}
    )
    merged = merge_signatures(sorted(seal_message(payload, signer) for signer in signers))
    return open_signed(merged, EpochResult)


async def test_comparing__brings_a_result_that_a_quorum_signed(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Of two candidates both are a quorum; what one of them says is no result."""
    spec = small_run(tmp_path)
    async with open_training_swarm(0, spec, tmp_path) as swarm, AsyncExitStack() as stack:
        one, other = await two_validators(tmp_path, swarm, stack, stake=1)
        await swarm.until(lambda: all(each.validator.bulletin.registrations for each in (one, other)))
        heard, both = one.validator.bulletin, [member.peer.identity for member in swarm.members.values()]
        for signers, taken in ((both[:1], False), ([*both[:1], UNHEARD], False), (both, True)):
            heard.certified = result(spec.run_id, heard.member.clock(), signers)
            await other.validator.exchange.compare()
            assert (other.validator.bulletin.certified is not None) == taken


async def test_comparing__charges_who_passes_on_what_does_not_hold(tmp_path: Path, autojump_clock: MockClock) -> None:
    spec = small_run(tmp_path)
    async with open_training_swarm(0, spec, tmp_path) as swarm, AsyncExitStack() as stack:
        liar, honest = await two_validators(tmp_path, swarm, stack)
        member = liar.validator.bulletin.member
        envelope = registration(bytes(32), member.clock())

        async def lie(_: PeerId, request: Request) -> Response:
            del request
            return Response({}, len(envelope).to_bytes(4, "big") + envelope)

        await member.network.streams.serve(BULLETIN, lie)
        await honest.validator.exchange.compare()
        assert not honest.validator.bulletin.registrations
        charged = honest.validator.bulletin.member.network.ledger.counts(member.identity.peer_id)
        assert charged == {"run-id": 1}
