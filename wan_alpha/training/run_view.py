"""What is seen of a run while it goes on: metrics, trackers, previews, times and memory of its steps."""

from contextlib import ExitStack

from wan_alpha.training.environment import describe_accelerator
from wan_alpha.training.performance import note_stage
from wan_alpha.training.previews import Previews
from wan_alpha.training.run_folder import MetricsLog, flatten
from wan_alpha.training.timing import PARTS, Timings
from wan_alpha.training.trackers import Trackers


class RunView:
    """A context manager; in processes other than the first it makes their part of previews and is silent otherwise.

    Args:
        trainee: a Trainee; output_dir: the run's folder; progress: a StepProgress.
        trackers: names, of choose_trackers; recipe: a Recipe, or None; make_previews: see Previews.
    """

    def __init__(self, trainee, output_dir, progress, trackers, recipe=None, make_previews=None):
        self._accelerator, self._settings = trainee.accelerator, trainee.settings
        self._progress, self._output_dir = progress, output_dir
        self._trackers = Trackers(
            self._accelerator, trackers, output_dir, {} if recipe is None else flatten(recipe.as_dict())
        )
        self._previews = Previews(
            make_previews, trainee.module, trainee.shown_average, self._accelerator, self._settings, progress,
            output_dir, self._trackers,
        )  # fmt: skip
        self._is_main = self._accelerator.is_main_process
        self._times, self._log, self._stack = "", None, ExitStack()

    def __enter__(self):
        self._stack.enter_context(self._trackers)
        place = f"{describe_accelerator()} x {self._accelerator.num_processes}"
        if self._is_main:
            self._timings = Timings(self._output_dir, place, self._settings.log_every)
        return self

    def __exit__(self, *error):
        return self._stack.__exit__(*error)

    def start_log(self, last_step):
        """Go on with ``metrics.jsonl`` after ``last_step``; lines of later steps fall away."""
        if self._is_main:
            self._log = MetricsLog(self._output_dir, last_step)

    def log_files(self):
        """What must be on the disk before a checkpoint is."""
        return [self._log.path] if self._is_main else []

    def note_time(self, step, timing, peak):
        """Take in how long a step took, of StepClock.take, and its memory; steps that become slower are told."""
        if not self._is_main:
            return
        settings = self._settings
        samples = settings.batch_size * settings.gradient_accumulation * self._accelerator.num_processes
        note_stage("step", timing["seconds"], samples, "samples", peak)
        for part in PARTS:
            note_stage(f"step: {part}", timing[part], samples, "samples", peak)
        factor = self._timings.note(step, timing, peak.bytes)
        self._times = f"data {self._timings.data_share():.0%} mem {peak.bytes / 2**30:.1f} GiB"
        if factor is not None:
            self._progress.say(f"step {step}: steps take {factor:.2f} times as long as this run's did before")

    def show_step(self, row, is_last, is_told):
        """Show a step and, each ``log_every`` steps and at the first, last and those to be told, record its row.

        Args:
            row: "step", "loss" and the other figures.
        """
        step = row["step"]
        self._progress.update(step, f"loss {row['loss']:.4f} {self._times}")
        is_logged = is_last or is_told or step == 1 or step % self._settings.log_every == 0
        if is_logged and self._is_main:
            self._log.write(row)
            self._trackers.log({name: value for name, value in row.items() if name != "step"}, step)
        self._previews.run(step, is_last)

    def say_breakdown(self):
        """One line on where the time of the steps went."""
        if self._is_main:
            self._progress.say(f"{self._output_dir}: {self._timings.breakdown()}")
