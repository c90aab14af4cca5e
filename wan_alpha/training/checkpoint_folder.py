"""The folder of a run's checkpoints: committed whole, verified, kept by rule. Needs no torch.

checkpoints/
├── .step_00000500.partial/     being written; left by a dead process, and removed by the next
├── step_00000500/              renamed when its files are on the disk ...
│   ├── model.safetensors, optimizer.safetensors, ..., state.json       (in shards: training/sharded_files.py)
│   ├── checksums.json          every file's size and SHA-256
│   └── complete.json           ... and whole only with this, the last: the same again. One without it, by a death just
│                               before or an incomplete copy, is held to its checksums, and marked where they are right
└── step_00000400.damaged/      what was found not to be what it was written as
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from wan_alpha.errors import CheckpointError
from wan_alpha.training.durable import (
    check_space,
    flush,
    is_no_space,
    no_space_message,
    read_digest,
    remove_folder,
    write_file,
)

STATE_FILE = "state.json"
CHECKSUMS_FILE = "checksums.json"
MARKER_FILE = "complete.json"
FORMAT_VERSION = 3
_UNMARKED_FORMAT = 2  # whose folders were renamed when whole, with the files' sizes in the state
_NAME = re.compile(r"step_(\d{8,})$")
_HIDDEN = re.compile(r"\.step_\d{8,}\.(partial|deleted)$")


@dataclass(frozen=True)
class Keep:
    """Which checkpoints stay: the ``newest`` so many, those at multiples of ``every`` steps, the ``best`` step's."""

    newest: int = 1
    every: int | None = None
    best: int | None = None

    def selects(self, step, steps):
        """Whether the checkpoint at ``step`` stays, of those at ``steps``, in ascending order."""
        return step in steps[-self.newest :] or step == self.best or (self.every is not None and step % self.every == 0)


@dataclass
class Found:
    """What a folder of checkpoints held.

    Attributes:
        checkpoint, state: the newest whole one; None if there is none.
        damaged: (name, what is wrong with it, the name that it has now) of newer ones that were set aside.
    """

    checkpoint: Path | None = None
    state: dict | None = None
    damaged: list[tuple[str, str, str]] = field(default_factory=list)


def checkpoint_name(step):
    return f"step_{step:08d}"


def step_of(checkpoint):
    """The step of a checkpoint's folder."""
    return int(_NAME.match(Path(checkpoint).name)[1])


def list_checkpoints(folder):
    """Folders of the run's checkpoints, oldest first."""
    folder = Path(folder)
    found = [path for path in folder.iterdir() if _NAME.match(path.name)] if folder.is_dir() else []
    return sorted(found, key=step_of)


def partial_folder(folder, step):
    """Where a checkpoint's files are written until it is whole."""
    return Path(folder) / f".{checkpoint_name(step)}.partial"


def open_partial(folder, step, needed):
    """Make the folder that a checkpoint is written in, after cleaning up what dead processes left.

    Args:
        needed: bytes of the checkpoint.

    Returns:
        whether there is one to write: a whole one of the same run and step has the same content.

    Raises:
        CheckpointError: no room.
        OSError: the disk's own complaint.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    final = folder / checkpoint_name(step)
    if final.is_dir():
        if _is_marked(final) or _mark_if_whole(final) is None:
            return False
        _set_aside(final)
    check_space(folder, needed)
    os.mkdir(partial_folder(folder, step))
    return True


def write_checkpoint(
    folder, step, contents, state, keep, *, flush_before=(), is_cancelled=lambda: False, wait_for_shares=None
):
    """Commit one checkpoint, verify it, and only then delete those that are not kept.

    Args:
        folder: of the run's checkpoints; step: optimizer steps done.
        contents: file name -> (number of bytes, iterable of bytes-like chunks).
        state: dict of JSON values; keep: a :class:`Keep`.
        flush_before: files to flush before the commit: a log whose lines the checkpoint counts as written.
        is_cancelled: asked now and then; True gives the save up.
        wait_for_shares: () -> file name -> {"bytes", "sha256"} of what other processes write into the folder that
            :func:`open_partial` has made for all of them; None where there are no others.

    Returns:
        the checkpoint's folder.

    Raises:
        CheckpointError: no room (with needed and free bytes), the disk refused, or what it gives back differs from what
            was written. The checkpoints that were there are still there.
        SaveCancelled: as asked.
    """
    folder = Path(folder)
    text = json.dumps({"format_version": FORMAT_VERSION, "step": step, **state}, indent=2, allow_nan=False) + "\n"
    contents = {**contents, STATE_FILE: (len(text.encode()), [text.encode()])}
    needed = sum(num_bytes for num_bytes, _ in contents.values())
    final, partial = folder / checkpoint_name(step), partial_folder(folder, step)
    commits = False
    try:
        if wait_for_shares is not None or open_partial(folder, step, needed):
            for path in flush_before:
                flush(path)
            files = write_files(partial, contents, is_cancelled)
            if wait_for_shares is not None:
                files |= wait_for_shares()
            commits = True
            _commit(folder, final, partial, files)
        problem = find_problem(final)
    except OSError as error:
        if is_no_space(error):
            remove_folder(partial)  # first: what it took is free for the next attempt
            raise CheckpointError(no_space_message(folder, needed, shutil.disk_usage(folder).free)) from error
        raise CheckpointError(f"{final}: the checkpoint could not be written: {error}") from error
    finally:
        if partial.is_dir():
            remove_folder(partial)
        if commits and final.is_dir() and not _is_marked(final):
            remove_folder(final)
    if problem is not None:
        aside = _set_aside(final)
        raise CheckpointError(f"{final}: was written but reads back damaged ({problem}); it is now {aside}")
    with contextlib.suppress(OSError):  # the new one is safe: what is one too many goes after the next
        prune(folder, keep)
    return final


def write_files(partial, contents, is_cancelled):
    """Write files, and the folders that their names have; file name -> {"bytes", "sha256"}."""
    for name in contents:
        if "/" in name:
            (partial / name).parent.mkdir(exist_ok=True)
    return {name: write_file(partial / name, chunks, is_cancelled) for name, (_, chunks) in contents.items()}


def _commit(folder, final, partial, files):
    text = marker_text(files).encode()
    write_file(partial / CHECKSUMS_FILE, [text])
    for below in sorted({Path(name).parent for name in files}, reverse=True):
        flush(partial / below)
    os.rename(partial, final)
    flush(folder)
    # Where a rename is not atomic (some network and object stores), the marker still is the last thing to appear.
    _mark(final, text)


def _mark(checkpoint, text):
    marker = checkpoint / f".{MARKER_FILE}.partial"
    marker.unlink(missing_ok=True)
    write_file(marker, [text])
    os.rename(marker, checkpoint / MARKER_FILE)
    flush(checkpoint)


def _is_marked(checkpoint):
    return (checkpoint / MARKER_FILE).is_file()


def _mark_if_whole(checkpoint):
    """Mark a checkpoint that has no marker, where its files are as its checksums say; else what is wrong with it."""
    if not (checkpoint / CHECKSUMS_FILE).is_file():
        return find_problem(checkpoint)
    problem = find_problem(checkpoint, listed_in=CHECKSUMS_FILE)
    if problem is not None:
        return f"{MARKER_FILE} is missing, and {problem}"
    with contextlib.suppress(OSError):  # whole all the same
        _mark(checkpoint, (checkpoint / CHECKSUMS_FILE).read_bytes())
    return None


def marker_text(files):
    """The one way to write a marker: whatever is spelled otherwise, by a flipped bit say, is none.

    Args:
        files: file name -> {"bytes", "sha256"}.
    """
    content = {"format_version": FORMAT_VERSION, "files": files}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return json.dumps({**content, "sha256_of_this": digest}, indent=2, sort_keys=True) + "\n"


def find_problem(checkpoint, listed_in=MARKER_FILE):
    """Read a checkpoint whole; what is wrong with it, in a few words, or None.

    Args:
        listed_in: file whose sizes and checksums it is held to.
    """
    checkpoint = Path(checkpoint)
    try:
        if not (checkpoint / listed_in).is_file():
            return _find_problem_unmarked(checkpoint)
        text = (checkpoint / listed_in).read_bytes()
        content = json.loads(text)
        if text != marker_text(content["files"]).encode():
            return f"{listed_in} is not as it was written"
        checksums = checkpoint / CHECKSUMS_FILE  # which an earlier version did not write
        if checksums.is_file() and checksums.read_bytes() != text:
            return f"{CHECKSUMS_FILE} is not as it was written"
        for name, expected in content["files"].items():
            found = read_digest(checkpoint / name)
            if found["bytes"] != expected["bytes"]:
                return f"{name} has {found['bytes']} bytes, {expected['bytes']} were written"
            if found != expected:
                return f"the checksum of {name} differs"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"it cannot be read: {error}"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"{listed_in} is not as it was written"
    return None


def _find_problem_unmarked(checkpoint):
    state = read_state(checkpoint)
    if state is None or state.get("format_version") != _UNMARKED_FORMAT:
        return f"{MARKER_FILE} is missing"
    for name, num_bytes in state["files"].items():
        if (checkpoint / name).stat().st_size != num_bytes:
            return f"{name} is cut short"
    return None


def read_state(checkpoint):
    """The content of a checkpoint's state file; None if it cannot be read."""
    try:
        content = json.loads((Path(checkpoint) / STATE_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def remove_leftovers(folder):
    """Remove the hidden folders that dead processes left; one that was renamed may be whole, and is nobody's litter."""
    for path in sorted(Path(folder).iterdir()):
        if _HIDDEN.match(path.name):
            remove_folder(path)


def find_newest(folder):
    """Clean up after dead processes, and find the newest whole checkpoint; damaged ones on the way are set aside.

    One without a marker is whole where all its files are as its checksums say, and is marked.

    Raises:
        CheckpointError: there are checkpoints, and none of them is whole. They were set aside.
    """
    folder, found = Path(folder), Found()
    if not folder.is_dir():
        return found
    remove_leftovers(folder)
    for checkpoint in reversed(list_checkpoints(folder)):
        problem = find_problem(checkpoint) if _is_marked(checkpoint) else _mark_if_whole(checkpoint)
        if problem is None:
            found.checkpoint, found.state = checkpoint, read_state(checkpoint)
            return found
        found.damaged.append((checkpoint.name, problem, _set_aside(checkpoint).name))
    if found.damaged:
        listed = "; ".join(f"{name}: {problem}, now {aside}" for name, problem, aside in found.damaged)
        raise CheckpointError(
            f"{folder}: no checkpoint is whole ({listed}). To begin the run anew, give the same command again"
        )
    return found


def _set_aside(checkpoint):
    for number in range(1, 1000):
        aside = checkpoint.with_name(f"{checkpoint.name}.damaged{'' if number == 1 else f'_{number}'}")
        if not aside.exists():
            with contextlib.suppress(OSError):
                os.rename(checkpoint, aside)
                return aside
    return checkpoint


def prune(folder, keep):
    """Delete the checkpoints that a :class:`Keep` does not select."""
    checkpoints = list_checkpoints(folder)
    steps = [step_of(checkpoint) for checkpoint in checkpoints]
    for step, checkpoint in zip(steps, checkpoints, strict=True):
        if not keep.selects(step, steps):
            remove_folder(checkpoint)
