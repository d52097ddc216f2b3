"""Simulated DHT: provider records that lie with the hosts closest to their key, and expire."""

from dataclasses import dataclass
from hashlib import sha256

from iota_p2p_crypto.identity import PeerId

# go-libp2p-kad-dht: how many hosts are asked to keep a record, and for how long they do.
REPLICATION = 20
RECORD_LIFE_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class _Record:
    expires_s: float
    holders: frozenset[PeerId]


class ProviderRecords:
    """All provider records of the simulated network."""

    def __init__(self) -> None:
        self._records: dict[bytes, dict[PeerId, _Record]] = {}

    def provide(self, key: bytes, provider: PeerId, hosts: list[PeerId], now_s: float) -> None:
        """Leave a record with those of `hosts` that are closest to the key; `hosts` are those in reach."""
        closest = sorted(hosts, key=lambda peer_id: _distance(key, peer_id))[:REPLICATION]
        self._records.setdefault(key, {})[provider] = _Record(now_s + RECORD_LIFE_S, frozenset(closest))

    def find(self, key: bytes, hosts: list[PeerId], now_s: float) -> list[PeerId]:
        """Return in a fixed order the providers whose record any of `hosts` still holds."""
        in_reach = set(hosts)
        records = self._records.get(key, {})
        for provider in [provider for provider, record in records.items() if record.expires_s <= now_s]:
            del records[provider]
        found = [provider for provider, record in records.items() if not in_reach.isdisjoint(record.holders)]
        return sorted(found, key=lambda provider: _distance(key, provider))


def _distance(key: bytes, peer_id: PeerId) -> int:
    """Return the XOR distance that orders hosts in Kademlia."""
    return int.from_bytes(key, "big") ^ int.from_bytes(sha256(peer_id.encode()).digest(), "big")
