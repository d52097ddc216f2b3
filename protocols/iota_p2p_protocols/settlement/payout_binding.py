"""Payout bindings: a peer id and an EVM account say of each other that they belong together.

The envelope is the peer's signature over the account; inside is the account's signature over the peer's key. Neither
alone would do: a peer could name an account that is not its own to bring it into disrepute, and an account could claim
what another peer earned.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from iota_p2p_crypto.domains import PAYOUT_BINDING, Domain
from iota_p2p_crypto.envelope import Verified
from iota_p2p_crypto.identity import PeerId, public_key_of
from iota_p2p_protocols.errors import InvalidSignatureError
from iota_p2p_protocols.message import SignedMessage, open_signed
from iota_p2p_protocols.settlement.payout_tree import ACCOUNT_BYTES
from iota_p2p_protocols.settlement.typed_data import COMPACT_SIGNATURE_BYTES, Recover, binding_typed_data

LIFETIME_S = 366 * 86_400  # a year: longer than any run, and an account that was given up is not paid for ever


class PayoutBinding(SignedMessage):
    """Where a peer wants to be paid. A later sequence replaces an earlier one.

    Attributes:
        account: 20 bytes of an EVM address.
        signature: the account's own, over `binding_typed_data` of the peer's key.
    """

    domain: ClassVar[Domain] = PAYOUT_BINDING
    max_lifetime_s: ClassVar[int] = LIFETIME_S

    account: Annotated[bytes, Field(min_length=ACCOUNT_BYTES, max_length=ACCOUNT_BYTES)]
    signature: Annotated[bytes, Field(min_length=COMPACT_SIGNATURE_BYTES, max_length=COMPACT_SIGNATURE_BYTES)]


def open_binding(data: bytes, recover: Recover) -> Verified[PayoutBinding]:
    """Check both signatures of a binding; its run and times are the caller's to check.

    Raises:
        InvalidSignatureError: if the account did not sign for this peer.
        RemoteProtocolError: as every envelope.
    """
    binding = open_signed(data, PayoutBinding)
    payload = binding.payload
    signer = recover(binding_typed_data(payload.run_id, public_key_of(binding.signer)), payload.signature)
    # [binding-account] the account signed for the peer that names it
    if signer != payload.account:
        raise InvalidSignatureError(
            "binding-account", f"expected a signature by {payload.account.hex()}, got one by {signer.hex()}"
        )
    return binding


def accounts_of(bindings: Iterable[Verified[PayoutBinding]], *, issued_by_s: int) -> Mapping[PeerId, bytes]:
    """Return each peer's account by its latest binding; of two with one sequence the smaller digest counts.

    Args:
        bindings: of one run, checked.
        issued_by_s: the `issued_s` of the result that is to be paid: what was bound afterwards counts for later
            epochs, so that everybody finds the same accounts for an epoch, whenever they look.
    """
    latest: dict[PeerId, Verified[PayoutBinding]] = {}
    for binding in bindings:
        known = latest.get(binding.signer)
        if binding.payload.issued_s <= issued_by_s and (known is None or _order(binding) > _order(known)):
            latest[binding.signer] = binding
    return {peer_id: binding.payload.account for peer_id, binding in latest.items()}


def _order(binding: Verified[PayoutBinding]) -> tuple[int, int]:
    return binding.payload.sequence, -int.from_bytes(binding.digest, "big")
