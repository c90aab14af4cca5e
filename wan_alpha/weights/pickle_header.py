"""What a file of torch.save holds, by its pickle alone: no weight is read and nothing in the file is ever called.

A pickle is a program. This reads it with an interpreter of the few instructions that torch.save writes for tensors,
dicts and numbers; names of functions are looked up in a table of what they make, never imported.
"""

import pickletools
import struct
import zipfile
from typing import NamedTuple

from wan_alpha.errors import CheckpointError
from wan_alpha.weights.tensor_info import BITS, TensorInfo

MAX_PICKLE_BYTES = 8_000_000  # twenty times that of the largest Wan
_MAGIC = 0x1950A86A20F9469CFC6C  # of torch.save before version 1.6
_OLD_PICKLES = ("protocol", "machine", "content", "names of the storages")  # that follow its magic number
_STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL", "ComplexFloatStorage": "C64", "UntypedStorage": "U8",
}  # fmt: skip
_DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip
_FUNCTIONS = (
    "collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3",
    "torch._utils._rebuild_parameter", "torch.Size", "torch.device",
)  # fmt: skip
_SAFER = "ask its maker for safetensors, or save its plain state dict again"


class _Name(NamedTuple):
    text: str


class _Storage(NamedTuple):
    dtype: str
    key: str
    num_elements: int


class _Mark:
    pass


def read_pickle(reader):
    """What a file of torch.save holds.

    Args:
        reader: a ``BoundedReader`` at the start of the file.

    Returns:
        its content, with a TensorInfo in place of each tensor: mostly a dict.

    Raises:
        CheckpointError: truncated, compressed, or a pickle with anything but tensors and plain values in it.
    """
    start = reader.read(4)
    reader.seek(0)
    if start[:2] == b"PK":
        return _read_zip(reader)
    if start[:1] != b"\x80":
        raise CheckpointError(f"{reader.path}: not a PyTorch file; download or save it again")
    magic, _ = _interpret(reader)
    if magic != _MAGIC:
        raise CheckpointError(f"{reader.path}: a pickle, but none of torch.save; {_SAFER}")
    _, _, (content, storages), _ = [_interpret(reader) for _ in _OLD_PICKLES]
    needed = sum(storage.num_elements * BITS[storage.dtype] // 8 for storage in storages.values())
    if reader.tell() + needed > reader.size:
        raise CheckpointError(
            f"{reader.path}: truncated: {reader.size} of at least {reader.tell() + needed} bytes are there; "
            "download or save it again"
        )
    return content


def check_zip(reader):
    """The entries of torch.save's zip file, by name, if they are what torch.save writes.

    Raises:
        CheckpointError: cut short, an entry that is compressed, that leaves its place or that overlaps others.
    """
    path = reader.path
    try:
        entries = zipfile.ZipFile(reader).infolist()
    except CheckpointError:
        raise
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, OverflowError, RuntimeError, struct.error) as error:
        raise CheckpointError(
            f"{path}: not a PyTorch file of plain tensors, or truncated ({error}); download or save it again"
        ) from error
    total = 0
    for entry in entries:
        total += entry.file_size
        if ".." in entry.filename.split("/") or entry.filename.startswith(("/", "\\")) or "\\" in entry.filename:
            raise CheckpointError(
                f"{path}: holds {entry.filename[:80]!r}, a name that leaves its folder; do not use it"
            )
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise CheckpointError(
                f"{path}: {entry.filename[:80]} is compressed to {entry.compress_size} of {entry.file_size} bytes, "
                f"which torch.save never does: a zip bomb, or packed by another tool. Do not open it; {_SAFER}"
            )
    if total > reader.size:
        raise CheckpointError(f"{path}: its entries overlap, as those of a zip bomb do. Do not open it; {_SAFER}")
    return {entry.filename: entry for entry in entries}


def _read_zip(reader):
    path, entries = reader.path, check_zip(reader)
    roots = [name.removesuffix("/data.pkl") for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(roots) != 1:
        raise CheckpointError(
            f"{path}: a zip file, but not one of torch.save (no data.pkl in it); expected a file of weights"
        )
    if entries[f"{roots[0]}/data.pkl"].file_size > MAX_PICKLE_BYTES:
        raise CheckpointError(f"{path}: its pickle is larger than any model's: made to fill the memory; {_SAFER}")
    try:
        with zipfile.ZipFile(reader).open(f"{roots[0]}/data.pkl") as pickled:
            content, storages = _interpret(pickled, path)
    except CheckpointError:
        raise
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, RuntimeError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); download or save it again") from error
    for storage in storages.values():
        entry = entries.get(f"{roots[0]}/data/{storage.key}")
        if entry is None or entry.file_size != storage.num_elements * BITS[storage.dtype] // 8:
            found = "is missing" if entry is None else f"has {entry.file_size} bytes"
            raise CheckpointError(
                f"{path}: truncated or damaged: storage {storage.key[:40]} of {storage.num_elements} {storage.dtype} "
                f"{found}; download or save it again"
            )
    return content


def _interpret(file, path=None):
    """(content, storages by key) of one pickle in a file; the file is left behind it."""
    path = path or file.path
    machine = _Machine(path)
    try:
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name == "STOP":
                return machine.stack.pop(), machine.storages
            machine.step(opcode.name, argument)
    except CheckpointError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise CheckpointError(
            f"{path}: not a PyTorch file of plain tensors, or truncated (its pickle is damaged: {str(error)[:80]}); "
            "download or save it again"
        ) from error
    raise CheckpointError(f"{path}: truncated within its pickle; download or save it again")


class _Machine:
    """Stack and memo of one pickle."""

    def __init__(self, path):
        self.path, self.stack, self.memo, self.storages = path, [], {}, {}

    def step(self, name, argument):
        stack = self.stack
        if name in ("PROTO", "FRAME", "BUILD"):
            if name == "BUILD":  # attributes of a dict of tensors, which nobody needs
                stack.pop()
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _VALUES:
            stack.append(argument)
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name == "MARK":
            stack.append(_Mark)
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self.memo[argument])
        elif name in _TUPLES:
            count = _TUPLES[name]
            items = self._pop(count)
            stack.append(tuple(items))
        elif name == "TUPLE":
            stack.append(tuple(self._pop_to_mark()))
        elif name in ("APPEND", "APPENDS"):
            items = self._pop(1) if name == "APPEND" else self._pop_to_mark()
            stack[-1].extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._pop(2) if name == "SETITEM" else self._pop_to_mark()
            self._set_items(items)
        elif name == "GLOBAL":
            stack.append(self._name(argument.replace(" ", ".", 1)))
        elif name == "STACK_GLOBAL":
            module, attribute = self._pop(2)
            stack.append(self._name(f"{module}.{attribute}"))
        elif name == "BINPERSID":
            stack.append(self._storage(stack.pop()))
        elif name == "REDUCE":
            function, arguments = self._pop(2)
            stack.append(self._call(function, arguments))
        else:
            raise CheckpointError(
                f"{self.path}: its pickle holds the instruction {name}, which plain tensors never need: it may be "
                f"code. Nothing was run; {_SAFER}"
            )

    def _pop(self, count):
        if len(self.stack) < count:
            raise ValueError("too few values")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def _pop_to_mark(self):
        place = len(self.stack) - 1
        while self.stack[place] is not _Mark:
            place -= 1
            if place < 0:
                raise ValueError("no mark")
        items = self.stack[place + 1 :]
        del self.stack[place:]
        return items

    def _set_items(self, items):
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("items that belong to no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Small numbers only: large ones could be made to collide.
            if not (isinstance(key, str) or (type(key) is int and 0 <= key < 2**32)):
                raise ValueError("a key that is no text")
            target[key] = value

    def _name(self, text):
        if text in _FUNCTIONS:
            return _Name(text)
        module, _, last = text.rpartition(".")
        if module in ("torch", "torch.storage") and last in _STORAGES:
            return _Name(f"storage {_STORAGES[last]}")
        if module == "torch" and last in _DTYPES:
            return _Name(f"dtype {_DTYPES[last]}")
        raise CheckpointError(
            f"{self.path}: its pickle names {text[:80]}: code, or an object that is no tensor. "
            f"Nothing was run; {_SAFER}"
        )

    def _storage(self, persistent):
        kind, key, num_elements = persistent[1], str(persistent[2]), persistent[4]
        if persistent[0] != "storage" or not kind.text.startswith("storage ") or type(num_elements) is not int:
            raise ValueError("a storage that is none")
        storage = _Storage(kind.text.removeprefix("storage "), key, num_elements)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {key[:40]} has two sizes")
        return storage

    def _ordered_dict(self, pairs=()):
        # Filled item by item, or, in files of PyTorch's first years, from a list of pairs.
        if not isinstance(pairs, (list, tuple)) or any(type(pair) is not list or len(pair) != 2 for pair in pairs):
            raise ValueError("an OrderedDict of no pairs")
        self.stack.append({})
        self._set_items([value for pair in pairs for value in pair])
        return self.stack.pop()

    def _call(self, function, arguments):
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise ValueError("a call of no function")
        if function.text == "collections.OrderedDict":
            return self._ordered_dict(*arguments)
        if function.text in ("torch._utils._rebuild_parameter", "torch.Size", "torch.device"):
            return arguments[0]
        if function.text.startswith("torch._utils._rebuild_tensor_v"):
            return self._tensor(*arguments)
        raise ValueError(f"a call of {function.text}")

    def _tensor(self, storage, offset, shape, strides, _requires_grad, _hooks, dtype=None, *_):
        numbers = (offset, *shape, *strides)
        if not isinstance(storage, _Storage) or any(type(number) is not int or number < 0 for number in numbers):
            raise ValueError("a tensor that is none")
        info = TensorInfo(
            tuple(shape), dtype.text.removeprefix("dtype ") if isinstance(dtype, _Name) else storage.dtype
        )
        reach = offset + 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        if info.num_elements and reach * BITS[info.dtype] > storage.num_elements * BITS[storage.dtype]:
            raise ValueError(f"a tensor of shape {info.shape} reaches out of its storage")
        return info


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_VALUES = (
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING",
    "SHORT_BINSTRING",
)  # fmt: skip
