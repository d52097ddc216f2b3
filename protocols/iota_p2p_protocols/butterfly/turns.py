"""Turns: whose turn it is to convene by our own clock, what we propose or sign then, and when signatures are enough.

Part of the roster machine (`roster_machine`); every function returns the meeting that follows and what is to be done.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import TypeAlias

from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.butterfly.contribution import Contribution
from iota_p2p_protocols.butterfly.convener import convener_order, convener_rank
from iota_p2p_protocols.butterfly.meeting import Accuse, Agreed, Attempt, Effect, LeftOut, Meeting, Phase, Send
from iota_p2p_protocols.butterfly.roster import (
    MAX_ROUNDS,
    TRIES_EACH,
    Proposal,
    Roster,
    RosterCertificate,
    certified,
    countersign,
    join_signatures,
    propose,
    quorum,
)
from iota_p2p_protocols.butterfly.roster_fault import make_roster_faults
from iota_p2p_protocols.butterfly.shard_map import MAX_MEMBERS

Step: TypeAlias = tuple[Meeting, tuple[Effect, ...]]


def advance(meeting: Meeting, now_s: float) -> Step:
    """Let turns pass that are over, convene if it is our turn, and sign what may be signed now."""
    meeting, effects = _take_turns(meeting, now_s)
    for proposal in meeting.held.values():
        if meeting.certificate is None:
            meeting, more = _judge(meeting, proposal, now_s)
            effects += more
    return meeting, effects


def turn_length_s(meeting: Meeting) -> float:
    """Return how long a turn lasts; twice as long in each further round, for networks slower than we thought."""
    return float(meeting.patience.convene_s * 2**meeting.round)


def fits(meeting: Meeting, contribution: Verified[Contribution]) -> bool:
    """Return whether a contribution is to the merge that this meeting is about."""
    return contribution.payload.merge == meeting.own.payload.merge


def add(meeting: Meeting, contribution: Verified[Contribution], now_s: float) -> Meeting:
    """Remember a contribution; of two by one peer the later one, since that is what it can serve."""
    maker, known = contribution.signer, meeting.contributions
    if maker in known and contribution.payload.sequence <= known[maker][0].payload.sequence:
        return meeting
    full = len(known) >= MAX_MEMBERS or _are_too_strange(meeting, frozenset(known) | {maker})
    if not fits(meeting, contribution) or (maker not in known and full):
        return meeting
    heard_s = known[maker][1] if maker in known else now_s
    return replace(meeting, contributions={**known, maker: (contribution, heard_s)})


def mates(meeting: Meeting) -> frozenset[PeerId]:
    """Return those who are there and began with the same weights, ourselves among them."""
    base = meeting.own.payload.base_digest
    return frozenset(
        peer_id
        for peer_id, (contribution, _) in meeting.contributions.items()
        if peer_id not in meeting.gone and contribution.payload.base_digest == base
    )


def propose_now(meeting: Meeting, attempt: int) -> Step:
    """Propose all that we know; in later rounds only those who have signed something."""
    members = mates(meeting)
    if meeting.round:
        signers = {signer for votes in meeting.votes.values() for signer in votes}
        members &= signers | {meeting.me.peer_id}
    proposal = propose([meeting.contributions[peer_id][0] for peer_id in members], attempt, meeting.me)
    key = (meeting.me.peer_id, attempt)
    meeting = replace(
        meeting,
        signed={**meeting.signed, key: proposal},
        seen={**meeting.seen, key: proposal.roster},
        judged=meeting.judged | {key},
    )
    sent = Send("roster", proposal.data, _others(meeting, members))
    meeting, effects = certify(count(meeting, proposal.roster), proposal)
    return meeting, (sent, *effects)


def own_attempt(meeting: Meeting, number: int) -> Attempt:
    """Return the key of one of our own attempts in this round."""
    return meeting.me.peer_id, meeting.round * TRIES_EACH + number


def proposals(meeting: Meeting) -> Iterator[Proposal]:
    """Yield the proposals whose signatures we count."""
    yield from meeting.signed.values()
    yield from meeting.held.values()


def count(meeting: Meeting, roster: Verified[Roster]) -> Meeting:
    """Count the signatures on a roster."""
    votes = {**meeting.votes.get(roster.digest, {}), **dict.fromkeys(roster.signers, roster)}
    return replace(meeting, votes={**meeting.votes, roster.digest: votes})


def certify(meeting: Meeting, proposal: Proposal) -> Step:
    """Put the certificate together and tell everybody, if two thirds have signed."""
    votes = meeting.votes.get(proposal.digest, {})
    if len(votes) < quorum(len(proposal.members)):
        return meeting, ()
    joined = join_signatures(proposal, list(votes.values()))
    everybody = _others(meeting, frozenset(proposal.members) | frozenset(meeting.contributions) | meeting.expected)
    return settle(meeting, certified(joined), everybody)


def settle(meeting: Meeting, certificate: RosterCertificate, to: tuple[PeerId, ...]) -> Step:
    """Take a certificate, unless we have one that goes before it, and pass it on."""
    if meeting.certificate is not None and _standing(meeting, certificate) <= _standing(meeting, meeting.certificate):
        return meeting, ()
    agreed = meeting.me.peer_id in certificate.members
    meeting = replace(
        meeting,
        phase=Phase.AGREED if agreed else Phase.LEFT_OUT,
        certificate=certificate,
        told=frozenset(to),
    )
    sent = (Send("roster", certificate.data, to),) if to else ()
    return meeting, (*sent, Agreed(certificate) if agreed else LeftOut(certificate))


def answer(meeting: Meeting, sender: PeerId) -> Step:
    """Give somebody the certificate, once."""
    certificate = meeting.certificate
    if certificate is None or sender in meeting.told or sender == meeting.me.peer_id:
        return meeting, ()
    return replace(meeting, told=meeting.told | {sender}), (Send("roster", certificate.data, (sender,)),)


def compare(meeting: Meeting, roster: Verified[Roster]) -> Step:
    """Compare a roster with the first one seen of its attempt, whatever we think of either."""
    key = (roster.payload.convener, roster.payload.attempt)
    first = meeting.seen.get(key)
    if first is None:
        known = roster.payload.convener in meeting.contributions  # which bounds how many there are
        return (replace(meeting, seen={**meeting.seen, key: roster}) if known else meeting), ()
    return meeting, tuple(map(Accuse, make_roster_faults(first, roster)))


def _take_turns(meeting: Meeting, now_s: float) -> Step:
    effects: tuple[Effect, ...] = ()
    if meeting.phase == Phase.GATHERING:
        there = meeting.expected - meeting.gone <= frozenset(meeting.contributions)
        if not there and now_s < meeting.began_s + meeting.patience.gather_s:
            return meeting, ()
    while True:
        left = mates(meeting) - meeting.passed
        if not left:
            if meeting.round + 1 == MAX_ROUNDS:
                return replace(meeting, phase=Phase.GIVEN_UP), effects
            meeting = replace(meeting, round=meeting.round + 1, passed=frozenset())
            continue
        convener = convener_order(meeting.seed, meeting.own.payload.stage, left)[0]
        if convener != meeting.convener or meeting.phase == Phase.GATHERING:
            effects += _turn_to(meeting, convener)
            phase = Phase.CONVENING if convener == meeting.me.peer_id else Phase.WAITING
            meeting = replace(meeting, phase=phase, convener=convener, turn_s=now_s)
        if now_s < meeting.turn_s + turn_length_s(meeting):
            break
        meeting = replace(meeting, passed=meeting.passed | {convener}, convener=None)
    attempt = own_attempt(meeting, 0)
    if meeting.phase == Phase.CONVENING and attempt not in meeting.signed:
        meeting, more = propose_now(meeting, attempt[1])
        effects += more
    return meeting, effects


def _turn_to(meeting: Meeting, convener: PeerId) -> tuple[Effect, ...]:
    """Say to the next convener where we stand: what we signed last, or else what we contribute."""
    if convener == meeting.me.peer_id or meeting.phase == Phase.GATHERING:
        return ()
    mine = [votes[meeting.me.peer_id] for votes in meeting.votes.values() if meeting.me.peer_id in votes]
    if mine:
        return (Send("countersignature", mine[-1].envelope_bytes, (convener,)),)
    return (Send("contribution", meeting.own.envelope_bytes, (convener,)),)


def _judge(meeting: Meeting, proposal: Proposal, now_s: float) -> Step:
    """Sign a proposal, or say whom we miss in it; once, when it is its convener's turn."""
    roster = proposal.roster.payload
    key, convener = (roster.convener, roster.attempt), PeerId(roster.convener)
    if key in meeting.judged or not _is_turn_of(meeting, proposal):
        return meeting, ()
    if _are_too_strange(meeting, frozenset(proposal.members)):
        return meeting, ()
    meeting = replace(meeting, judged=meeting.judged | {key})
    missing = _missing(meeting, proposal, now_s)
    if missing:
        return meeting, tuple(
            Send("contribution", meeting.contributions[peer_id][0].envelope_bytes, (convener,)) for peer_id in missing
        )
    vote = countersign(proposal, meeting.me)
    meeting = count(replace(meeting, signed={**meeting.signed, key: proposal}), vote)
    meeting, effects = certify(meeting, proposal)
    return meeting, (Send("countersignature", vote.envelope_bytes, (convener,)), *effects)


def _is_turn_of(meeting: Meeting, proposal: Proposal) -> bool:
    """Return whether all who convene before a proposal's convener have had their turn or are gone."""
    roster = proposal.roster.payload
    if roster.attempt // TRIES_EACH != meeting.round:
        return roster.attempt // TRIES_EACH < meeting.round
    order = convener_order(meeting.seed, roster.stage, proposal.members)
    before = order[: order.index(PeerId(roster.convener))]
    return frozenset(before) <= meeting.passed | meeting.gone


def _are_too_strange(meeting: Meeting, peers: frozenset[PeerId]) -> bool:
    """Return whether so many of some peers are unknown to us that they could crowd out or outvote those we expect.

    Views differ by a peer or two; identities cost nothing. A quarter as many as we are make a fifth of the members.
    """
    strangers = peers - meeting.expected - {meeting.me.peer_id}
    return len(strangers) > max(1, (len(meeting.expected) + 1) // 4)


def _missing(meeting: Meeting, proposal: Proposal, now_s: float) -> list[PeerId]:
    """Return those who should be in a proposal: we, and in the first round whom we expected and heard of in time."""
    owed = {meeting.me.peer_id}
    if not meeting.round:
        latest_s = now_s - meeting.patience.grace_s
        there = mates(meeting) & meeting.expected
        owed |= {peer_id for peer_id in there if meeting.contributions[peer_id][1] <= latest_s}
    return sorted(owed - set(proposal.members))


def _others(meeting: Meeting, peers: frozenset[PeerId]) -> tuple[PeerId, ...]:
    return tuple(sorted(peers - {meeting.me.peer_id}))


def _standing(meeting: Meeting, certificate: RosterCertificate) -> tuple[int, bytes, int, bytes]:
    """Return what certificates are compared by: the later convener's goes before, since it knew more."""
    roster = certificate.roster.payload
    turn, number = divmod(roster.attempt, TRIES_EACH)
    rank = convener_rank(meeting.seed, roster.stage, PeerId(roster.convener))
    return turn, rank, number, certificate.digest
