"""Saving where each process holds a part of the weights: each writes its part, the first one makes it a checkpoint."""

import contextlib
import json
import os
import shutil
import time

import torch
from accelerate.utils import gather_object

from wan_alpha.errors import CheckpointError
from wan_alpha.training.agreement import on_main
from wan_alpha.training.checkpoint_folder import open_partial, partial_folder, write_checkpoint, write_files
from wan_alpha.training.durable import SaveCancelled, is_no_space, no_space_message
from wan_alpha.training.saving import Saver

POLL_SECONDS = 0.05


class ShardedSaver(Saver):
    """A :class:`Saver` all of whose processes write, into one folder that all see.

    The folder is opened together; then the processes meet through files alone, since collective operations beside those
    of the training would mix with them. Where they wait for the end of it, they do that together.
    """

    def save(self, state, make_files, flush_before=()):
        self.wait()
        contents = self._contents(make_files())
        own = torch.tensor(sum(num_bytes for num_bytes, _ in contents.values()), device=self.accelerator.device)
        needed = int(self.accelerator.reduce(own, "sum"))
        if on_main(self.accelerator, self._open, state.step, needed):
            self._start(state, contents, flush_before)
        if not self.settings.background_saving:
            self.wait()
        self.saved_step = state.step

    def _open(self, step, needed):
        try:
            return open_partial(self.folder, step, needed)
        except OSError as error:
            raise CheckpointError(f"{self.folder}: the checkpoint could not be written: {error}") from error

    def _start(self, state, contents, flush_before):
        partial, is_cancelled = partial_folder(self.folder, state.step), self._task.is_cancelled
        if not self.accelerator.is_main_process:
            self._task.start(write_share, partial, contents, self.accelerator.process_index, is_cancelled)
            return
        ranks = range(1, self.accelerator.num_processes)
        self._task.start(
            write_checkpoint, self.folder, state.step, contents, dict(vars(state)), self._keep(state),
            flush_before=tuple(flush_before), is_cancelled=is_cancelled,
            wait_for_shares=lambda: wait_for_shares(partial, ranks, is_cancelled),
        )  # fmt: skip

    def wait(self):
        """As :meth:`Saver.wait`. Whoever failed and could not tell it by a file tells it here: the first process would
        wait for its part for ever."""
        while True:
            own = torch.tensor([self._task.is_running(), self._task.has_failed()], dtype=torch.float32)
            running, failed = self.accelerator.reduce(own.to(self.accelerator.device), "sum").tolist()
            if failed:
                self._task.cancel()
            if not running:
                break
            time.sleep(POLL_SECONDS)
        problem = None
        try:
            self._task.wait()
        except CheckpointError as error:
            problem = str(error)
        except SaveCancelled:
            pass  # of another's failure
        if failed:
            problems = filter(None, gather_object([problem]))
            raise CheckpointError(next(problems, f"{self.folder}: a checkpoint could not be written"))


def write_share(partial, contents, rank, is_cancelled=lambda: False):
    """Write one process's files and tell the first one of them, or of what went wrong: that one raises it.

    Args:
        partial: folder of the checkpoint that is being written; contents: as in ``write_checkpoint``; rank: whose.

    Raises:
        CheckpointError: what went wrong, or that all went well, could not be told.
    """
    told = {}
    try:
        told["files"] = write_files(partial, contents, is_cancelled)
    except SaveCancelled:
        return
    except OSError as error:
        for name in contents:  # what they took is free for the message
            with contextlib.suppress(OSError):
                (partial / name).unlink()
        told["error"] = _complaint(partial, contents, rank, error)
    try:
        (partial / f".{rank}.told").write_text(json.dumps(told), encoding="utf-8")
        os.rename(partial / f".{rank}.told", partial / f".share.{rank}")
    except OSError as error:
        raise CheckpointError(told.get("error") or _complaint(partial, contents, rank, error)) from error


def _complaint(partial, contents, rank, error):
    if is_no_space(error):
        with contextlib.suppress(OSError):
            needed = sum(num_bytes for num_bytes, _ in contents.values())
            return no_space_message(partial.parent, needed, shutil.disk_usage(partial.parent).free)
    return f"{partial}: process {rank} could not write its part of the checkpoint: {error}"


def wait_for_shares(partial, ranks, is_cancelled=lambda: False):
    """Wait for what :func:`write_share` tells.

    Returns:
        file name -> {"bytes", "sha256"}, of all ``ranks``.

    Raises:
        CheckpointError: one of them could not write.
        SaveCancelled: as asked.
    """
    files = {}
    for rank in ranks:
        report = partial / f".share.{rank}"
        while not report.exists():
            if is_cancelled():
                raise SaveCancelled
            time.sleep(POLL_SECONDS)
        told = json.loads(report.read_text(encoding="utf-8"))
        if "error" in told:
            raise CheckpointError(told["error"])
        files |= told["files"]
        report.unlink()
    return files
