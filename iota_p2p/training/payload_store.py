"""The payloads a peer sent and received in this epoch and the last, by digest: what an audit asks for.

After compression a payload is a few kilobytes, so two epochs of them fit in memory; the bound is in bytes, and the
oldest go first. Equal bytes are kept once, as long as the last epoch that used them asks for.
"""

from collections import OrderedDict

from iota_p2p_crypto.digest import Digest, digest

# 16,384 microbatches of 4 payloads of 8 KiB each; beyond it, audits of the oldest find nothing and say so.
MAX_STORED_BYTES = 512 * 2**20


class PayloadStore:
    """Payloads of two epochs by digest."""

    def __init__(self, limit_bytes: int = MAX_STORED_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._payloads: OrderedDict[bytes, tuple[int, bytes]] = OrderedDict()
        self.stored_bytes = 0

    def add(self, epoch: int, payload: bytes) -> Digest:
        """Keep a payload and return its digest."""
        name = digest(payload)
        if name not in self._payloads:
            self._payloads[name] = (epoch, payload)
            self.stored_bytes += len(payload)
            while self.stored_bytes > self._limit_bytes:
                _, (_, dropped) = self._payloads.popitem(last=False)
                self.stored_bytes -= len(dropped)
        self.keep(epoch, name)
        return name

    def keep(self, epoch: int, name: bytes) -> None:
        """Note that an epoch's work log names a payload: one that came in the epoch before is kept for longer."""
        entry = self._payloads.get(name)
        if entry is not None and entry[0] < epoch:
            self._payloads[name] = (epoch, entry[1])
            self._payloads.move_to_end(name)

    def get(self, name: bytes) -> bytes | None:
        """Return a payload, or None if it was never here or is here no longer."""
        entry = self._payloads.get(name)
        return None if entry is None else entry[1]

    def forget_before(self, epoch: int) -> None:
        """Drop the payloads of epochs before this one."""
        for name in [name for name, (of, _) in self._payloads.items() if of < epoch]:
            self.stored_bytes -= len(self._payloads.pop(name)[1])
