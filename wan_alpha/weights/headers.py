"""What a weight file holds, from its header: names, shapes and types, without the weights and without torch."""

import struct
from dataclasses import dataclass, field
from pathlib import Path

from wan_alpha.errors import CheckpointError
from wan_alpha.weights.bounded_reader import BoundedReader
from wan_alpha.weights.pickle_header import MAX_PICKLE_BYTES, read_pickle
from wan_alpha.weights.safetensors_header import MAX_HEADER_BYTES, read_safetensors_header
from wan_alpha.weights.tensor_info import TensorInfo

PICKLE_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")
WEIGHT_SUFFIXES = (".safetensors", *PICKLE_SUFFIXES)
# A state dict is often saved within a dict of its own, under one of these names.
WRAPPERS = ("state_dict", "model_state", "model_state_dict", "model", "module")
# How files begin that are often taken for weights -> what they are and what to do.
_STRANGERS = {
    b"version https://git-lfs": "a pointer of Git LFS, not the weights themselves: run `git lfs pull` in its folder",
    b"<": "a web page or XML, saved in place of the weights: download the file itself",
    b"GGUF": "GGUF, quantised for llama.cpp's readers, which this toolkit does not read: take the safetensors",
}


@dataclass(frozen=True)
class WeightHeader:
    """What the header of one weight file says.

    Attributes:
        path: the file; num_bytes: its size; num_bytes_read: how much of it was read to learn this.
        tensors: name -> TensorInfo.
        metadata: str to str; {} for PyTorch's own format.
        spans: name -> (begin, end) of a tensor's bytes in the file; {} for PyTorch's own format.
        others: names of what a PyTorch file holds beside tensors.
        is_bare: the file is one tensor without a name, here called "".
    """

    path: Path
    num_bytes: int
    num_bytes_read: int
    tensors: dict[str, TensorInfo]
    metadata: dict[str, str] = field(default_factory=dict)
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)
    others: tuple[str, ...] = ()
    is_bare: bool = False


def read_header(path):
    """Read the header of a safetensors or PyTorch file; no more than 25 MB of it (8 of a pickle), whatever it says.

    Raises:
        CheckpointError: missing, empty, of another format, truncated, damaged, or a pickle with code in it; with what
            to do about it.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weight file")
    with BoundedReader(path, MAX_HEADER_BYTES + 64) as reader:
        if reader.size == 0:
            raise CheckpointError(f"{path}: the file is empty; download or save it again")
        start = reader.read(24)
        reader.seek(0)
        for beginning, what in _STRANGERS.items():
            if start.startswith(beginning) and not (beginning == b"<" and path.suffix == ".safetensors"):
                raise CheckpointError(f"{path}: {what}")
        if start[:2] == b"PK" or path.suffix in PICKLE_SUFFIXES:
            reader.num_bytes_left = MAX_PICKLE_BYTES
            return _from_pickle(path, reader, read_pickle(reader))
        if path.suffix != ".safetensors" and not _may_be_safetensors(start):
            raise CheckpointError(
                f"{path}: expected {', '.join(WEIGHT_SUFFIXES)}; found {path.suffix or 'no suffix'} without weights"
            )
        tensors, metadata, spans = read_safetensors_header(reader)
        return WeightHeader(path, reader.size, reader.num_bytes_read, tensors, metadata, spans)


def read_scalar(header, name):
    """The value of a one-element float tensor in a safetensors file (an adapter's alpha); None of another tensor."""
    span, info = header.spans.get(name), header.tensors[name]
    if span is None or info.num_elements != 1 or info.dtype not in ("F64", "F32", "F16", "BF16"):
        return None
    with open(header.path, "rb") as file:
        file.seek(span[0])
        data = file.read(span[1] - span[0])
    if info.dtype == "BF16":
        return struct.unpack("<f", b"\0\0" + data)[0]
    return struct.unpack({"F64": "<d", "F32": "<f", "F16": "<e"}[info.dtype], data)[0]


def _may_be_safetensors(start):
    return len(start) > 8 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= MAX_HEADER_BYTES


def _from_pickle(path, reader, content):
    size, read = reader.size, reader.num_bytes_read
    if isinstance(content, TensorInfo):
        return WeightHeader(path, size, read, {"": content}, is_bare=True)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a dict of tensors, found {type(content).__name__}")
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    tensors = {str(name): value for name, value in content.items() if isinstance(value, TensorInfo)}
    others = tuple(str(name) for name, value in content.items() if not isinstance(value, TensorInfo))
    return WeightHeader(path, size, read, tensors, others=others)
