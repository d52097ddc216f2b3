"""The codecs by name, and how what one of them loses is made up for an epoch later."""

from collections.abc import Mapping

import numpy as np

from iota_p2p_protocols.butterfly.codec import BLOCK_VALUES, ROWS_AT_ONCE, Codec, Vector
from iota_p2p_protocols.butterfly.dense_codecs import BFloat16, Float32, Int8
from iota_p2p_protocols.butterfly.top_k import TopK
from iota_p2p_protocols.errors import LocalProtocolError

_VALUES_AT_ONCE = ROWS_AT_ONCE * BLOCK_VALUES  # what stays in a core's cache from encoding to subtracting

_INT8 = Int8()
CODECS: Mapping[str, Codec] = {codec.name: codec for codec in (Float32(), BFloat16(), _INT8, TopK())}


def result_codec(contributed: Codec) -> Codec:
    """Return the codec of reduced blocks: the contributions' own, but int8 where that one drops values.

    A mean of several sparse contributions is not sparse, and both reducers must write the same bytes, so that there
    is nobody to keep what a result's codec loses.
    """
    return _INT8 if contributed.name == TopK.name else contributed


def encode_with_feedback(codec: Codec, values: Vector, residual: Vector | None) -> memoryview:
    """Encode a pseudo-gradient together with what the codec lost of the earlier ones; return the blocks.

    Args:
        codec: the run's.
        values: this epoch's pseudo-gradient, W float32. Becomes what the blocks lack of values + residual, because for
            a large stage another vector is memory, and processor time to get it.
        residual: what the last call left in its values; None at first, and after a state was fetched from others.
    """
    if residual is not None and residual.shape != values.shape:
        raise LocalProtocolError(f"expected a residual of shape {values.shape}, got {residual.shape}")
    encoded = np.empty(codec.encoded_bytes(len(values)), dtype=np.uint8)
    decoded = np.empty(min(_VALUES_AT_ONCE, len(values)), dtype=np.float32)
    for first in range(0, len(values), _VALUES_AT_ONCE):
        wanted = values[first : first + _VALUES_AT_ONCE]
        if residual is not None:
            np.add(wanted, residual[first : first + len(wanted)], out=wanted)
        blocks = encoded[codec.encoded_bytes(first) :][: codec.encoded_bytes(len(wanted))]
        codec.encode_into(blocks, wanted)
        codec.decode_into(decoded[: len(wanted)], blocks.data)
        np.subtract(wanted, decoded[: len(wanted)], out=wanted)
    return encoded.data.toreadonly()
