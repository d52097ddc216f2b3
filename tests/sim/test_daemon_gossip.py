"""The queue between the host and a subscriber."""

from iota_p2p.network.daemon_gossip import MAILBOX_BYTES, MAILBOX_MESSAGES, Mailbox
from iota_p2p.network.host import GossipMessage
from iota_p2p_crypto.identity import Identity

AUTHOR = Identity.from_seed(bytes(32)).peer_id


async def test_mailbox__drops_the_oldest_when_there_are_too_many() -> None:
    mailbox = Mailbox()
    for number in range(MAILBOX_MESSAGES + 3):
        mailbox.put(GossipMessage(AUTHOR, str(number).encode()))
    assert (await anext(mailbox)).data == b"3"


async def test_mailbox__drops_the_oldest_when_they_are_too_large() -> None:
    mailbox = Mailbox()
    for number in range(5):
        mailbox.put(GossipMessage(AUTHOR, bytes([number]) * (MAILBOX_BYTES // 4)))
    assert [(await anext(mailbox)).data[0] for _ in range(4)] == [1, 2, 3, 4]
