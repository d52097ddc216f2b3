"""What the protocol costs one stage per microbatch: CPU for signing, checking, hashing, packing and unpacking.

    python bench/hop.py --stages 4 8 --payload-bytes 8192 131072

The hop measured is a middle stage's whole part in one microbatch: take the request, pass it on, take the answer,
answer. No network, no tensors. Also the bytes of the headers, one draw of a route, and the audit of a loss record.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

from rich.console import Console
from rich.table import Table

from iota_p2p_crypto import canonical
from iota_p2p_crypto.identity import Identity
from iota_p2p_protocols.activation import (
    ActivationRequest,
    ActivationResponse,
    ActivationTerms,
    SeenReceipts,
    build_request,
    build_response,
    receive_request,
    receive_response,
)
from iota_p2p_protocols.chain import source_input
from iota_p2p_protocols.loss_record import Loss, open_loss_record, seal_loss_record, verify_chain
from iota_p2p_protocols.microbatch import MicrobatchId
from iota_p2p_protocols.routing import draw_order

RUN_ID = bytes(32)
ROUNDS = 300  # a third of a second each; the spread between runs of it is some 5 %


class Pathway:
    """One microbatch through `num_stages` peers, as messages on the wire."""

    def __init__(self, num_stages: int, payload_bytes: int) -> None:
        self.peers = [Identity.from_seed(bytes([stage]) * 32) for stage in range(num_stages)]
        self.payload = bytes(payload_bytes)
        self.terms = ActivationTerms(
            run_id=RUN_ID, num_stages=num_stages, activation_bytes=payload_bytes, gradient_bytes=payload_bytes
        )
        self.middle = num_stages // 2
        work = source_input(MicrobatchId(epoch=1, source=self.peers[0].peer_id, counter=1), RUN_ID)
        for stage, peer in enumerate(self.peers[:-1]):
            request = build_request(work, self.payload, peer).header
            if stage + 1 == self.middle:
                self.request = canonical.encode(request.to_fields())
            work = receive_request(request, self.payload, peer.peer_id, self.terms, SeenReceipts())
            if stage == self.middle:
                next_work = work
        self.record = seal_loss_record(work, Loss(4_000_000, 1024, 0), run_id=RUN_ID, signer=self.peers[-1])
        record = open_loss_record(self.record)
        came = record.digest if self.middle + 2 == num_stages else bytes(32)
        answer = build_response(next_work, came, self.payload, record, self.peers[self.middle + 1])
        self.response = canonical.encode(answer.to_fields())

    def hop(self) -> None:
        """Do everything the middle stage does, but compute."""
        me, caller, callee = (self.peers[self.middle + step] for step in (0, -1, 1))
        incoming = ActivationRequest.from_fields(canonical.decode(self.request))
        work = receive_request(incoming, self.payload, caller.peer_id, self.terms, SeenReceipts())
        sent = build_request(work, self.payload, me)
        canonical.encode(sent.header.to_fields())
        response = ActivationResponse.from_fields(canonical.decode(self.response))
        answered = receive_response(response, self.payload, callee.peer_id, sent=sent, terms=self.terms)
        answer = build_response(work, answered.receipt.payload.out_digest, self.payload, answered.record, me)
        canonical.encode(answer.to_fields())

    def audit(self) -> None:
        """Check a loss record as a stranger does."""
        verify_chain(open_loss_record(self.record), run_id=RUN_ID, epochs=(1,), num_stages=len(self.peers))


def cpu_ms(work: Callable[[], object]) -> float:
    """Return the CPU time of one call in milliseconds: the least of five means, as other processes only add."""
    means = []
    for _ in range(5):
        start = time.process_time()
        for _ in range(ROUNDS):
            work()
        means.append((time.process_time() - start) / ROUNDS * 1000)
    return min(means)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", type=int, nargs="+", default=[4, 8], help="stages of the pathway, 3 to 64")
    parser.add_argument("--payload-bytes", type=int, nargs="+", default=[8192], help="encoded activation and gradient")
    parser.add_argument("--replicas", type=int, nargs="+", default=[4, 32], help="replicas in one draw")
    arguments = parser.parse_args()
    table = Table("stages", "payload bytes", "hop, CPU ms", "audit, CPU ms", "request header", "response header")
    for num_stages in arguments.stages:
        for payload_bytes in arguments.payload_bytes:
            pathway = Pathway(num_stages, payload_bytes)
            costs = (f"{cpu_ms(pathway.hop):.3f}", f"{cpu_ms(pathway.audit):.3f}")
            sizes = (str(len(pathway.request)), str(len(pathway.response)))
            table.add_row(str(num_stages), str(payload_bytes), *costs, *sizes)
    Console().print(table)
    for count in arguments.replicas:
        weights = {Identity.from_seed(number.to_bytes(32)).peer_id: 1000 + number for number in range(count)}
        cost = cpu_ms(partial(draw_order, bytes(32), bytes(32), 1, weights))
        Console().print(f"draw among {count} replicas: {cost:.3f} CPU ms")


if __name__ == "__main__":
    main()
