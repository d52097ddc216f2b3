"""The table of protocol ids and topics."""

import re

import pytest

from iota_p2p_protocols.ids import NO_RUN, PROTOCOLS, RUN_ID_BYTES, TOPICS, ProtocolSpec, TopicSpec

MAX_GOSSIP_BYTES = 1 << 20  # what GossipSub carries


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.id)
def test_protocol__is_named_versioned_and_bounded(protocol: ProtocolSpec) -> None:
    assert re.fullmatch(r"/iota-p2p/[a-z]+(-[a-z]+)*/[1-9][0-9]*", protocol.id)
    assert protocol.max_header_bytes > 0
    assert protocol.max_payload_bytes >= 0


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_topic__is_named_versioned_and_bounded(topic: TopicSpec) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", topic.name)
    assert 0 < topic.max_bytes <= MAX_GOSSIP_BYTES
    assert topic.messages_per_minute > 0
    assert topic.burst > 0


def test_ids__are_unique() -> None:
    assert len({protocol.id for protocol in PROTOCOLS}) == len(PROTOCOLS)
    assert len({(topic.name, topic.version) for topic in TOPICS}) == len(TOPICS)


def test_topic_names__differ_between_runs() -> None:
    run_id = bytes(range(RUN_ID_BYTES))
    topic = TopicSpec(name="adverts", version=3, max_bytes=1, messages_per_minute=1, burst=1)
    assert topic.full_name(run_id) == f"iota-p2p/{run_id.hex()}/adverts/3"
    assert topic.full_name(run_id) != topic.full_name(NO_RUN)
