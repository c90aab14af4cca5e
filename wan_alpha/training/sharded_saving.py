"""Saving where each process holds a part of the weights: each writes its part, the first one makes it a checkpoint."""

import json
import os
import shutil
import time

import torch

from wan_alpha.errors import CheckpointError
from wan_alpha.training.agreement import on_main
from wan_alpha.training.checkpoint_folder import open_partial, partial_folder, write_checkpoint, write_files
from wan_alpha.training.durable import SaveCancelled, is_no_space, no_space_message
from wan_alpha.training.saving import Saver

POLL_SECONDS = 0.05


class ShardedSaver(Saver):
    """A :class:`Saver` all of whose processes write, into one folder that all see.

    The folder is opened together; then the processes meet through files alone, since collective operations beside those
    of the training would mix with them.
    """

    def save(self, state, make_files, flush_before=()):
        on_main(self.accelerator, self._task.wait, by_all=True)
        contents = self._contents(make_files())
        own = torch.tensor(sum(num_bytes for num_bytes, _ in contents.values()), device=self.accelerator.device)
        needed = int(self.accelerator.reduce(own, "sum"))
        if not on_main(self.accelerator, self._open, state.step, needed):
            contents = None
        on_main(self.accelerator, self._write_own, state, contents, flush_before, by_all=True)
        self.saved_step = state.step

    def _open(self, step, needed):
        try:
            return open_partial(self.folder, step, needed)
        except OSError as error:
            raise CheckpointError(f"{self.folder}: the checkpoint could not be written: {error}") from error

    def _write_own(self, state, contents, flush_before):
        if contents is None:
            return
        partial = partial_folder(self.folder, state.step)
        if not self.accelerator.is_main_process:
            self._write(write_share, partial, contents, self.accelerator.process_index)
            return
        ranks = range(1, self.accelerator.num_processes)
        self._write(
            write_checkpoint, self.folder, state.step, contents, dict(vars(state)), self._keep(state),
            flush_before=tuple(flush_before),
            wait_for_shares=lambda: wait_for_shares(partial, ranks, self._task.is_cancelled),
        )  # fmt: skip

    def wait(self):
        on_main(self.accelerator, self._task.wait, by_all=True)


def write_share(partial, contents, rank, is_cancelled=lambda: False):
    """Write one process's files and tell the first one of them, or of what went wrong: that one raises it.

    Args:
        partial: folder of the checkpoint that is being written; contents: as in ``write_checkpoint``; rank: whose.
    """
    told = {}
    try:
        told["files"] = write_files(partial, contents, is_cancelled)
    except SaveCancelled:
        return
    except OSError as error:
        for name in contents:  # what they took is free for the message
            (partial / name).unlink(missing_ok=True)
        needed, free = sum(num_bytes for num_bytes, _ in contents.values()), shutil.disk_usage(partial.parent).free
        told["error"] = (
            no_space_message(partial.parent, needed, free)
            if is_no_space(error)
            else f"{partial}: process {rank} could not write its part of the checkpoint: {error}"
        )
    try:
        report = partial / f".share.{rank}"
        (partial / f".{rank}.told").write_text(json.dumps(told), encoding="utf-8")
        os.rename(partial / f".{rank}.told", report)
    except OSError:
        return  # the folder is gone: the first process has given up, and says why


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
