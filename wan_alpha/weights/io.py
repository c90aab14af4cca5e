"""Weight files in and out. The only module that unpickles anything, and never with code in it."""

import contextlib
import hashlib
import os
import pickle
import struct
import uuid
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from wan_alpha.errors import CheckpointError
from wan_alpha.weights.bounded_reader import BoundedReader
from wan_alpha.weights.headers import PICKLE_SUFFIXES, WRAPPERS, read_header
from wan_alpha.weights.pickle_header import MAX_PICKLE_BYTES, check_zip
from wan_alpha.weights.safetensors_stream import safetensors_stream

# What torch.load raises for files that are no checkpoint, hold code, or were cut short.
_UNREADABLE = (
    pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, IndexError,
    TypeError, AssertionError, struct.error,
)  # fmt: skip
_HASHED_AT_A_TIME = 16 * 2**20  # bytes


def _existing(path):
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weight file")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path}: the file is empty; download or save it again")
    return path


def load_state_dict(path):
    """Read a state dict from safetensors or from a PyTorch file that holds tensors and nothing else.

    Args:
        path: ``.safetensors``, or ``.pth``, ``.pt``, ``.bin``, ``.ckpt``, memory-mapped where the format allows. A
            state dict wrapped once as ``state_dict``, ``model`` and the like is unwrapped.

    Returns:
        dict of name to tensor on the CPU, in the file's dtypes.

    Raises:
        CheckpointError: missing, truncated, of another format, holding code, or holding something else than tensors.
    """
    path = _existing(path)
    if path.suffix == ".safetensors":
        read_header(path)  # says what is wrong with a file that is damaged
        return _load_safetensors(path)
    if path.suffix not in PICKLE_SUFFIXES:
        raise CheckpointError(
            f"{path}: expected .safetensors, {', '.join(PICKLE_SUFFIXES)}; found {path.suffix or 'no suffix'}"
        )
    read_header(path)  # refuses what would run code or fill the memory, and says what is wrong with a damaged file
    content = _unpickle(path)
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path}: expected a dict of tensors, found {type(content).__name__}")
    strangers = [str(name) for name, value in content.items() if not isinstance(value, torch.Tensor)]
    if strangers:
        raise CheckpointError(f"{path}: expected tensors only, found other values at {', '.join(strangers[:3])}")
    return content


def load_tensor(path):
    """Read a file that holds one bare tensor, as the released ``gauss_mask`` does.

    Raises:
        CheckpointError: as :func:`load_state_dict`, or the file holds more than one tensor.
    """
    content = _unpickle(_existing(path))
    if not isinstance(content, torch.Tensor):
        raise CheckpointError(f"{path}: expected one tensor, found {type(content).__name__}")
    return content


def load_training_state(path):
    """Read what a training script saved of itself: a dict of state dicts, numbers and plain containers of them.

    Raises:
        CheckpointError: as :func:`load_state_dict`, or the file holds no dict.
    """
    # Never mapped: a script that goes on from a state overwrites its file while its optimizer still holds the tensors.
    content = _unpickle(_existing(path), mapped=False)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a training state (a dict), found {type(content).__name__}")
    return content


def _unpickle(path, mapped=True):
    if _is_zip(path):
        with BoundedReader(path, MAX_PICKLE_BYTES) as reader:
            check_zip(reader)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and _is_zip(path))
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: not a PyTorch file of plain tensors, or truncated ({reason})") from error


def _is_zip(path):
    # Only the zip format of torch.save can be mapped; files older than PyTorch 1.6 are read whole.
    with open(path, "rb") as file:
        return file.read(2) == b"PK"


def _load_safetensors(path):
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error


def read_metadata(path):
    """The metadata (str to str) of a safetensors file, without its tensors; {} for a PyTorch file.

    Raises:
        CheckpointError: the file is missing or its header is not valid.
    """
    path = _existing(path)
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error


def save_safetensors(tensors, path, metadata=None):
    """Write tensors atomically: a crash leaves the old file or the new one, never half of one.

    The same tensors and metadata give the same bytes. (The safetensors library shuffles the metadata.)

    Args:
        tensors: dict of name to tensor; path: target; metadata: str to str, or values that JSON can hold.
    """
    write_stream(safetensors_stream(tensors, metadata), path)


def write_stream(stream, path):
    """Write what :func:`wan_alpha.weights.safetensors_stream.safetensors_stream` made, atomically."""
    _, chunks = stream
    with replacing(path) as temporary, open(temporary, "wb") as file:
        for chunk in chunks:
            file.write(chunk)


def save_pickle(tensors, path):
    """Write a state dict with ``torch.save``, atomically, for readers that know no other format (the released code)."""
    tensors = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        torch.save(tensors, temporary)


@contextlib.contextmanager
def replacing(path):
    """Give a path beside ``path`` to write to, in a folder that is made; the file takes its place at a good end.

    An error leaves the old file and nothing else. The mode is that of any new file, as the umask has it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")
    temporary.touch(exist_ok=False)
    mode = temporary.stat().st_mode
    try:
        yield temporary
        # Some writers, safetensors among them, put a file of their own there that its owner alone may read.
        temporary.chmod(mode)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def file_sha256(path, callback=None):
    """SHA-256 of a file's bytes, as hex; callback("hashing", bytes done, bytes in all) is told now and then."""
    digest, done = hashlib.sha256(), 0
    with open(_existing(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        while piece := file.read(_HASHED_AT_A_TIME):
            digest.update(piece)
            done += len(piece)
            if callback is not None:
                callback("hashing", done, size)
    return digest.hexdigest()


def rounded_sha256(tensors, callback=None):
    """:func:`tensors_sha256` of tensors rounded to bfloat16, one at a time: the same for a float32 model and its
    bfloat16 copy. An adapter names its base by it (``base_sha256``)."""
    return tensors_sha256(_Rounded(tensors), callback)


class _Rounded(Mapping):
    def __init__(self, tensors):
        self.tensors = tensors

    def __getitem__(self, name):
        return self.tensors[name].to(torch.bfloat16)

    def __iter__(self):
        return iter(self.tensors)

    def __len__(self):
        return len(self.tensors)


def tensors_sha256(tensors, callback=None):
    """SHA-256 over names, dtypes, shapes and values of tensors, as hex; the order of the dict does not matter.

    ``callback`` is called as callback("hashing", tensors done, tensors in all).
    """
    digest = hashlib.sha256()
    for done, name in enumerate(sorted(tensors), start=1):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
        if callback is not None:
            callback("hashing", done, len(tensors))
    return digest.hexdigest()
