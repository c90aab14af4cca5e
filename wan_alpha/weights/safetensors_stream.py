"""The bytes of a safetensors file, one tensor after the other, for whoever writes, hashes or counts them himself.

8 bytes: length of the header, little-endian | JSON header, padded with spaces to a multiple of 8 | tensors
(the format: https://github.com/huggingface/safetensors#format)
"""

import json
import struct

import torch

_DTYPE_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip


def safetensors_stream(tensors, metadata=None):
    """What a safetensors file of these tensors holds.

    Args:
        tensors: name -> tensor, on any device; each is brought to host memory when its turn comes.
        metadata: str to str, or values that JSON can hold.

    Returns:
        (number of bytes in all, iterator of bytes-like chunks).

    Raises:
        KeyError: a dtype that the format does not know.
    """
    # The widest types first: then every tensor begins at a multiple of its own width.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header, offset = {}, 0
    if metadata:
        text = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
        header["__metadata__"] = text
    for name in names:
        tensor = tensors[name]
        end = offset + tensor.numel() * tensor.element_size()
        shape, dtype = list(tensor.shape), _DTYPE_NAMES[tensor.dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return 8 + len(text) + offset, _chunks(text, [tensors[name] for name in names])


def _chunks(header, tensors):
    yield struct.pack("<Q", len(header)) + header
    for tensor in tensors:
        if tensor.numel():
            yield memoryview(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
