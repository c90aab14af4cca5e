"""What a header says of a tensor."""

import math
from typing import NamedTuple

# Bits of an element, by safetensors' names of the types.
BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64,
    "U32": 32, "U16": 16, "U8": 8, "BOOL": 8, "C64": 64,
}  # fmt: skip


class TensorInfo(NamedTuple):
    """Shape and type of a tensor that was not read."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def num_elements(self):
        return math.prod(self.shape)

    @property
    def num_bytes(self):
        return (self.num_elements * BITS[self.dtype] + 7) // 8
