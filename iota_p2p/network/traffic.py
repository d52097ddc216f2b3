"""How many bytes a peer spends on talk that is neither activations, gradients, shards nor states."""

from dataclasses import dataclass


@dataclass(slots=True)
class Traffic:
    """Bytes of control traffic sent since the start.

    Attributes:
        gossip_bytes: of gossip messages we published; forwarding for others is the host's and not seen.
        header_bytes: of the headers of our requests and answers.
    """

    gossip_bytes: int = 0
    header_bytes: int = 0

    @property
    def control_bytes(self) -> int:
        """All of it."""
        return self.gossip_bytes + self.header_bytes
