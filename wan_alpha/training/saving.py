"""When a run is saved, and how little training waits for it."""

import sys
from pathlib import Path

from wan_alpha.training.agreement import on_main
from wan_alpha.training.background import BackgroundTask
from wan_alpha.training.checkpoint_folder import Keep, find_newest, list_checkpoints, write_checkpoint
from wan_alpha.training.checkpoints import checkpoint_contents
from wan_alpha.training.host_copy import HostCopy
from wan_alpha.training.run_folder import check_same_recipe

CHECKPOINTS_FOLDER = "checkpoints"


def find_checkpoint(output_dir, recipe=None):
    """What a run can go on from; damaged checkpoints are named on standard error.

    For one process to call: it reads every byte, and sets damaged checkpoints aside.

    Args:
        output_dir: of the run; recipe: today's, or None.

    Returns:
        a Found.

    Raises:
        ConfigError: the folder holds a run of another recipe; nothing was touched.
        CheckpointError: none of the checkpoints there is whole.
    """
    folder = Path(output_dir) / CHECKPOINTS_FOLDER
    if recipe is not None and list_checkpoints(folder):
        check_same_recipe(output_dir, recipe)
    found = find_newest(folder)
    for name, problem, aside in found.damaged:
        instead = found.checkpoint.name
        print(f"{folder / name}: damaged: {problem}; now {aside}; going on from {instead}", file=sys.stderr)
    return found


class Saver:
    """Writes a run's checkpoints, one at a time; a context manager whose end waits for the last one.

    With ``background_saving`` training waits for the copy to host memory, and for the checkpoint before if that is
    still being written; without it, until the checkpoint is verified. All processes call its methods; here the first
    one does the work, see :class:`~wan_alpha.training.sharded_saving.ShardedSaver` for the other way.

    Args:
        folder: of the checkpoints; settings: TrainingSettings; accelerator: of the run.
        signals: StopSignals; when these say at once, a checkpoint that is being written is given up.
        saved_step: step of the newest checkpoint there is, None for none.
    """

    def __init__(self, folder, settings, accelerator, signals, saved_step=None):
        self.folder, self.settings, self.accelerator = Path(folder), settings, accelerator
        self.signals, self.saved_step = signals, saved_step
        self._task, self._copy = BackgroundTask(), HostCopy()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if self.signals.at_once:
            self._task.cancel()
        try:
            problem = self._task.close()
        except KeyboardInterrupt:
            self._task.cancel()
            raise
        if problem is not None and error is None:
            raise problem
        if problem is not None and not self.signals.at_once:
            error.add_note(f"and the checkpoint that was being written then failed: {problem}")

    def save(self, state, make_files, flush_before=()):
        """Save the run as it stands.

        Args:
            state: a RunState; make_files: () -> file name -> (tensors, metadata), as they are in use.
            flush_before: files that must be on the disk before the checkpoint is.

        Raises:
            CheckpointError: this checkpoint or the one before could not be written.
        """
        on_main(self.accelerator, self._save, state, make_files, flush_before)
        self.saved_step = state.step

    def _save(self, state, make_files, flush_before):
        self._task.wait()
        self._write(write_checkpoint, self.folder, state.step, self._contents(make_files()), dict(vars(state)),
                    self._keep(state), flush_before=tuple(flush_before))  # fmt: skip

    def _contents(self, files):
        return checkpoint_contents(self._copy.take(files) if self.settings.background_saving else files)

    def _keep(self, state):
        return Keep(self.settings.keep_checkpoints, self.settings.keep_every, (state.best or {}).get("step"))

    def _write(self, function, *arguments, **options):
        options["is_cancelled"] = self._task.is_cancelled
        if self.settings.background_saving:
            self._task.start(function, *arguments, **options)
        else:
            function(*arguments, **options)

    def wait(self):
        """Wait until the last checkpoint is on the disk and verified.

        Raises:
            CheckpointError: it could not be written.
        """
        on_main(self.accelerator, self._task.wait)

    def has_failed(self):
        """Whether a checkpoint that was being written failed; :meth:`wait` says why."""
        return self._task.has_failed()
