"""The roster machine: how one member comes to a roster certificate, or learns that it is left out.

    state, effects = begin(...)
    state, effects = step(state, event, now_s)        # for everything that happens, and at `wake_at_s(state)`

A pure function of its arguments: `step` looks up what to do by the phase it is in and the event, and hands back what is
to be sent. What protects the members:

- a member signs at most one roster of each convener and attempt, so that for one set of members, fewer than a third of
  which lie, no attempt has two certificates, and whoever signs two is proved guilty by them (`roster_fault`);
- it signs only what has its own contribution and all others that it has had for a while, so that nobody is left out
  while two thirds know of it;
- it signs only for the convener whose turn it is by its own clock, and nothing more once it knows a certificate;
- of two certificates, which only lost turns and late messages can bring about, everybody takes the one whose convener
  came later, so that all who hear of both end with the same one.

When a whole round of conveners has failed, a third of the members is dead or lies, and waiting for them is of no use:
from then on conveners propose those who have signed, and nobody insists on others.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import Identity, PeerId
from iota_p2p_protocols.butterfly.contribution import Contribution
from iota_p2p_protocols.butterfly.meeting import (
    DEFAULT_PATIENCE,
    Astray,
    Contributed,
    Countersigned,
    Effect,
    Event,
    Gone,
    Meeting,
    Patience,
    Phase,
    Proposed,
    Send,
    Tick,
)
from iota_p2p_protocols.butterfly.roster import certified, quorum
from iota_p2p_protocols.butterfly.turns import (
    Step,
    add,
    advance,
    answer,
    certify,
    compare,
    count,
    fits,
    mates,
    own_attempt,
    proposals,
    propose_now,
    settle,
    turn_length_s,
)

Rule: TypeAlias = Callable[[Meeting, Any, float], Step]


def begin(
    me: Identity,
    seed: bytes,
    own: Verified[Contribution],
    expected: frozenset[PeerId],
    *,
    now_s: float,
    patience: Patience = DEFAULT_PATIENCE,
) -> Step:
    """Begin to make a roster: send our contribution to whom we expect.

    Must be called once for a stage and epoch, even across restarts: a peer that may have signed before it was killed
    takes no part in that roster, or it might sign a second one.
    """
    meeting = Meeting(me, seed, own, patience, expected - {me.peer_id}, now_s, contributions={me.peer_id: (own, now_s)})
    sent = Send("contribution", own.envelope_bytes, tuple(sorted(meeting.expected)))
    meeting, effects = advance(meeting, now_s)
    return meeting, (sent, *effects)


def step(meeting: Meeting, event: Event, now_s: float) -> Step:
    """Take in an event; return what follows and what is to be done."""
    rule = RULES[meeting.phase].get(type(event))
    return (meeting, ()) if rule is None else rule(meeting, event, now_s)


def wake_at_s(meeting: Meeting) -> float | None:
    """Return when time alone changes something: the next Tick; None if it never does."""
    if meeting.phase == Phase.GATHERING:
        return meeting.began_s + meeting.patience.gather_s
    if meeting.phase in (Phase.WAITING, Phase.CONVENING):
        return meeting.turn_s + turn_length_s(meeting)
    return None


def _contributed(meeting: Meeting, event: Contributed, now_s: float) -> Step:
    """Take a contribution; whoever passes on another's misses it in our proposal, and we propose once more."""
    maker = event.contribution.signer
    meeting = add(meeting, event.contribution, now_s)
    if event.sender == maker and maker in meeting.gone:
        meeting = replace(meeting, gone=meeting.gone - {maker})
    if meeting.phase == Phase.CONVENING and event.sender != maker:
        first, second = own_attempt(meeting, 0), own_attempt(meeting, 1)
        missing = first in meeting.signed and maker not in meeting.signed[first].members and maker in mates(meeting)
        if missing and second not in meeting.signed:
            return propose_now(meeting, second[1])
    return advance(meeting, now_s)


def _proposed(meeting: Meeting, event: Proposed, now_s: float) -> Step:
    """Take a roster: a certificate settles it, a proposal is held until it is its convener's turn."""
    proposal, roster = event.proposal, event.proposal.roster.payload
    if not fits(meeting, proposal.contributions[0]) or proposal.base_digest != meeting.own.payload.base_digest:
        return meeting, ()
    meeting, accused = compare(meeting, proposal.roster)
    for contribution in proposal.contributions:
        meeting = add(meeting, contribution, now_s)
    convener = PeerId(roster.convener)
    if event.sender == convener and convener in meeting.gone:
        meeting = replace(meeting, gone=meeting.gone - {convener})
    if len(proposal.roster.signers) >= quorum(len(proposal.members)):
        meeting, effects = settle(meeting, certified(proposal), ())
        return meeting, (*accused, *effects)
    held = meeting.held.get(convener)
    if convener in meeting.contributions and (held is None or held.roster.payload.attempt < roster.attempt):
        meeting = replace(meeting, held={**meeting.held, convener: proposal})
    meeting, effects = advance(meeting, now_s)
    return meeting, (*accused, *effects)


def _countersigned(meeting: Meeting, event: Countersigned, _: float) -> Step:
    """Count a countersignature; with two thirds of them there is a certificate, whoever's turn it is."""
    roster = event.roster
    meeting, accused = compare(meeting, roster)
    proposal = next((one for one in proposals(meeting) if one.digest == roster.digest), None)
    if proposal is None or not set(roster.signers) <= set(proposal.members):
        return meeting, accused
    meeting = count(meeting, roster)
    meeting, effects = certify(meeting, proposal)
    return meeting, (*accused, *effects)


def _gone(meeting: Meeting, event: Gone, now_s: float) -> Step:
    if event.peer_id == meeting.me.peer_id:
        return meeting, ()
    return advance(replace(meeting, gone=meeting.gone | {event.peer_id}), now_s)


def _tick(meeting: Meeting, _: Tick, now_s: float) -> Step:
    return advance(meeting, now_s)


def _tell(meeting: Meeting, event: Contributed | Countersigned | Astray, _: float) -> Step:
    """Tell somebody who is still at it, or follows another one, that there is a certificate."""
    accused: tuple[Effect, ...] = ()
    if isinstance(event, Countersigned):
        meeting, accused = compare(meeting, event.roster)
    meeting, effects = answer(meeting, event.sender)
    return meeting, (*accused, *effects)


def _proposed_late(meeting: Meeting, event: Proposed, _: float) -> Step:
    """Judge a roster when there is a certificate: another certificate may be the one to take."""
    proposal = event.proposal
    if not fits(meeting, proposal.contributions[0]) or proposal.base_digest != meeting.own.payload.base_digest:
        return meeting, ()
    meeting, accused = compare(meeting, proposal.roster)
    effects: tuple[Effect, ...] = ()
    if len(proposal.roster.signers) >= quorum(len(proposal.members)):
        meeting, effects = settle(meeting, certified(proposal), ())
    if meeting.certificate is None or meeting.certificate.digest != proposal.digest:
        meeting, more = answer(meeting, event.sender)
        effects += more
    return meeting, (*accused, *effects)


_OPEN: Mapping[type[Event], Rule] = {
    Contributed: _contributed,
    Proposed: _proposed,
    Countersigned: _countersigned,
    Gone: _gone,
    Tick: _tick,
}
_SETTLED: Mapping[type[Event], Rule] = {
    Contributed: _tell,
    Proposed: _proposed_late,
    Countersigned: _tell,
    Astray: _tell,
}
# What is done in each phase when something happens; what is not listed changes nothing.
RULES: Mapping[Phase, Mapping[type[Event], Rule]] = {
    Phase.GATHERING: _OPEN,
    Phase.WAITING: _OPEN,
    Phase.CONVENING: _OPEN,
    Phase.AGREED: _SETTLED,
    Phase.LEFT_OUT: _SETTLED,
    Phase.GIVEN_UP: {Proposed: _proposed_late},
}
