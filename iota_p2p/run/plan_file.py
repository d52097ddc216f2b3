"""Reading a `RunPlan` from a TOML file: the only way a person writes one."""

import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from iota_p2p.run.spec import RunPlan, explain
from iota_p2p_crypto.errors import UserError


def load_plan(path: Path) -> RunPlan:
    """Return the plan a TOML file states; raises UserError, naming file and key, if it states none."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text: {error}") from error
    return parse_plan(text, source=str(path))


def parse_plan(text: str, *, source: str) -> RunPlan:
    """Return the plan of a TOML text; `source` names it in errors, which are UserError."""
    try:
        value = tomllib.loads(text, parse_float=Decimal)  # exact: 0.1 must mean the same to every peer
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{source} is not TOML: {error}") from error
    try:
        return RunPlan.model_validate(_frozen(value))
    except ValidationError as error:
        raise UserError(f"{source}: {explain(error)}") from error


def _frozen(value: Any) -> Any:
    """Return TOML's lists as the tuples that the strict spec wants."""
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    return value
