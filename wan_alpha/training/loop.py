"""The training loop: deterministic, resumable, guarded. It knows modules and datasets, no models.

To resume, run the same command again: the run continues at its newest checkpoint as if it had never stopped.
"""

from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch

from wan_alpha.errors import CheckpointError, ConfigError, RunStopped
from wan_alpha.training.agreement import on_main
from wan_alpha.training.device import make_accelerator
from wan_alpha.training.environment import write_environment
from wan_alpha.training.guards import count_update, loss_spike
from wan_alpha.training.loading import load_batches
from wan_alpha.training.order import SampleOrder, micro_batches
from wan_alpha.training.performance import measured, span_of_memory
from wan_alpha.training.progress import StepProgress
from wan_alpha.training.run_folder import (
    MetricsLog,
    check_same_base,
    check_same_dataset,
    check_same_step_size,
    describe_dataset,
    read_metrics,
    run_start,
    validation_history,
    write_recipe,
)
from wan_alpha.training.run_lock import run_lock
from wan_alpha.training.run_view import RunView
from wan_alpha.training.saving import CHECKPOINTS_FOLDER, Saver, find_checkpoint
from wan_alpha.training.schedule import learning_rate
from wan_alpha.training.sharded_saving import ShardedSaver
from wan_alpha.training.shared_folder import check_all_see
from wan_alpha.training.signals import StopSignals
from wan_alpha.training.start import check_start
from wan_alpha.training.state import RunState
from wan_alpha.training.step import StepRunner
from wan_alpha.training.timing import StepClock
from wan_alpha.training.trainee import Trainee
from wan_alpha.training.validation import Validation, check_best_is_known, forget_other_best, note_best


@dataclass
class TrainingResult:
    """What a run came to, its earlier parts included.

    Attributes:
        step: optimizer steps done.
        losses: loss of each logged step; None where it was not finite and the update was skipped.
        validation: dicts of "step" (0 = before training) and the figures that ``validate`` returned.
        skipped_updates: steps whose loss or gradient was not finite.
        resumed_from: step of the checkpoint that this call continued from, 0 for a fresh start.
        was_finished: nothing was left to do.
    """

    step: int
    losses: list[float | None]
    validation: list[dict]
    skipped_updates: int = 0
    resumed_from: int = 0
    was_finished: bool = False


def run_training(
    module,
    dataset,
    settings,
    output_dir,
    seed,
    *,
    collate,
    validate=None,
    export=None,
    checkpoint_export=None,
    weights_metadata=None,
    preview=None,
    base=None,
    recipe=None,
    description="training",
):
    """Train ``module`` on ``dataset``.

    Args:
        module: called with a batch, returns a dict of scalar tensors, each a mean over the batch's samples; "total" is
            minimised. Parameters with requires_grad are trained, as float32.
        dataset: map-style, with ``set_epoch(epoch)``; its samples depend on (seed, epoch, index) alone. Where it has
            ``fingerprint()`` -> dict of what it is made of to a hash, a resume under another one is refused; where it
            has ``summary()`` -> text, the run begins with it; ``group_of`` and ``epoch_samples``: see training.order.
        settings: TrainingSettings.
        output_dir: gets ``metrics.jsonl``, ``recipe.json``, ``environment.json`` and ``checkpoints/``.
        seed: of the samples' order.
        collate: list of samples -> batch.
        validate: (module) -> dict of figures, called without gradients before, after and each ``validate_every`` steps.
        export: (module, output_dir) -> the files written there: the final weights. A run that is finished but lacks one
            of them writes them again.
        checkpoint_export: (module) -> file name -> (tensors, metadata): safetensors files that each checkpoint's folder
            gets besides its own, for others to read.
        weights_metadata: (module) -> what a file of the trained weights alone must say, in each checkpoint's own;
            "names_below" is the beginning of their names that others leave out.
        preview: (module) -> name -> (T, H, W, 4) uint8 straight RGBA clip, called without gradients each
            ``preview_every`` steps; training's random numbers are the same with it and without.
        base: option -> {"file", "sha256"} of the weights that the module holds and does not train; a resume on others
            is refused.
        recipe: Recipe that the run was made from; one that would change what is computed is refused on resume.
        description: what the progress bar says.

    Returns:
        A :class:`TrainingResult`.

    Raises:
        ConfigError: nothing to train, an empty dataset, a device that is not there, a folder of another recipe, data or
            base weights, one that another run is writing to, or one that not all processes see.
        CheckpointError: a checkpoint could not be written, or none of those that are there is whole.
        NonFiniteError: ``max_skipped_updates`` updates in a row had a loss or gradient that was not finite.
        RunStopped: SIGTERM, SIGINT or SIGUSR1 came; the run is saved at the step that it then finished.
    """
    hooks = _Hooks(validate, export, checkpoint_export, weights_metadata, preview)
    run = _Run(module, dataset, settings, Path(output_dir), seed, collate, hooks, base or {}, recipe, description)
    return run.execute()


@dataclass(frozen=True)
class _Hooks:
    validate: object
    export: object
    checkpoint_export: object
    weights_metadata: object
    preview: object


@dataclass
class _Run:
    module: torch.nn.Module
    dataset: object
    settings: object
    output_dir: Path
    seed: int
    collate: object
    hooks: _Hooks
    base: dict
    recipe: object
    description: str
    state: RunState = field(default_factory=RunState)
    unrecorded: list[str] = field(default_factory=list)

    def execute(self):
        if len(self.dataset) == 0:
            raise ConfigError("the dataset is empty: there is nothing to train on")
        trackers = check_start(self.settings, self.hooks.validate is not None, self.hooks.preview is not None)
        self.accelerator = make_accelerator(self.settings)
        self.is_main = self.accelerator.is_main_process
        self.order = SampleOrder(self.dataset, self.seed)
        self.step_size = self.settings.batch_size * self.settings.gradient_accumulation * self.accelerator.num_processes
        with ExitStack() as stack:
            token = on_main(self.accelerator, self._enter_folder, stack)
            check_all_see(self.accelerator, self.output_dir, token)
            return self._execute(stack, trackers)

    def _enter_folder(self, stack):
        return stack.enter_context(run_lock(self.output_dir))

    def _execute(self, stack, trackers):
        found = on_main(self.accelerator, find_checkpoint, self.output_dir, self.recipe)
        self._prepare(found)
        self.total_steps = self._total_steps()
        resumed_from = self.state.step
        finished = self.state.step >= self.total_steps
        self.signals = stack.enter_context(StopSignals(announce=self.is_main))
        self.progress = stack.enter_context(
            StepProgress(self.description, self.total_steps, resumed_from, enabled=self.is_main)
        )
        trainee = self.trainee
        self.validation = Validation(
            self.hooks.validate, self.module, trainee.shown_average, self.accelerator, self.settings, self.progress
        )
        saved_step = resumed_from if found.checkpoint is not None else None
        saver = (ShardedSaver if trainee.in_shards else Saver)(
            self.output_dir / CHECKPOINTS_FOLDER, self.settings, self.accelerator, self.signals, saved_step
        )
        self.saver = stack.enter_context(saver)
        if finished:
            self._finish()
        else:
            view = RunView(trainee, self.output_dir, self.progress, trackers, self.recipe, self.hooks.preview)
            self.view = stack.enter_context(view)
            self._train(resumed_from)
        self.saver.wait()
        if self.signals.received is not None:  # during the end; whoever called this shall stop too
            raise self._stopped()
        rows = read_metrics(self.output_dir)
        return TrainingResult(
            step=self.state.step,
            losses=[row["loss"] for row in rows],
            validation=validation_history(rows),
            skipped_updates=self.state.skipped_updates,
            resumed_from=resumed_from,
            was_finished=finished,
        )

    def _prepare(self, found):
        self.trainee = Trainee(self.module, self.accelerator, self.settings)
        described = describe_dataset(self.dataset)
        if found.checkpoint is not None:
            self.trainee.load(found.checkpoint)
            self.state = RunState.from_dict(found.state)
            self.unrecorded = check_same_dataset(self.output_dir, self.state.dataset, described)
            self.unrecorded += check_same_base(self.output_dir, self.state.base, self.base)
            check_same_step_size(self.output_dir, self.state, self.step_size, self.accelerator.num_processes)
        self.state.dataset, self.state.base = described, self.base
        self.state.step_size, self.state.num_processes = self.step_size, self.accelerator.num_processes
        self.runner = StepRunner(
            self.accelerator, self.trainee.model, self.trainee.parameters, self.trainee.optimizer, self.settings,
            self.seed, StepClock(self.accelerator.device),
        )  # fmt: skip

    def _total_steps(self):
        limits = [self.settings.max_steps] if self.settings.max_steps is not None else []
        if self.settings.num_epochs is not None:
            length, epochs_left = self.order.epoch_length, self.settings.num_epochs - self.state.epoch
            steps = _ceil(length, self.step_size) * (epochs_left - 1)
            steps += _ceil(length - self.state.position, self.step_size)
            limits.append(self.state.step + max(0, steps))
        return min(limits)

    def _finish(self):
        """What is left of a run that has all its steps: the weights, if they are missing or of an earlier end."""
        state, where = self.state, f"{self.output_dir}: already finished at step {self.state.step}"
        is_whole = bool(state.exported) and all((self.output_dir / name).is_file() for name in state.exported)
        if self.hooks.export is None or is_whole:
            self.progress.say(f"{where}; nothing to do")
            return
        self.progress.say(f"{where}; writing its weights")
        if self.is_main:
            MetricsLog(self.output_dir, state.step)
        self._export()

    def _export(self):
        with measured("export", device=self.accelerator.device):
            self.state.exported = on_main(
                self.accelerator, self.trainee.export, self.hooks.export, self.output_dir, by_all=self.trainee.in_shards
            )

    def _train(self, resumed_from):
        if self.is_main:
            run_start(self.output_dir)  # here, where one process is alone with it; all may ask for it later
            if self.recipe is not None:
                write_recipe(self.output_dir, self.recipe)
            write_environment(self.output_dir)
        self.view.start_log(resumed_from)
        if summary := getattr(self.dataset, "summary", str)():
            self.progress.say(summary)
        if resumed_from:
            self.progress.say(f"continuing {self.output_dir} at step {resumed_from}")
        if self.unrecorded:
            names = ", ".join(self.unrecorded)
            self.progress.say(f"its earlier version did not record, so taken for unchanged since it began: {names}")
        self.state.exported = []
        if (said := forget_other_best(self.state, self.settings)) is not None:
            self.progress.say(said)
        self.initial = self.validation.run("initial_validation_", 0) if resumed_from == 0 else {}
        if self.initial:  # now, and not after validate_every steps
            check_best_is_known(self.settings, [name.removeprefix("initial_validation_") for name in self.initial])
        self.runner.model.train()
        shares = ((planned.epoch, self._share(planned)) for planned in self._planned_steps())
        batches = load_batches(self.dataset, shares, self.collate, self.settings, self.accelerator.device)
        for planned in self._planned_steps():
            self._train_step(planned, batches)
        self.view.say_breakdown()

    def _planned_steps(self):
        state = self.state
        cuts = state.cuts or [[self.step_size, state.position]] * (state.position > 0)
        steps = self.order.steps(state.epoch, cuts, self.step_size)
        return islice(steps, self.total_steps - state.step)

    def _share(self, planned):
        rank, world_size = self.accelerator.process_index, self.accelerator.num_processes
        return micro_batches(planned.samples, rank, world_size, self.settings.batch_size, self.order.group_of)

    def _train_step(self, planned, batches):
        state, settings = self.state, self.settings
        flags = {"stop": lambda: self.signals.received is not None, "unsaved": self.saver.has_failed}
        rate = learning_rate(state.step, self.total_steps, settings)
        self.runner.clock.take()  # what was between two steps, a validation say, is no part of them
        with span_of_memory(self.accelerator.device) as peak:
            report = self.runner.run(state.step, self._share(planned), batches, rate, flags)
        timing = self.runner.clock.take()
        self._count(report)
        figures = {"epoch": state.epoch, "learning_rate": rate, "gradient_norm": report.gradient_norm}
        state.advance(len(planned.samples), self.order.epoch_length)
        self.view.note_time(state.step, timing, peak)
        self._after_step(dict(report.terms), figures)
        self._heed(report.raised)

    def _count(self, report):
        state = self.state
        if report.is_finite and self.trainee.average is not None:
            self.trainee.average.update(state.num_updates)
        if not report.is_finite:
            loss = report.terms["total"]
            norm = report.gradient_norm
            self.progress.say(f"step {state.step + 1}: loss {loss}, gradient norm {norm}: update skipped")
        count_update(state, report.is_finite, self.settings.max_skipped_updates, self.output_dir)

    def _heed(self, raised):
        """What the processes agreed on during the step: a stop, or the end after a checkpoint that failed."""
        if "unsaved" in raised:
            self.saver.wait()
            raise CheckpointError(f"{self.output_dir}: a checkpoint could not be written")
        if "stop" not in raised:
            return
        self._save_now()
        raise self._stopped()

    def _stopped(self):
        name = self.signals.received or "a signal to another process"
        where = f"step {self.state.step} of {self.total_steps}"
        return RunStopped(f"{self.output_dir}: stopped by {name} at {where}, saved; the same command continues it")

    def _save_now(self):
        if self.saver.saved_step != self.state.step:
            self._save()
        self.saver.wait()

    def _save(self):
        self.saver.save(self.state, self._checkpoint_files, self.view.log_files())

    def _checkpoint_files(self):
        hooks = self.hooks
        said = None if hooks.weights_metadata is None else hooks.weights_metadata(self.trainee.module)
        return self.trainee.checkpoint_files(self.state.step, hooks.checkpoint_export, said)

    def _after_step(self, terms, figures):
        state, settings = self.state, self.settings
        finished = state.step == self.total_steps
        loss = terms.pop("total")
        row = {"step": state.step, "loss": loss, **terms, **figures}
        if state.skipped_updates:
            row["skipped_updates"] = state.skipped_updates
        spike = loss_spike(state, loss, settings.loss_spike)
        if spike is not None:
            row["loss_spike"] = spike
            self.progress.say(f"step {state.step}: loss {loss:.4g} is {spike:.1f} times the median of the last steps")
        validated = finished or (settings.validate_every is not None and state.step % settings.validate_every == 0)
        judged = self.validation.run("validation_", state.step) if validated else {}
        improved = note_best(state, judged, settings)
        row |= self.initial | judged
        self.initial = {}
        self.view.show_step(row, finished, validated or spike is not None)
        if finished and self.hooks.export is not None:
            self._export()
        is_due = settings.checkpoint_every is not None and state.step % settings.checkpoint_every == 0
        if finished or is_due or improved:
            self._save()


def _ceil(number, divisor):
    return -(-number // divisor)
