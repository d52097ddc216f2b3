"""The peers we met, on disk, so that a restart works when the bootstrap peer is gone.

A hint and nothing more: every address is checked by the handshake when it is dialled, and a file that cannot be read
is set aside with a warning and started anew.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from iota_p2p_crypto.identity import PeerId
from iota_p2p_protocols.advert import MAX_ADDRESS_CHARS, MAX_ADDRESSES
from iota_p2p_protocols.message import PeerIdField

MAX_REMEMBERED = 256  # any one of them suffices to come back
MAX_FILE_BYTES = MAX_REMEMBERED * MAX_ADDRESSES * (MAX_ADDRESS_CHARS + 8) * 2

_log = logging.getLogger(__name__)


class _Book(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    version: int = Field(default=1, ge=1, le=1)
    peers: dict[PeerIdField, list[str]] = Field(default_factory=dict, max_length=MAX_REMEMBERED)


@dataclass(frozen=True, slots=True)
class AddressBook:
    """A JSON file of peer id -> full multiaddresses, the most recently seen first.

    Attributes:
        path: where it is kept.
    """

    path: Path

    def load(self) -> Mapping[PeerId, Sequence[str]]:
        """Return the peers remembered; none if there is no file or it is damaged."""
        try:
            with self.path.open("rb") as file:
                book = _Book.model_validate_json(file.read(MAX_FILE_BYTES))
        except FileNotFoundError:
            return {}
        except (OSError, ValidationError) as error:
            _log.warning("the address book %s cannot be read and is started anew: %s", self.path, type(error).__name__)
            return {}
        return {PeerId(peer_id): tuple(addresses) for peer_id, addresses in book.peers.items()}

    def save(self, peers: Mapping[PeerId, Sequence[str]]) -> None:
        """Replace the file, whole or not at all; older entries stay behind the given ones while there is room.

        Raises:
            OSError: if the disk does not take it.
        """
        merged = {**peers, **{peer_id: old for peer_id, old in self.load().items() if peer_id not in peers}}
        kept = dict(list(merged.items())[:MAX_REMEMBERED])
        book = _Book(peers={peer_id: list(addresses) for peer_id, addresses in kept.items()})
        temporary = self.path.with_suffix(".new")
        temporary.write_text(json.dumps(book.model_dump(), indent=1), encoding="utf-8")
        temporary.replace(self.path)
