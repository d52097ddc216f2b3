"""ARCHITECTURE.md is true: every file it names is there, and every type in its glossary."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
NAMED = sorted({name for name in re.findall(r"`([^`\s]+)`", TEXT) if "/" in name or name.endswith((".md", ".toml"))})
GLOSSARY = TEXT.split("## Glossary")[1]
TYPES = sorted(set(re.findall(r"`([A-Za-z_]+)`", GLOSSARY)))
SOURCES = "\n".join(
    path.read_text(encoding="utf-8")
    for folder in ("crypto", "protocols", "iota_p2p")
    for path in (ROOT / folder).rglob("*.py")
)


@pytest.mark.parametrize("name", NAMED)
def test_architecture__names_what_exists(name: str) -> None:
    assert (ROOT / name).exists()


@pytest.mark.parametrize("name", TYPES)
def test_glossary__names_what_is_defined(name: str) -> None:
    assert re.search(rf"^(class|def) {name}\b|^{name} = ", SOURCES, re.MULTILINE)


def test_architecture__fits_on_two_screens() -> None:
    assert len(TEXT.splitlines()) <= 200
