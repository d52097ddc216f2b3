"""The canonical profile of msgpack: one value, one sequence of bytes (spec: protocols/spec/canonical.md).

Values are None, bool, int (-2^63 .. 2^64-1), bytes, str, sequences and maps with str keys. Maps are sorted by key,
integers and lengths take their shortest form, and there are no floats, no extension types and no duplicate keys.
Sequences decode to tuples, so that a decoded value holds nothing mutable but its maps.

`decode` refuses any bytes that do not re-encode to themselves. That one comparison catches unsorted and duplicate
keys, long integers and long lengths at C speed; only a refusal pays for finding out why.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, NoReturn, TypeAlias

import msgpack

from iota_p2p_crypto.errors import LocalProtocolError, MalformedError, OversizedError

# A recursive alias would defeat pydantic and mypy at every use; `_check_shape` enforces what it would say.
CanonicalValue: TypeAlias = Any

MAX_DEPTH = 16  # nested containers; the deepest payload we define has 6
MAX_BYTES = 1 << 20  # the default bound: GossipSub carries up to 1 MB, larger things travel as raw payloads

_ATOMS = frozenset({int, str, bytes, bool, type(None)})
_KINDS = _ATOMS | {dict, tuple}
_KEY_KINDS = frozenset({str})
_UNPACK_OPTIONS = {"raw": False, "strict_map_key": True, "use_list": False, "max_ext_len": 0}


def encode(value: CanonicalValue) -> bytes:
    """Return the canonical bytes of a value.

    Raises:
        LocalProtocolError: if the value is outside the profile; what we sign is our own doing.
    """
    try:
        packed: bytes = msgpack.packb(_sorted(value, 0), use_bin_type=True)
    except (TypeError, ValueError, OverflowError, UnicodeEncodeError) as error:
        raise LocalProtocolError(f"expected a value of the canonical profile: {error}") from error
    return packed


def decode(data: bytes, *, max_bytes: int = MAX_BYTES) -> CanonicalValue:
    """Return the value whose canonical bytes these are.

    The memory taken is at most 100 times the length of the data (94 measured: nested maps of two bytes each, which
    become dicts of 184), and this holds for bytes that end up refused, too.

    Raises:
        OversizedError: if there are more than `max_bytes` bytes, or containers nest deeper than MAX_DEPTH.
        MalformedError: if the bytes are not msgpack, outside the profile, or not in canonical form.
    """
    if len(data) > max_bytes:
        raise OversizedError("canonical-size", f"expected at most {max_bytes} bytes, got {len(data)}")
    try:
        _check_complete(data)
        value = msgpack.unpackb(data, **_UNPACK_OPTIONS)
    except msgpack.exceptions.StackError as error:
        raise OversizedError(
            "canonical-depth", f"expected at most {MAX_DEPTH} nested containers, got far more"
        ) from error
    except (msgpack.exceptions.UnpackException, ValueError, TypeError, OverflowError) as error:
        raise MalformedError("canonical-msgpack", f"expected msgpack, got {_reason(error)}") from error
    _check_shape(value)
    if msgpack.packb(value, use_bin_type=True) != data:
        del value  # explaining decodes once more; do not hold both
        _explain_refusal(data)
    return value


def _check_complete(data: bytes) -> None:
    """Walk over the bytes of one value without building it; raises if it is cut short or followed by more.

    The decoder takes memory for as many elements as a header announces, before it has seen them; a thousand nested
    headers of three bytes each would cost it 64 MB. Afterwards every announced element is known to be there.
    """
    walker = msgpack.Unpacker(None, max_buffer_size=len(data))
    walker.feed(data)
    walker.skip()
    if walker.tell() != len(data):
        raise MalformedError(
            "canonical-trailing", f"expected one value, got {len(data) - walker.tell()} bytes after it"
        )


def _sorted(value: CanonicalValue, depth: int) -> CanonicalValue:
    """Return the value with every map in key order; raises TypeError or ValueError outside the profile."""
    kind = type(value)
    if kind in _ATOMS:
        return value
    if depth >= MAX_DEPTH:
        raise ValueError(f"more than {MAX_DEPTH} nested containers")
    if kind is dict:
        if not all(type(key) is str for key in value):
            raise TypeError("map keys must be str")
        return {key: _sorted(value[key], depth + 1) for key in sorted(value)}
    if kind is tuple or kind is list:
        return [_sorted(item, depth + 1) for item in value]
    raise TypeError(f"{kind.__name__} is not part of it")


def _check_shape(value: CanonicalValue) -> None:
    """Refuse floats, foreign types, deep nesting and unsorted keys.

    Goes through one level of nesting at a time and looks at the set of types on it, so that the atoms, which are
    nearly everything, are passed over at C speed.
    """
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH + 1):
        kinds = set(map(type, level))
        if not kinds <= _KINDS:
            foreign = next(item for item in level if type(item) not in _KINDS)
            raise MalformedError("canonical-type", f"expected no {type(foreign).__name__}, got {foreign!r:.40}")
        if kinds <= _ATOMS:
            return
        inner: list[Any] = []
        if tuple in kinds:
            inner.extend(chain.from_iterable(item for item in level if type(item) is tuple))
        if dict in kinds:
            maps = [item for item in level if type(item) is dict]
            _check_keys(maps)
            inner.extend(chain.from_iterable(item.values() for item in maps))
        level = inner
    raise OversizedError("canonical-depth", f"expected at most {MAX_DEPTH} nested containers, got more")


def _check_keys(maps: Sequence[dict[Any, Any]]) -> None:
    for keys in set(map(tuple, maps)):  # the maps of a table share their keys
        if not set(map(type, keys)) <= _KEY_KINDS:  # strict_map_key lets bytes through
            foreign = next(key for key in keys if type(key) is not str)
            raise MalformedError("canonical-key-type", f"expected str keys, got {foreign!r:.40}")
        # Code point order is the order of the UTF-8 bytes.
        if list(keys) != sorted(keys):
            raise MalformedError("canonical-key-order", f"expected sorted keys, got {keys!r:.120}")


def _explain_refusal(data: bytes) -> NoReturn:
    """Name what makes decodable bytes non-canonical; called only on the way to a refusal."""

    def check_unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for key, item in pairs:
            if key in seen:
                raise MalformedError("canonical-duplicate-key", f"expected unique keys, got {key!r:.40} twice")
            seen[key] = item
        return seen

    value = msgpack.unpackb(data, object_pairs_hook=check_unique, **_UNPACK_OPTIONS)
    again = msgpack.packb(value, use_bin_type=True)
    offset = next((i for i, (a, b) in enumerate(zip(data, again, strict=False)) if a != b), len(again))
    raise MalformedError(
        "canonical-form",
        f"expected the shortest form at byte {offset}, got {data[offset : offset + 9].hex() or 'nothing'}",
    )


def _reason(error: Exception) -> str:
    return str(error) or "bytes that end in the middle of a value"
