"""How many bytes a peer spends on talk that is neither activations, gradients, shards nor states, and its rates."""

from dataclasses import dataclass, field

from iota_p2p.network.rate_meter import RateMeter


@dataclass(slots=True)
class Traffic:
    """Bytes of control traffic sent since the start, and how fast large payloads went.

    Attributes:
        gossip_bytes: of gossip messages we published; forwarding for others is the host's and not seen.
        header_bytes: of the headers of our requests and answers.
        upload: of payloads we sent.
        download: of payloads we received.
    """

    gossip_bytes: int = 0
    header_bytes: int = 0
    upload: RateMeter = field(default_factory=RateMeter)
    download: RateMeter = field(default_factory=RateMeter)

    @property
    def control_bytes(self) -> int:
        """All of it."""
        return self.gossip_bytes + self.header_bytes
