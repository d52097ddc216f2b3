"""The vector files under protocols/vectors: where they are, how they look, how a refusal is compared."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from iota_p2p_crypto import canonical
from iota_p2p_crypto.errors import RemoteProtocolError
from iota_p2p_protocols.message import Message

ROOT = Path(__file__).parents[2] / "protocols" / "vectors"

Case: TypeAlias = dict[str, Any]
Document: TypeAlias = dict[str, Any]  # {"provenance": str, "fields": str, "cases": [Case]}


def render(document: Document) -> str:
    """Return a document as it lies on disk: readable, ASCII, one trailing newline."""
    return json.dumps(document, indent=1) + "\n"


def committed_files() -> list[Path]:
    return sorted(ROOT.glob("*/*.json"))


def read_cases(path: Path) -> list[Case]:
    cases: list[Case] = json.loads(path.read_text(encoding="utf-8"))["cases"]
    return cases


def verdict(call: Callable[[], object]) -> str:
    """Return the rule a call is refused by, or "accepted"."""
    try:
        call()
    except RemoteProtocolError as error:
        return error.rule
    return "accepted"


def accepted_or_error(case: Case) -> str:
    """Return the verdict a case asks for."""
    rule: str = case.get("error", "accepted")
    return rule


def run_header(messages: Mapping[str, type[Message]], case: Case) -> None:
    """Check that a stream's header is read as the case says, and comes out as it went in."""
    kind = messages[case["message"]]
    fields = canonical.decode(bytes.fromhex(case["header"]))
    assert verdict(lambda: kind.from_fields(fields)) == accepted_or_error(case)
    assert "error" in case or kind.from_fields(fields).to_fields() == fields
