"""Files that are on the disk, and known byte by byte, when a call returns. Needs no torch.

Every operation is a call of ``os``, so that a test can make any one of them fail.
"""

import contextlib
import errno
import hashlib
import os
import shutil
from pathlib import Path

from wan_alpha.errors import CheckpointError

PIECE_BYTES = 4 << 20  # written, hashed and read at a time
FLUSH_BYTES = 128 << 20  # written between two flushes: the last one then has little left to wait for
SPARE_BYTES = 1 << 20  # for what a file system takes besides the files' own bytes
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}


class SaveCancelled(Exception):
    """A save was given up on request; what it had written is no checkpoint."""


def write_file(path, chunks, is_cancelled=lambda: False):
    """Write a new file and flush it to the disk.

    Args:
        path: must not exist.
        chunks: iterable of bytes-like objects.
        is_cancelled: asked before each piece.

    Returns:
        {"bytes": how many, "sha256": of them, as hex}: of what was meant to be written, not of what a disk gives back.

    Raises:
        OSError: the disk's own complaint.
        SaveCancelled: as asked.
    """
    digest, size, unflushed = hashlib.sha256(), 0, 0
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        for piece in _pieces(chunks):
            if is_cancelled():
                raise SaveCancelled
            digest.update(piece)
            size += len(piece)
            unflushed += len(piece)
            _write_all(handle, piece)
            if unflushed > FLUSH_BYTES:
                os.fsync(handle)
                unflushed = 0
        os.fsync(handle)
        _leave_cache(handle)
    finally:
        os.close(handle)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _pieces(chunks):
    for chunk in chunks:
        view = memoryview(chunk).cast("B")
        for start in range(0, len(view), PIECE_BYTES):
            yield view[start : start + PIECE_BYTES]


def _write_all(handle, piece):
    while piece:
        piece = piece[os.write(handle, piece) :]


def _leave_cache(handle):
    # Whoever verifies the file then reads the disk, where the system can be asked to forget what it wrote.
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)


def read_digest(path):
    """{"bytes", "sha256"} of a file as it is on the disk now.

    Raises:
        OSError: it cannot be read.
    """
    digest, size = hashlib.sha256(), 0
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        while piece := os.read(handle, PIECE_BYTES):
            digest.update(piece)
            size += len(piece)
    finally:
        os.close(handle)
    return {"bytes": size, "sha256": digest.hexdigest()}


def flush(path):
    """Flush a file or a folder's list of names to the disk."""
    is_folder = os.path.isdir(path)
    if is_folder and os.name == "nt":
        return  # Windows cannot open folders
    handle = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_folder(path):
    """Delete a folder of any content. First it is renamed, so that a half-deleted one is never taken for a whole one.

    What cannot be deleted stays hidden; :func:`remove_leftovers` tries again.
    """
    path = Path(path)
    hidden = path if path.name.startswith(".") else path.with_name(f".{path.name}.deleted")
    with contextlib.suppress(OSError):
        if hidden != path:
            os.rename(path, hidden)
        shutil.rmtree(hidden)


def check_space(folder, needed):
    """Refuse to begin what the disk has no room for.

    Args:
        folder: exists; needed: bytes.

    Raises:
        CheckpointError: with needed and free bytes.
    """
    free = shutil.disk_usage(folder).free
    if needed + SPARE_BYTES > free:
        raise CheckpointError(no_space_message(folder, needed, free))


def no_space_message(folder, needed, free):
    """What is said of a full disk."""
    return (
        f"{folder}: no room for a checkpoint: {needed} bytes needed, {free} bytes free; the checkpoints that are there "
        "stay as they are. Free some space and give the same command again"
    )


def is_no_space(error):
    """Whether an OSError says that the disk, or the user's share of it, is full."""
    return error.errno in _NO_SPACE
