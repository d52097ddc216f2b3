"""Which payload belongs to which domain, for readers that meet an envelope of unknown purpose."""

from collections.abc import Mapping

from iota_p2p_crypto.domains import Domain
from iota_p2p_protocols.absence import Absence
from iota_p2p_protocols.advert import Advert
from iota_p2p_protocols.butterfly.contribution import Contribution
from iota_p2p_protocols.butterfly.merge_certificate import Merge
from iota_p2p_protocols.butterfly.reducer_report import ReducerReport
from iota_p2p_protocols.butterfly.roster import Roster
from iota_p2p_protocols.epoch_close import EpochClose
from iota_p2p_protocols.loss_record import LossRecord
from iota_p2p_protocols.message import Message
from iota_p2p_protocols.progress import Progress
from iota_p2p_protocols.receipt import Receipt
from iota_p2p_protocols.refusal import Refusal
from iota_p2p_protocols.scoring.accusation import Accusation
from iota_p2p_protocols.scoring.election import Registration
from iota_p2p_protocols.scoring.evidence import EvidenceCommitment
from iota_p2p_protocols.scoring.preference import Preference
from iota_p2p_protocols.scoring.replay_finding import ReplayFinding
from iota_p2p_protocols.scoring.result import EpochResult
from iota_p2p_protocols.scoring.score_record import ScoreRecord
from iota_p2p_protocols.scoring.work_commitment import WorkCommitment
from iota_p2p_protocols.settlement.payout_binding import PayoutBinding
from iota_p2p_protocols.settlement.settlement_vote import SettlementVote
from iota_p2p_protocols.state_manifest import StateManifest

KIND_BY_DOMAIN: Mapping[Domain, type[Message]] = {
    kind.domain: kind
    for kind in (
        Absence,
        Accusation,
        Advert,
        Contribution,
        EpochClose,
        EpochResult,
        EvidenceCommitment,
        LossRecord,
        Merge,
        PayoutBinding,
        Preference,
        Progress,
        Receipt,
        ReducerReport,
        Refusal,
        Registration,
        ReplayFinding,
        Roster,
        ScoreRecord,
        SettlementVote,
        StateManifest,
        WorkCommitment,
    )
}
