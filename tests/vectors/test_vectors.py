"""Runs every vector under protocols/vectors, and holds the generated files to their generators.

A folder of vectors has one module here with `run(file, case)`, and `documents()` unless its files were transcribed
from elsewhere.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.vectors import (
    activation_vectors,
    butterfly_vectors,
    canonical_vectors,
    custody_vectors,
    envelope_vectors,
    exchange_vectors,
    fetch_vectors,
    grid_vectors,
    identity_vectors,
    inference_vectors,
    membership_vectors,
    reduce_vectors,
    replay_vectors,
    scoring_vectors,
    settlement_vectors,
    validation_vectors,
    vrf_vectors,
)
from tests.vectors.vector_files import ROOT, Case, Document, committed_files, read_cases, render

RUNNERS: dict[str, Callable[[str, Case], None]] = {
    "activation": activation_vectors.run,
    "butterfly": butterfly_vectors.run,
    "canonical": canonical_vectors.run,
    "custody": custody_vectors.run,
    "envelope": envelope_vectors.run,
    "exchange": exchange_vectors.run,
    "fetch": fetch_vectors.run,
    "grid": grid_vectors.run,
    "identity": identity_vectors.run,
    "inference": inference_vectors.run,
    "membership": membership_vectors.run,
    "reduce": reduce_vectors.run,
    "replay": replay_vectors.run,
    "settlement": settlement_vectors.run,
    "scoring": scoring_vectors.run,
    "validation": validation_vectors.run,
    "vrf": vrf_vectors.run,
}
GENERATORS: dict[str, Callable[[], dict[str, Document]]] = {
    "activation": activation_vectors.documents,
    "butterfly": butterfly_vectors.documents,
    "canonical": canonical_vectors.documents,
    "custody": custody_vectors.documents,
    "envelope": envelope_vectors.documents,
    "exchange": exchange_vectors.documents,
    "fetch": fetch_vectors.documents,
    "grid": grid_vectors.documents,
    "identity": identity_vectors.documents,
    "inference": inference_vectors.documents,
    "membership": membership_vectors.documents,
    "reduce": reduce_vectors.documents,
    "replay": replay_vectors.documents,
    "settlement": settlement_vectors.documents,
    "scoring": scoring_vectors.documents,
    "validation": validation_vectors.documents,
}
GENERATED = {
    ROOT / folder / f"{file}.json": document
    for folder, documents in GENERATORS.items()
    for file, document in documents().items()
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.config.getoption("--write-vectors"):
        for path, document in GENERATED.items():
            path.parent.mkdir(exist_ok=True)
            path.write_text(render(document), encoding="utf-8")
    if "case" in metafunc.fixturenames:
        cases = [(path, case) for path in committed_files() for case in read_cases(path)]
        metafunc.parametrize(("path", "case"), cases, ids=[f"{_name(path)}/{case['name']}" for path, case in cases])


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def test_vector__holds(path: Path, case: Case) -> None:
    RUNNERS[path.parent.name](path.stem, case)


@pytest.mark.parametrize("path", GENERATED, ids=_name)
def test_generated_vectors__are_what_is_committed(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == render(GENERATED[path]), (
        "run pytest tests/vectors --write-vectors and read the diff"
    )


def test_generated_folders__hold_no_other_files() -> None:
    strays = {path for path in committed_files() if path.parent.name in GENERATORS} - set(GENERATED)
    assert not strays


def test_vector_names__are_unique_within_a_file() -> None:
    names = [(path, case["name"]) for path in committed_files() for case in read_cases(path)]
    assert len(names) == len(set(names))
