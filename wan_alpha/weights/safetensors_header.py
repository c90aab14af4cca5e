"""The header of a safetensors file: which tensors, of which shape and type, and that the file holds them all.

8 bytes: length of the header, little-endian | JSON header | tensors, without gaps
(the format: https://github.com/huggingface/safetensors#format)
"""

import json
import math
import struct

from wan_alpha.errors import CheckpointError
from wan_alpha.weights.tensor_info import BITS, TensorInfo

MAX_HEADER_BYTES = 25_000_000  # a hundred times that of the largest Wan
_AGAIN = "download or save it again"


def read_safetensors_header(reader):
    """Read and check the header of a safetensors file; nothing behind it is read.

    Args:
        reader: a ``BoundedReader`` at the start of the file.

    Returns:
        (name -> TensorInfo, metadata str -> str, name -> (begin, end) in the file).

    Raises:
        CheckpointError: cut short, damaged, or with a header that does not describe the file.
    """
    path, prefix = reader.path, reader.read(8)
    if len(prefix) < 8:
        raise CheckpointError(f"{path}: not a readable safetensors file ({len(prefix)} bytes); {_AGAIN}")
    (length,) = struct.unpack("<Q", prefix)
    if length > MAX_HEADER_BYTES:
        raise CheckpointError(f"{path}: not a readable safetensors file (a header of {length} bytes); {_AGAIN}")
    text = reader.read(length)
    if len(text) < length:
        raise CheckpointError(f"{path}: cut short within its header ({reader.size} bytes are there); {_AGAIN}")
    entries = _parse(path, text)
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{path}: not a readable safetensors file (metadata that is not text); {_AGAIN}")
    start = 8 + length
    infos, spans = {}, {}
    for name, entry in entries.items():
        infos[name], (begin, end) = _tensor(path, name, entry)
        spans[name] = (start + begin, start + end)
    _check_spans(path, spans, start, reader.size)
    return infos, metadata, spans


def _parse(path, text):
    def without_repeats(pairs):
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a name is there twice")
        return found

    try:
        entries = json.loads(text.decode("utf-8"), object_pairs_hook=without_repeats)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file (header: {error}); {_AGAIN}") from error
    if not isinstance(entries, dict):
        raise CheckpointError(f"{path}: not a readable safetensors file (its header is no table); {_AGAIN}")
    return entries


def _tensor(path, name, entry):
    """(TensorInfo, (begin, end) in the data) of one entry, checked for itself."""

    def wrong(what):
        return CheckpointError(f"{path}: {name[:80]}: {what}; the header is damaged, {_AGAIN}")

    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise wrong("expected dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise wrong(f"a type that safetensors does not know ({str(dtype)[:20]})")
    if not _counts(shape) or not _counts(offsets) or len(offsets) != 2:
        raise wrong("a shape or offsets that are no counts")
    begin, end = offsets
    if (math.prod(shape) * BITS[dtype] + 7) // 8 != end - begin:
        raise wrong(f"{dtype} {shape} does not fill the {end - begin} bytes that it is given")
    return TensorInfo(tuple(shape), dtype), (begin, end)


def _counts(values):
    return (
        isinstance(values, list)
        and len(values) <= 64
        and all(type(value) is int and 0 <= value < 2**63 for value in values)
    )


def _check_spans(path, spans, start, size):
    place = start
    for name, (begin, end) in sorted(spans.items(), key=lambda item: item[1]):
        if begin != place:
            what = "overlaps another tensor" if begin < place else "leaves a gap before it"
            raise CheckpointError(f"{path}: {name[:80]}: {what}; the header is damaged, {_AGAIN}")
        place = end
    if place > size:
        raise CheckpointError(f"{path}: truncated: {size} of {place} bytes are there; {_AGAIN}")
    if place < size:
        raise CheckpointError(f"{path}: {size - place} bytes after its last tensor; the file is damaged, {_AGAIN}")
