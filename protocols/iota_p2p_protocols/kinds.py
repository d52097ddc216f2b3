"""Which payload belongs to which domain, for readers that meet an envelope of unknown purpose."""

from collections.abc import Mapping

from iota_p2p_crypto.domains import Domain
from iota_p2p_protocols.absence import Absence
from iota_p2p_protocols.advert import Advert
from iota_p2p_protocols.message import SignedMessage

KIND_BY_DOMAIN: Mapping[Domain, type[SignedMessage]] = {kind.domain: kind for kind in (Absence, Advert)}
