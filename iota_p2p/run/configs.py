"""Where named runs are found: `configs/` beside the packages in a checkout, inside the package in a wheel."""

from collections.abc import Sequence
from pathlib import Path

import iota_p2p
from iota_p2p_crypto.errors import UserError

_PACKAGE = Path(iota_p2p.__file__).parent
_FOLDERS = (_PACKAGE.parent / "configs", _PACKAGE / "configs")
_SUFFIX = ".toml"


def config_names() -> Sequence[str]:
    """Return the names of the configs that come with this software, in order."""
    return sorted({path.stem for folder in _FOLDERS for path in folder.glob(f"*{_SUFFIX}")})


def find_config(name: str) -> Path:
    """Return the path of a config: a file's, or that of a named one; raises UserError if there is neither."""
    path = Path(name)
    if path.is_file():
        return path
    if path.name == name:
        for folder in _FOLDERS:
            named = folder / f"{name.removesuffix(_SUFFIX)}{_SUFFIX}"
            if named.is_file():
                return named
    raise UserError(f"there is no file {name}, and no config of that name: use one of {', '.join(config_names())}")
