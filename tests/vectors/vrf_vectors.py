"""Runs protocols/vectors/vrf; the steps in between are compared in tests/core/test_vrf.py."""

from iota_p2p_crypto import vrf
from iota_p2p_crypto.identity import Identity, peer_id_of
from tests.vectors.vector_files import Case


def run(_file: str, case: Case) -> None:
    field = {name: bytes.fromhex(case[name]) for name in ("seed", "public_key", "alpha", "proof", "output")}
    assert vrf.prove(Identity.from_seed(field["seed"]), field["alpha"]) == field["proof"]
    assert vrf.verify(peer_id_of(field["public_key"]), field["alpha"], field["proof"]) == field["output"]
