"""The one table of what may be signed: a payload type per purpose and schema version.

The payload type is part of every signature (DSSE), so a signature made for one purpose is worthless for another.
A new schema version is a new row, never a changed one.
"""

from dataclasses import dataclass

_KIB = 1024


@dataclass(frozen=True, slots=True)
class Domain:
    """One purpose of signing.

    Attributes:
        name: the purpose, as `iota-p2p inspect` prints it.
        version: the schema version of its payload.
        max_payload_bytes: the largest payload accepted; checked before anything is decoded.
        max_signatures: the most signatures one envelope may carry.
    """

    name: str
    version: int
    max_payload_bytes: int
    max_signatures: int = 1

    @property
    def payload_type(self) -> str:
        """The DSSE payload type."""
        return f"application/vnd.iota-p2p.{self.name}+msgpack;v={self.version}"


# 16 addresses of 256 bytes and 64 stages are the bulk; a typical advert has 400 bytes.
ADVERT = Domain("advert", 1, 8 * _KIB)
# A peer id, a sequence number and a reason.
ABSENCE = Domain("absence", 1, 1 * _KIB)
# 128 bytes of digests and integers.
TREE_HEAD = Domain("tree-head", 1, 1 * _KIB, max_signatures=64)  # the log's owner and its cosigners
# A table of up to 1,000 peers at 150 bytes each.
SCORE = Domain("score", 1, 256 * _KIB)
# Three digests, a stage and a direction: 113 bytes.
RECEIPT = Domain("receipt", 2, 256)
# Up to 63 receipts of 311 bytes, and 250 bytes about the loss.
LOSS_RECORD = Domain("loss-record", 1, 24 * _KIB)
# A digest, a stage, a reason and a length: 100 bytes.
REFUSAL = Domain("refusal", 1, 256)
# Some 160 bytes of counts.
PROGRESS = Domain("progress", 1, 1 * _KIB)
# Some 170 bytes: an epoch, a stake, a flag.
REGISTRATION = Domain("registration", 1, 512)
# Some 250 bytes: a root and counts.
EVIDENCE = Domain("evidence", 1, 512)
# A root, counts, and 34 bytes for each of 17 checkpoints and 15 stashes: 1.4 KiB.
WORK = Domain("work", 2, 2 * _KIB)
# Some 230 bytes: whose work, and where in it.
REPLAY_FINDING = Domain("replay-finding", 1, 512)
# Some 260 bytes: whom, of what, and the digest of the proof.
ACCUSATION = Domain("accusation", 1, 512)
# The digests of 64 records.
PREFERENCE = Domain("preference", 1, 4 * _KIB)
# A row of some 60 bytes for each of 1,000 peers, and the digests of 64 records; the quorum signs it.
RESULT = Domain("result", 1, 128 * _KIB, max_signatures=64)
# Progress of up to 64 sources, 400 bytes each.
EPOCH_CLOSE = Domain("epoch-close", 1, 32 * _KIB)
# Four digests and some counts: 330 bytes.
CONTRIBUTION = Domain("contribution", 2, 512)
# 64 peer ids and digests; two thirds of them sign it.
ROSTER = Domain("roster", 1, 8 * _KIB, max_signatures=64)
# 64 peer ids, the digests of 64 rows and the numbers of the shards that were lost; two thirds of the members sign it.
MERGE = Domain("merge", 2, 12 * _KIB, max_signatures=64)
# 64 peer ids and the numbers of the shards that were lost; two thirds of the members sign it.
ROW_MEAN = Domain("row-mean", 1, 12 * _KIB, max_signatures=64)
# A digest and a list of missing members for each of 63 shards.
REDUCER_REPORT = Domain("reducer-report", 1, 12 * _KIB)
# Three digests, lengths and counts: 300 bytes.
STATE_MANIFEST = Domain("state-manifest", 1, 512)
# Some 270 bytes: an account and its signature.
PAYOUT_BINDING = Domain("payout-binding", 1, 512)
# Some 430 bytes: a contract, a root, a total and a signature.
SETTLEMENT_VOTE = Domain("settlement-vote", 1, 1 * _KIB)

DOMAINS: tuple[Domain, ...] = (
    ABSENCE,
    ACCUSATION,
    ADVERT,
    CONTRIBUTION,
    EPOCH_CLOSE,
    EVIDENCE,
    LOSS_RECORD,
    MERGE,
    PAYOUT_BINDING,
    PREFERENCE,
    PROGRESS,
    RECEIPT,
    REDUCER_REPORT,
    REFUSAL,
    REGISTRATION,
    REPLAY_FINDING,
    RESULT,
    ROSTER,
    ROW_MEAN,
    SCORE,
    SETTLEMENT_VOTE,
    STATE_MANIFEST,
    TREE_HEAD,
    WORK,
)

DOMAIN_BY_PAYLOAD_TYPE = {domain.payload_type: domain for domain in DOMAINS}
MAX_PAYLOAD_BYTES = max(domain.max_payload_bytes for domain in DOMAINS)
