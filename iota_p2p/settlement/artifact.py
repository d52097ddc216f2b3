"""The compiled contract: what is deployed is a committed file, so that nobody needs a compiler to talk to it.

`python -m iota_p2p.settlement.artifact` compiles the source again and writes it; a test holds it to the source.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent / "contract"
SOURCE_PATH = _FOLDER / "settlement.vy"
ARTIFACT_PATH = _FOLDER / "settlement.json"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A compiled contract.

    Attributes:
        abi: its functions and events.
        bytecode: what creates it.
        runtime: what then lies on the chain, followed there by the contract's terms.
        compiler: name and version.
    """

    abi: list[dict[str, Any]]
    bytecode: bytes
    runtime: bytes
    compiler: str


@cache
def load_artifact() -> Artifact:
    """Return the committed artifact."""
    fields = json.loads(ARTIFACT_PATH.read_text(encoding="utf-8"))
    return Artifact(
        fields["abi"], bytes.fromhex(fields["bytecode"]), bytes.fromhex(fields["runtime"]), fields["compiler"]
    )


def compile_artifact() -> str:
    """Compile the source and return the file as it should be."""
    from vyper import compile_code  # noqa: PLC0415 - clients never pay for the compiler

    output = compile_code(
        SOURCE_PATH.read_text(encoding="utf-8"), output_formats=["abi", "bytecode", "bytecode_runtime"]
    )
    fields = {
        "compiler": f"vyper {version('vyper')}",
        "abi": output["abi"],
        "bytecode": output["bytecode"].removeprefix("0x"),
        "runtime": output["bytecode_runtime"].removeprefix("0x"),
    }
    return json.dumps(fields, indent=1) + "\n"


if __name__ == "__main__":
    ARTIFACT_PATH.write_text(compile_artifact(), encoding="utf-8")
