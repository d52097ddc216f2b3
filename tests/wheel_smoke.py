"""Build the wheel, install it into an empty environment, and look at it from outside.

Not a pytest module: it needs minutes and an environment of its own. `make wheel-smoke` runs it.
"""

import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOP_LEVEL = {"iota_p2p", "iota_p2p_crypto", "iota_p2p_protocols", "iota_p2p_testnet"}


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a command, show it, and return what it printed; stop at the first failure."""
    words = [str(word) for word in command]
    print("+", " ".join(words), flush=True)  # noqa: T201
    done = subprocess.run(words, cwd=cwd, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def main() -> None:
    """Fail loudly if anything about the wheel is not as promised."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        run(sys.executable, "-m", "build", "--outdir", work / "dist")
        (wheel,) = (work / "dist").glob("*.whl")
        (sdist,) = (work / "dist").glob("*.tar.gz")
        names = {entry.split("/")[0] for entry in zipfile.ZipFile(wheel).namelist()}
        packages = {entry for entry in names if not entry.endswith(".dist-info")}
        assert packages == TOP_LEVEL, f"expected {sorted(TOP_LEVEL)} in the wheel, got {sorted(packages)}"
        venv.create(work / "env", with_pip=True)
        python = work / "env/bin/python"
        pip = (python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt")
        run(*pip, "torch==2.13.0")
        run(*pip, wheel)
        for package in TOP_LEVEL:
            run(python, "-c", f"import {package}", cwd=Path("/"))
        usage = run(work / "env/bin/iota-p2p", "--help", cwd=Path("/"))
        assert "inspect" in usage, f"expected the verbs in the help text, got {usage!r}"
        for verb, option in (("testnet", "--kill"), ("run", "show"), ("peer", "--bootstrap")):
            usage = run(work / "env/bin/iota-p2p", verb, "--help", cwd=Path("/"))
            assert option in usage, f"expected {option} in the help of {verb}, got {usage!r}"
        sheet = run(work / "env/bin/iota-p2p", "run", "show", "tiny", cwd=Path("/"))
        assert "subspace" in sheet, f"expected the named config of the package, got {sheet!r}"
        print(f"wheel and sdist are well: {wheel.name}, {sdist.name}")  # noqa: T201


if __name__ == "__main__":
    main()
