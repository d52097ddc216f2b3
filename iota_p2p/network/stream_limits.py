"""What one peer may cost another over streams."""

from dataclasses import dataclass

_MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLimits:
    """Bounds on inbound calls, and the patience with slow peers.

    Attributes:
        max_payload_bytes: of all requests being received or handled. 1 GiB is some hundred shards.
        max_payload_bytes_per_peer: the same for one peer; no protocol may allow a larger payload.
        max_calls: requests handled at a time.
        max_calls_per_peer: the same for one peer; more are refused as `busy`.
        max_streams_per_peer: open inbound streams of one peer, idle ones among them; more are reset.
        header_timeout_s: from a frame's first byte (or a new stream's beginning) to the end of its header;
            behind a few windows of bulk data on a home uplink it takes seconds.
        grace_s: what a payload may take besides its length divided by `min_bytes_per_s`.
        min_bytes_per_s: the slowest payload we wait for, in or out; a slow home uplink does ten times as much.
        idle_s: how long we keep a stream that somebody opened to us and does not use.
        max_idle_streams: of those that we opened, kept for the next call; per peer and protocol.
        reuse_s: how long we keep those: well below `idle_s`, so that the other side seldom closes first.
    """

    max_payload_bytes: int = 1024 * _MIB
    max_payload_bytes_per_peer: int = 256 * _MIB
    max_calls: int = 256
    max_calls_per_peer: int = 32
    max_streams_per_peer: int = 64
    header_timeout_s: float = 10.0
    grace_s: float = 5.0
    min_bytes_per_s: float = 16 * 1024
    idle_s: float = 90.0
    max_idle_streams: int = 4
    reuse_s: float = 30.0
