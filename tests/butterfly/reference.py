"""The arithmetic of spec/reduce.md once more, one number at a time, in Python's own floats and integers.

It shares no code with the project's: where the two agree on every bit, numpy did nothing but what the spec says.
Python's floats are float64; `f32` rounds to float32, which for one product, sum or quotient of two float32 gives the
very float32 operation.
"""

import struct
from collections.abc import Sequence
from math import sqrt

UNIT, KEPT = 256, 16
SMALL = 2.0**-100


def f32(number: float) -> float:
    rounded: float = struct.unpack("<f", struct.pack("<f", number))[0]
    return rounded


def padded(values: Sequence[float], unit: int) -> list[list[float]]:
    full = [*values, *([0.0] * (-len(values) % unit))]
    return [full[start : start + unit] for start in range(0, len(full), unit)]


def encode(name: str, values: Sequence[float]) -> bytes:
    """Encode one block of float32 values."""
    if name == "float32":
        return struct.pack(f"<{len(values)}f", *values)
    if name == "bfloat16":
        return b"".join(map(bfloat16, values))
    units = [int8_unit(unit) if name == "int8" else top_k_unit(unit) for unit in padded(values, UNIT)]
    return b"".join(b"".join(table) for table in zip(*units, strict=True))


def bfloat16(value: float) -> bytes:
    bits: int = struct.unpack("<I", struct.pack("<f", value))[0]
    upper, rest = divmod(bits, 1 << 16)
    up = rest > 1 << 15 or (rest == 1 << 15 and upper % 2 == 1)
    return struct.pack("<H", upper + up)


def int8_unit(unit: list[float]) -> tuple[bytes, bytes]:
    peak = max(map(abs, unit))
    scale = 0.0 if peak < SMALL else f32(peak / 127)
    inverse = f32(1 / scale) if scale else 0.0
    return struct.pack("<f", scale), struct.pack(f"{UNIT}b", *(round(f32(value * inverse)) for value in unit))


def top_k_unit(unit: list[float]) -> tuple[bytes, bytes, bytes]:
    places = sorted(sorted(range(UNIT), key=lambda place: -abs(unit[place]))[:KEPT])
    average = f32(pairwise([abs(unit[place]) for place in places]) / KEPT)
    average = 0.0 if average < SMALL else average
    codes = [(2 if unit[place] < 0 else 0) + (abs(unit[place]) >= average) for place in places]
    packed = [sum(code << (2 * at) for at, code in enumerate(codes[start : start + 4])) for start in range(0, KEPT, 4)]
    return struct.pack("<f", min(f32(average / 2), f32(2.0**16 / 3))), bytes(places), bytes(packed)


def decode(name: str, block: bytes, count: int) -> list[float]:
    """Return the first `count` values of an honest block."""
    if name == "float32":
        return list(struct.unpack(f"<{count}f", block))
    if name == "bfloat16":
        return [struct.unpack("<f", b"\x00\x00" + block[2 * i : 2 * i + 2])[0] for i in range(count)]
    units = len(block) // (4 + UNIT if name == "int8" else 4 + KEPT + KEPT // 4)
    scales = struct.unpack(f"<{units}f", block[: 4 * units])
    values: list[float] = []
    for index, scale in enumerate(scales):
        if name == "int8":
            codes = struct.unpack(f"{UNIT}b", block[4 * units + UNIT * index :][:UNIT])
            values += [f32(code * scale) for code in codes]
            continue
        unit = [0.0] * UNIT
        places = block[4 * units + KEPT * index :][:KEPT]
        packed = block[(4 + KEPT) * units + KEPT // 4 * index :][: KEPT // 4]
        for at, place in enumerate(places):
            code = packed[at // 4] >> (2 * (at % 4)) & 3
            unit[place] = f32((1, 3, -1, -3)[code] * scale)
        values += unit
    return values[:count]


def pairwise(numbers: Sequence[float]) -> float:
    """Fold the second half onto the first until one number is left."""
    folded = list(numbers)
    width = 1
    while width < len(folded):
        width *= 2
    folded += [0.0] * (width - len(folded))
    while len(folded) > 1:
        half = len(folded) // 2
        folded = [folded[i] + folded[half + i] for i in range(half)]
    return folded[0]


def reduce(name: str, blocks: Sequence[bytes | None], samples: Sequence[int], count: int) -> bytes:
    """Return the result block of honest blocks, None where one is missing."""
    median = sorted(samples)[(len(samples) - 1) // 2]
    weights = [min(number, 4 * median) for number in samples]
    rows = {i: decode(name, block, count) for i, block in enumerate(blocks) if block is not None and weights[i]}
    norms = {i: f32(sqrt(pairwise([value * value for value in row]))) for i, row in rows.items()}
    limit = sorted(norms.values())[(len(norms) - 1) // 2] if norms else 0.0
    scales = {i: limit / norm if norm > limit else 1.0 for i, norm in norms.items()}
    lost = astray(rows, norms, scales, count)
    rows = {i: row for i, row in rows.items() if i not in lost}
    total = weighted_sum(rows, dict(enumerate(weights)), scales, count)
    weight = float(sum(weights[i] for i in rows)) or 1.0
    return encode("int8" if name == "top-k" else name, [f32(value / weight) for value in total])


def weighted_sum(
    rows: dict[int, list[float]], weights: dict[int, int], scales: dict[int, float], count: int
) -> list[float]:
    total = [0.0] * count
    for i, row in rows.items():
        factor = float(weights[i]) * scales[i]
        total = [old + value * factor for old, value in zip(total, row, strict=True)]
    return total


def astray(rows: dict[int, list[float]], norms: dict[int, float], scales: dict[int, float], count: int) -> set[int]:
    if len(rows) < 3:
        return set()
    total = weighted_sum(rows, dict.fromkeys(rows, 1), scales, count)
    square = pairwise([x * x for x in total])
    cosines = {}
    for i, row in rows.items():
        length = norms[i] * scales[i]
        along = pairwise([x * y for x, y in zip(row, total, strict=True)]) * scales[i]
        rest = square - 2 * along + length * length
        told = length > 0 and rest > square * 2.0**-40
        cosines[i] = (along - length * length) / (length * sqrt(rest)) if told else 0.0
    median = sorted(cosines.values())[(len(cosines) - 1) // 2]
    return {i for i, cosine in cosines.items() if median > 0.2 and cosine < median * 0.5}
