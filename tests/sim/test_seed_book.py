"""The chain of seeds goes on from what is known, and is not made up by who came later."""

from iota_p2p.validation.seed_book import SeedBook
from iota_p2p_protocols.scoring.result import EpochResult
from iota_p2p_protocols.scoring.seed_chain import genesis_seed, next_seed

RUN = bytes(range(32))


def result(epoch: int, seed: bytes) -> EpochResult:
    fields = {"run_id": RUN, "sequence": epoch, "issued_s": 0, "expires_s": 1, "epoch": epoch}
    return EpochResult.model_validate({**fields, "seed": seed, "records": (bytes(32),), "pot": 0, "payouts": ()})


def test_book__goes_on_without_results() -> None:
    seeds, expected = SeedBook(RUN), genesis_seed(RUN)
    for epoch in range(1, 6):
        seeds.go_on_without(epoch)
        expected = next_seed(expected, epoch, {})
        assert seeds.seed(epoch) == expected


def test_book__takes_what_results_say_and_goes_on_from_there() -> None:
    """Epochs 4 to 6 had no result: whoever comes back in epoch 8 knows all seeds that the others went on to."""
    seeds = SeedBook(RUN, continues=False)
    seeds.go_on_without(8)
    assert seeds.seed(8) is None
    seeds.learn(result(3, b"s" * 32))
    seeds.go_on_without(8)
    expected = b"s" * 32
    for epoch in (6, 7, 8):
        expected = next_seed(expected, epoch, {})
    assert (seeds.seed(5), seeds.seed(8)) == (b"s" * 32, expected)
    assert seeds.seed(9) is None


def test_book__keeps_what_it_knew_first() -> None:
    seeds = SeedBook(RUN)
    seeds.go_on_without(2)
    before = seeds.seed(2)
    seeds.learn(result(0, b"t" * 32))
    assert seeds.seed(2) == before
