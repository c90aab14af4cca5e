"""A model in several files: which they are, by an index or by their names, and that none is missing."""

import json
import re
from pathlib import Path

from wan_alpha.errors import CheckpointError
from wan_alpha.weights.headers import read_header

INDEX_ENDINGS = (".safetensors.index.json", ".bin.index.json")
_MAX_INDEX_BYTES = 25_000_000
_NUMBERED = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.\w+)")


def read_json(path, what):
    """The JSON object in a small text file.

    Raises:
        CheckpointError: unreadable, not JSON, or no object; ``what`` says what it should be.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_INDEX_BYTES:
            raise CheckpointError(f"{path}: {path.stat().st_size} bytes, expected {what}; download it again")
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: expected {what} ({error}); download it again") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: expected {what}, found {type(found).__name__}; download it again")
    return found


def index_names(index_path):
    """The names of files that an index mentions; empty for a file that is no index."""
    try:
        weight_map = read_json(index_path, "a weight_map of tensors to shards").get("weight_map")
    except CheckpointError:
        return set()
    return {name for name in weight_map.values() if isinstance(name, str)} if isinstance(weight_map, dict) else set()


def indexed_shards(index_path):
    """The files of a model's index, in order, all there and all beside the index.

    Raises:
        CheckpointError: no index, a name that leaves the folder, or a shard that is missing.
    """
    index_path = Path(index_path)
    weight_map = read_json(index_path, "a weight_map of tensors to shards").get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(v, str) for v in weight_map.values()):
        raise CheckpointError(f"{index_path}: expected a weight_map of tensors to shards; download it again")
    names = sorted(set(weight_map.values()))
    for name in names:
        if not is_plain_name(name):
            raise CheckpointError(
                f"{index_path}: names the shard {name[:80]!r}, which is outside its folder; expected a file beside it"
            )
    return _all_there(index_path.parent, names)


def is_plain_name(name):
    """Whether a name that a file mentions is one of a file in the same folder, and nowhere else."""
    return bool(name) and name not in (".", "..") and not set(name) & set("/\\\0:")


def numbered_shards(path):
    """The shards of the set that a file belongs to by its name (``x-00001-of-00003.safetensors``); else the file alone.

    Raises:
        CheckpointError: a shard of the set is missing.
    """
    path = Path(path)
    match = _NUMBERED.fullmatch(path.name)
    if not match:
        return [path]
    count = int(match["count"])
    names = [f"{match['stem']}-{number:05d}-of-{match['count']}{match['suffix']}" for number in range(1, count + 1)]
    return _all_there(path.parent, names)


def check_index(index_path):
    """Compare an index with the headers of its shards.

    Raises:
        CheckpointError: as :func:`indexed_shards`, or a tensor that is not in the shard that the index names.
    """
    headers = {path.name: read_header(path) for path in indexed_shards(index_path)}
    for tensor, name in read_json(index_path, "a weight_map of tensors to shards")["weight_map"].items():
        if tensor not in headers[name].tensors:
            raise CheckpointError(
                f"{headers[name].path}: lacks {tensor}, which {Path(index_path).name} promises; "
                "download this shard again"
            )
    return list(headers.values())


def _all_there(folder, names):
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder}: expected {len(names)} shards, {', '.join(missing[:5])} missing; download again what is missing"
        )
    return [folder / name for name in names]
