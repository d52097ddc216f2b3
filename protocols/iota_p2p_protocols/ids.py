"""The one table of protocol ids and topics, each with its bounds and the reason for them.

A protocol id is `/iota-p2p/<name>/<schema version>`; a topic is `iota-p2p/<run id>/<name>/<schema version>`, so
that runs never hear each other's gossip.
"""

from dataclasses import dataclass

_KIB = 1024

PROTOCOL_VERSION = 1  # what we speak; hello also accepts the one before (see `hello`)
OLDEST_PROTOCOL_VERSION = 1

RUN_ID_BYTES = 32
# A network that belongs to no run yet (`iota-p2p peer` without `--run`): 32 zero bytes.
NO_RUN = bytes(RUN_ID_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolSpec:
    """A request/response protocol over streams.

    Attributes:
        id: the protocol id negotiated by the transport.
        max_header_bytes: the largest canonical header of a request or response.
        max_payload_bytes: the largest raw payload that follows a header.
        idempotent: True if sending the same request twice does no harm, so that a call may be retried by itself.
    """

    id: str
    max_header_bytes: int
    max_payload_bytes: int = 0
    idempotent: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSpec:
    """A gossip topic.

    Attributes:
        name: the purpose, part of the topic's full name.
        version: the schema version of its messages.
        max_bytes: the largest message.
        messages_per_minute: how many one author may publish per minute, on average.
        burst: how many one author may publish at once.
    """

    name: str
    version: int
    max_bytes: int
    messages_per_minute: int
    burst: int

    def full_name(self, run_id: bytes) -> str:
        """Return the topic's name on the wire for a run."""
        return f"iota-p2p/{run_id.hex()}/{self.name}/{self.version}"


# Who are you, what do you speak, what time is it: two small envelopes.
HELLO = ProtocolSpec(id="/iota-p2p/hello/1", max_header_bytes=4 * _KIB)
# Stay on the line: a request that is not answered while the callee lives. The end of the stream is how a watcher
# hears at once that a peer has died.
WATCH = ProtocolSpec(id="/iota-p2p/watch/1", max_header_bytes=1 * _KIB)
# What do you believe: a digest of the view, then adverts and absences the other lacks. One answer holds at most
# 1,024 entries of some 400 bytes; larger views take several exchanges.
VIEW = ProtocolSpec(id="/iota-p2p/view/1", max_header_bytes=256 * _KIB, max_payload_bytes=1024 * _KIB)
# Can you dial me at these addresses: for `iota-p2p doctor`. Dialling twice does no harm.
DIAL_BACK = ProtocolSpec(id="/iota-p2p/dial-back/1", max_header_bytes=4 * _KIB)
# One microbatch into the next stage and its gradient back. The header holds up to 63 receipts of 311 bytes, or a
# loss record with as many; the payload bound is one microbatch of 8 x 2048 tokens, 2048 wide, uncompressed in bf16
# (each run's own exact length is checked besides). A stage does the work twice when asked twice: not idempotent.
ACTIVATION = ProtocolSpec(
    id="/iota-p2p/activation/2", max_header_bytes=32 * _KIB, max_payload_bytes=64 * 1024 * _KIB, idempotent=False
)

# A forward pass for the held-out loss or for text; the header may hold a prompt, the answer one row of logits.
INFERENCE = ProtocolSpec(id="/iota-p2p/inference/1", max_header_bytes=96 * _KIB, max_payload_bytes=64 * 1024 * _KIB)

# What run are you in: the canonical spec as payload, whose own bound this is (`iota_p2p.run.spec`).
RUN_SPEC = ProtocolSpec(id="/iota-p2p/run-spec/1", max_header_bytes=1 * _KIB, max_payload_bytes=512 * _KIB)
# A piece of a data shard: one holds a whole shard of 2^20 four-byte ids and its header.
SHARD = ProtocolSpec(id="/iota-p2p/shard/1", max_header_bytes=1 * _KIB, max_payload_bytes=(4 * 1024 + 1) * _KIB)
# A stage's state: its signed manifest with the digests of all its chunks, or one chunk by its digest. The list of
# chunks is the largest payload, and bounds a state to 128 GiB.
STATE = ProtocolSpec(id="/iota-p2p/state/2", max_header_bytes=16 * _KIB, max_payload_bytes=4 * 1024 * _KIB)
# Keep a state of mine: the same manifest and list, then the chunks that are missing. Putting twice does no harm.
CUSTODY = ProtocolSpec(id="/iota-p2p/custody/1", max_header_bytes=16 * _KIB, max_payload_bytes=4 * 1024 * _KIB)
# Merging: signed notes, 64 KiB for a roster with 64 contributions, and blocks: 16 MiB of them and a list of 2 MiB.
MERGE = ProtocolSpec(id="/iota-p2p/merge/2", max_header_bytes=128 * _KIB, max_payload_bytes=18 * 1024 * _KIB)

# The loss records behind an evidence commitment, a few hundred to some thousand at a time: 8 MiB hold 3,000 of eight
# stages, and are all that is asked for again when the stream breaks.
EVIDENCE = ProtocolSpec(id="/iota-p2p/evidence/1", max_header_bytes=1 * _KIB, max_payload_bytes=8 * 1024 * _KIB)

# What a work commitment rests on: the log, a checkpoint or a stash in pieces of 8 MiB, or payloads by digest, each at
# most as long as an activation.
REPLAY = ProtocolSpec(id="/iota-p2p/replay/3", max_header_bytes=16 * _KIB, max_payload_bytes=64 * 1024 * _KIB + 4)

# What registrations and accusations have you that I lack: the digests of 4,096, and a thousand envelopes.
BULLETIN = ProtocolSpec(id="/iota-p2p/bulletin/1", max_header_bytes=160 * _KIB, max_payload_bytes=1024 * _KIB)
# How your log of records goes on from one size to another: a proof of 64 digests.
LOG = ProtocolSpec(id="/iota-p2p/log/1", max_header_bytes=4 * _KIB)
# The proof behind an accusation, whole: a merge's, with a block of each of 64 members, has 4.4 MiB (`fault_file`).
PROOF = ProtocolSpec(id="/iota-p2p/proof/1", max_header_bytes=1 * _KIB, max_payload_bytes=4424 * _KIB)

PROTOCOLS: tuple[ProtocolSpec, ...] = (
    ACTIVATION,
    BULLETIN,
    CUSTODY,
    DIAL_BACK,
    EVIDENCE,
    HELLO,
    INFERENCE,
    LOG,
    MERGE,
    PROOF,
    REPLAY,
    RUN_SPEC,
    SHARD,
    STATE,
    VIEW,
    WATCH,
)

# A peer announces itself when something material changes and twice per lifetime (`advert`); a burst covers a
# restart followed by measuring, choosing a stage and refuting an absence.
ADVERTS = TopicSpec(name="adverts", version=1, max_bytes=9 * _KIB, messages_per_minute=12, burst=24)
# A peer watches a handful of others; in a large partition all of them vanish at once.
ABSENCES = TopicSpec(name="absences", version=1, max_bytes=2 * _KIB, messages_per_minute=30, burst=60)
# A peer counts its work on each of its stages every few seconds; a lone peer may hold all 64 of them.
PROGRESS = TopicSpec(name="progress", version=1, max_bytes=2 * _KIB, messages_per_minute=60, burst=64)
# Whoever sees an epoch's target reached says so, once; epochs of a few seconds are for tests.
EPOCHS = TopicSpec(name="epochs", version=1, max_bytes=34 * _KIB, messages_per_minute=12, burst=8)
# One for each stage that a peer holds and for each epoch.
CONTRIBUTIONS = TopicSpec(name="contributions", version=1, max_bytes=1 * _KIB, messages_per_minute=128, burst=128)
# The certificate of each merge, published by who put it together.
MERGES = TopicSpec(name="merges", version=1, max_bytes=20 * _KIB, messages_per_minute=128, burst=128)

# A validator offers itself at the start and twice a day; a burst covers a crowd that passes on what others said.
REGISTRATIONS = TopicSpec(name="registrations", version=1, max_bytes=1 * _KIB, messages_per_minute=6, burst=12)
# Two an epoch, of some seconds at least: as a tail and as a source.
COMMITMENTS = TopicSpec(name="commitments", version=1, max_bytes=1 * _KIB, messages_per_minute=60, burst=16)
# One for each stage that a peer held and for each epoch, as contributions.
WORK = TopicSpec(name="work", version=2, max_bytes=3 * _KIB, messages_per_minute=128, burst=128)
# A validator looks at a few peers an epoch, of which an honest network has none to tell of.
FINDINGS = TopicSpec(name="findings", version=1, max_bytes=1 * _KIB, messages_per_minute=60, burst=16)
# One for each proof that a peer found, of which an honest network has none and a bad merge some dozens.
FAULTS = TopicSpec(name="faults", version=1, max_bytes=1 * _KIB, messages_per_minute=64, burst=64)
# One an epoch; GossipSub carries a record of 1,000 peers.
SCORES = TopicSpec(name="scores", version=1, max_bytes=264 * _KIB, messages_per_minute=30, burst=8)
# One an epoch, and a cosignature of each other validator's; the envelope holds up to 64 signatures.
HEADS = TopicSpec(name="heads", version=1, max_bytes=9 * _KIB, messages_per_minute=256, burst=128)
# One a round, of three an epoch.
PREFERENCES = TopicSpec(name="preferences", version=1, max_bytes=5 * _KIB, messages_per_minute=90, burst=16)
# A vote and a certified result an epoch.
RESULTS = TopicSpec(name="results", version=1, max_bytes=136 * _KIB, messages_per_minute=60, burst=16)

TOPICS: tuple[TopicSpec, ...] = (
    ABSENCES,
    ADVERTS,
    COMMITMENTS,
    CONTRIBUTIONS,
    EPOCHS,
    FAULTS,
    FINDINGS,
    HEADS,
    MERGES,
    PREFERENCES,
    PROGRESS,
    REGISTRATIONS,
    RESULTS,
    SCORES,
    WORK,
)
