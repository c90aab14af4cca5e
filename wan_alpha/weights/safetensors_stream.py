"""The bytes of a safetensors file, one tensor after the other, for whoever writes, hashes or counts them himself.

8 bytes: length of the header, little-endian | JSON header, padded with spaces to a multiple of 8 | tensors
(the format: https://github.com/huggingface/safetensors#format)
"""

import hashlib
import json
import struct

import torch

_DTYPE_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip
# A value of the metadata that becomes the tensors' hash, ModelSpec's ``hash_sha256``, when the bytes are asked for.
CONTENT_SHA256 = "0x" + 64 * "0"
DTYPES = {name: dtype for dtype, name in _DTYPE_NAMES.items()}


def safetensors_stream(tensors, metadata=None, load=None):
    """What a safetensors file of these tensors holds.

    Args:
        tensors: name -> tensor, on any device; each is brought to host memory when its turn comes.
        metadata: str to str, or values that JSON can hold; CONTENT_SHA256 stands for the hash of what is written.
        load: (name) -> tensor, called when that tensor's turn comes; ``tensors`` then only tell shapes and dtypes, and
            may be on the meta device.

    Returns:
        (number of bytes in all, iterator of bytes-like chunks).

    Raises:
        KeyError: a dtype that the format does not know.
    """
    names = _in_order(tensors)
    header, offset = {}, 0
    if metadata:
        # In order: metadata that comes out of a file comes out shuffled.
        text = {key: value if isinstance(value, str) else json.dumps(value) for key, value in sorted(metadata.items())}
        header["__metadata__"] = text
    for name in names:
        tensor = tensors[name]
        end = offset + tensor.numel() * tensor.element_size()
        shape, dtype = list(tensor.shape), _DTYPE_NAMES[tensor.dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return 8 + len(text) + offset, _chunks(text, names, load or tensors.__getitem__)


def _in_order(tensors):
    # The widest types first: then every tensor begins at a multiple of its own width.
    return sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))


def _chunks(header, names, load):
    if CONTENT_SHA256.encode() in header:
        digest = hashlib.sha256()
        for content in _contents(names, load):
            digest.update(content)
        header = header.replace(CONTENT_SHA256.encode(), f"0x{digest.hexdigest()}".encode())
    yield struct.pack("<Q", len(header)) + header
    yield from _contents(names, load)


def _contents(names, load):
    for name in names:
        tensor = load(name)
        if tensor.numel():
            yield _bytes(tensor)


def _bytes(tensor):
    return memoryview(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
