"""What validators and holders of evidence say by gossip, and the rules each topic applies before anybody listens.

Every one of these is signed, current and by its author; what else they must be is checked where it is used, when seed
and electorate are known.
"""

from collections.abc import Container
from typing import TypeVar

from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import PeerId
from iota_p2p_crypto.tree_head import TreeHead, open_tree_head
from iota_p2p_protocols.butterfly.merge_certificate import Merge, open_merge_certificate
from iota_p2p_protocols.errors import IgnoreError, RejectError, RemoteProtocolError, StaleError
from iota_p2p_protocols.message import Opener, open_gossip, open_message, open_signed
from iota_p2p_protocols.scoring.accusation import Accusation
from iota_p2p_protocols.scoring.evidence import EvidenceCommitment
from iota_p2p_protocols.scoring.preference import Preference
from iota_p2p_protocols.scoring.replay_finding import ReplayFinding
from iota_p2p_protocols.scoring.result import EpochResult
from iota_p2p_protocols.scoring.score_record import ScoreRecord
from iota_p2p_protocols.scoring.work_commitment import WorkCommitment

# Epochs back that are still being talked about: work is done, scored, revealed and paid out in four.
KEPT_EPOCHS = 4

Scored = TypeVar("Scored", Accusation, EvidenceCommitment, Preference, ReplayFinding, ScoreRecord, WorkCommitment)


def validate_of_epoch(
    data: bytes,
    author: PeerId,
    kind: type[Scored],
    *,
    run_id: bytes,
    epoch: int,
    now_s: float,
    opener: Opener = open_signed,
) -> Verified[Scored]:
    """Check a commitment or a record; `epoch` is ours.

    Raises:
        IgnoreError: as `open_gossip`, or if it is about an epoch that nobody talks about.
        RejectError: as `open_gossip`.
    """
    verified = open_gossip(data, author, kind, run_id=run_id, now_s=now_s, opener=opener)
    check_epoch(verified, epoch)
    return verified


def validate_accusation(accusation: Verified[Accusation], known: Container[PeerId]) -> Verified[Accusation]:
    """Check an accusation that is one of `validate_of_epoch`; `known` are the peers of our view.

    Raises:
        IgnoreError: if it is against a stranger: anybody may make a key that proves itself guilty, and many of them.
    """
    # [IGNORE] it is against a peer of this network
    if accusation.payload.accused not in known:
        raise IgnoreError("accusation-stranger", f"expected a known peer, got {accusation.payload.accused}")
    return accusation


def validate_head(data: bytes, author: PeerId, *, run_id: bytes) -> Verified[TreeHead]:
    """Check the head of a validator's log, with any number of cosignatures, one of which is its author's.

    Raises:
        RejectError: if it breaks a rule, or its author has not signed it.
    """
    try:
        head = open_tree_head(data, run_id)
    except RemoteProtocolError as error:
        raise RejectError(error.rule, str(error)) from error
    # [REJECT] its author stands behind it, so that every message has somebody to charge
    if author not in head.signers:
        raise RejectError("gossip-author", f"expected a head signed by {author} among others, got {head.signers}")
    return head


def validate_result(
    data: bytes, author: PeerId, *, run_id: bytes, epoch: int, now_s: float, opener: Opener = open_signed
) -> Verified[EpochResult]:
    """Check a vote for a result, or a result with several votes, one of which is its author's.

    Raises:
        IgnoreError: if it has expired, or is about an epoch that nobody talks about.
        RejectError: if it breaks a rule, or its author has not signed it.
    """
    try:
        verified = open_message(data, EpochResult, run_id=run_id, now_s=now_s, opener=opener)
    except StaleError as error:
        raise IgnoreError(error.rule, str(error)) from error
    except RemoteProtocolError as error:
        raise RejectError(error.rule, str(error)) from error
    # [REJECT] its author stands behind it, so that every message has somebody to charge
    if author not in verified.signers:
        raise RejectError("gossip-author", f"expected a result signed by {author} among others, got {verified.signers}")
    check_epoch(verified, epoch)
    return verified


def validate_certified_merge(
    data: bytes, author: PeerId, *, run_id: bytes, epoch: int, now_s: float, opener: Opener = open_signed
) -> Verified[Merge]:
    """Check a merge's certificate, published by one of its signers.

    Raises:
        IgnoreError: if it has expired, or is about an epoch that nobody talks about.
        RejectError: if it breaks a rule, or its author has not signed it.
    """
    try:
        open_message(data, Merge, run_id=run_id, now_s=now_s, opener=opener)
        verified = open_merge_certificate(data, opener)
    except StaleError as error:
        raise IgnoreError(error.rule, str(error)) from error
    except RemoteProtocolError as error:
        raise RejectError(error.rule, str(error)) from error
    # [REJECT] its author stands behind it, so that every message has somebody to charge
    if author not in verified.signers:
        raise RejectError("gossip-author", f"expected a merge signed by {author} among others, got {verified.signers}")
    check_epoch(verified, epoch)
    return verified


def check_epoch(verified: Verified[Scored] | Verified[EpochResult] | Verified[Merge], epoch: int) -> None:
    """Raise IgnoreError unless a message is about the current epoch or one of the KEPT_EPOCHS before it.

    One epoch ahead is heard, too: its author may have turned before us.
    """
    about = verified.payload.epoch
    # [IGNORE] it is about an epoch still in question
    if not epoch - KEPT_EPOCHS <= about <= epoch + 1:
        raise IgnoreError("scoring-epoch", f"expected epoch {epoch - KEPT_EPOCHS} to {epoch + 1}, got {about}")
