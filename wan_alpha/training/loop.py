"""The training loop: deterministic, resumable, guarded. It knows modules and datasets, no models.

To resume, run the same command again: the run continues at its newest checkpoint as if it had never stopped.
"""

import math
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate.utils import send_to_device
from torch.utils.data import DataLoader

from wan_alpha.data.sampling import derive_seed
from wan_alpha.errors import ConfigError, DataError, NonFiniteError
from wan_alpha.training.checkpoints import load_checkpoint, newest_checkpoint, save_checkpoint, trained_parameters
from wan_alpha.training.device import autocast, make_accelerator
from wan_alpha.training.environment import write_environment
from wan_alpha.training.order import epoch_order, micro_batches, step_samples
from wan_alpha.training.progress import StepProgress
from wan_alpha.training.run_folder import (
    MetricsLog,
    check_same_dataset,
    check_same_recipe,
    describe_dataset,
    read_metrics,
    write_recipe,
)
from wan_alpha.training.schedule import learning_rate

MAX_SKIPPED_IN_A_ROW = 5


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


@dataclass
class _State:
    """Where a run stands; everything of it is in a checkpoint's state file."""

    step: int = 0
    epoch: int = 0
    position: int = 0
    skipped_updates: int = 0
    skipped_in_a_row: int = 0
    dataset: dict = field(default_factory=dict)
    exported: list[str] = field(default_factory=list)


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
    recipe=None,
    description="training",
):
    """Train ``module`` on ``dataset``.

    Args:
        module: called with a batch, returns a dict of scalar tensors, each a mean over the batch's samples; "total" is
            minimised. Parameters with requires_grad are trained, as float32.
        dataset: map-style, with ``set_epoch(epoch)``; its samples depend on (seed, epoch, index) alone. Where it has
            ``fingerprint()`` -> dict of what it is made of to a hash, a resume under another one is refused.
        settings: TrainingSettings.
        output_dir: gets ``metrics.jsonl``, ``recipe.json``, ``environment.json`` and ``checkpoints/``.
        seed: of the samples' order.
        collate: list of samples -> batch.
        validate: (module) -> dict of figures, called without gradients before, after and each ``validate_every`` steps.
        export: (module, output_dir) -> the files written there: the final weights. A run that is finished but lacks one
            of them writes them again.
        recipe: Recipe that the run was made from; one that would change what is computed is refused on resume.
        description: what the progress bar says.

    Returns:
        A :class:`TrainingResult`.

    Raises:
        ConfigError: nothing to train, an empty dataset, a device that is not there, a folder of another recipe or data.
        NonFiniteError: five updates in a row had a loss or gradient that was not finite.
    """
    run = _Run(module, dataset, settings, Path(output_dir), seed, collate, validate, export, recipe, description)
    return run.execute()


@dataclass
class _Run:
    module: torch.nn.Module
    dataset: object
    settings: object
    output_dir: Path
    seed: int
    collate: object
    validate: object
    export: object
    recipe: object
    description: str
    state: _State = field(default_factory=_State)

    def execute(self):
        if len(self.dataset) == 0:
            raise ConfigError("the dataset is empty: there is nothing to train on")
        self.accelerator = make_accelerator(self.settings)
        self.step_size = self.settings.batch_size * self.settings.gradient_accumulation * self.accelerator.num_processes
        found = newest_checkpoint(self.output_dir / "checkpoints")
        if found is not None and self.recipe is not None:
            check_same_recipe(self.output_dir, self.recipe)
        self._prepare(found)
        self.total_steps = self._total_steps()
        resumed_from = self.state.step
        finished = self.state.step >= self.total_steps
        with StepProgress(
            self.description, self.total_steps, resumed_from, enabled=self.accelerator.is_main_process
        ) as self.progress:
            if finished:
                self._finish()
            else:
                self._train(resumed_from)
        self.accelerator.wait_for_everyone()
        rows = read_metrics(self.output_dir)
        return TrainingResult(
            step=self.state.step,
            losses=[row["loss"] for row in rows],
            validation=_validation_history(rows),
            skipped_updates=self.state.skipped_updates,
            resumed_from=resumed_from,
            was_finished=finished,
        )

    def _prepare(self, found):
        self.parameters = trained_parameters(self.module)
        if not self.parameters:
            raise ConfigError("nothing to train: no parameter of the model is trainable with these settings")
        for parameter in self.parameters.values():
            # In bfloat16 an update of 1e-5 on a weight of 0.05 rounds to nothing.
            parameter.data = parameter.data.float()
        self.model = self.accelerator.prepare_model(self.module)
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=self.settings.learning_rate, weight_decay=self.settings.weight_decay
        )
        if found is not None:
            checkpoint, state = found
            load_checkpoint(checkpoint, self.parameters, self.optimizer)
            self.state = _State(**{name: state[name] for name in vars(self.state)})
            check_same_dataset(self.output_dir, self.state.dataset, self.dataset)
        self.state.dataset = describe_dataset(self.dataset)

    def _total_steps(self):
        limits = [self.settings.max_steps] if self.settings.max_steps is not None else []
        if self.settings.num_epochs is not None:
            length, left = len(self.dataset), self.settings.num_epochs - self.state.epoch
            steps = math.ceil(length / self.step_size) * left - math.ceil(self.state.position / self.step_size)
            limits.append(self.state.step + max(0, steps))
        return min(limits)

    def _finish(self):
        """What is left of a run that has all its steps: the weights, if they are missing or of an earlier end."""
        state, where = self.state, f"{self.output_dir}: already finished at step {self.state.step}"
        is_whole = bool(state.exported) and all((self.output_dir / name).is_file() for name in state.exported)
        if self.export is None or is_whole:
            self.progress.say(f"{where}; nothing to do")
            return
        self.progress.say(f"{where}; writing its weights")
        if self.accelerator.is_main_process:
            MetricsLog(self.output_dir, state.step)
            self._export()

    def _export(self):
        files = self.export(self.module, self.output_dir)
        self.state.exported = [str(Path(file).relative_to(self.output_dir)) for file in files]

    def _train(self, resumed_from):
        if self.accelerator.is_main_process:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            if self.recipe is not None:
                write_recipe(self.output_dir, self.recipe)
            write_environment(self.output_dir)
            self.log = MetricsLog(self.output_dir, resumed_from)
        if resumed_from:
            self.progress.say(f"continuing {self.output_dir} at step {resumed_from}")
        self.state.exported = []
        self.initial = self._validation("initial_validation_") if resumed_from == 0 else {}
        self.model.train()
        while self.state.step < self.total_steps:
            self._train_epoch()

    def _train_epoch(self):
        state, settings = self.state, self.settings
        order = epoch_order(self.seed, state.epoch, len(self.dataset))
        steps = step_samples(order, state.position, self.step_size)[: self.total_steps - state.step]
        rank, world_size = self.accelerator.process_index, self.accelerator.num_processes
        shares = [micro_batches(samples, rank, world_size, settings.batch_size) for samples in steps]
        self.dataset.set_epoch(state.epoch)
        loader = DataLoader(
            self.dataset,
            batch_sampler=[part.indices for share in shares for part in share],
            collate_fn=self.collate,
            num_workers=settings.num_workers,
            pin_memory=self.accelerator.device.type == "cuda",
            generator=torch.Generator(),  # the loader draws a seed for its workers: not from the global generator
        )
        batches = iter(loader)
        for samples, share in zip(steps, shares, strict=True):
            rate = learning_rate(state.step, self.total_steps, settings)
            terms, gradient_norm = self._update(share, batches, rate)
            figures = {"epoch": state.epoch, "learning_rate": rate, "gradient_norm": gradient_norm}
            state.step += 1
            state.position += len(samples)
            if state.position == len(order):
                state.epoch, state.position = state.epoch + 1, 0
            self._after_step(terms, figures)

    def _update(self, share, batches, rate):
        """One optimizer step; returns its mean terms over all processes, and the gradient norm before clipping."""
        # What a module draws from the global generator (dropout) is the same after a resume.
        torch.manual_seed(derive_seed(self.seed, self.state.step, self.accelerator.process_index, "step"))
        sums = {}
        for part in share:
            batch = send_to_device(_next(batches), self.accelerator.device)
            # Gradients are averaged over the processes once a step, with the last micro-batch.
            with nullcontext() if part is share[-1] else self.accelerator.no_sync(self.model):
                with autocast(self.accelerator.device, self.settings.precision):
                    terms = self.model(batch)
                # Data parallelism averages gradients over the processes; the weights are shares of the whole.
                (terms["total"] * (part.weight * self.accelerator.num_processes)).backward()
            for name, value in terms.items():
                value = (
                    value.detach().float() * part.weight if part.weight else torch.zeros_like(value.detach()).float()
                )
                sums[name] = sums.get(name, 0.0) + value
        values = self.accelerator.reduce(torch.stack(list(sums.values())), "sum").tolist()
        limit = self.settings.max_grad_norm if self.settings.max_grad_norm is not None else math.inf
        gradient_norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), limit).item()
        terms = dict(zip(sums, values, strict=True))
        if self._is_finite(terms["total"], gradient_norm):
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return terms, gradient_norm

    def _is_finite(self, loss, gradient_norm):
        state = self.state
        if math.isfinite(loss) and math.isfinite(gradient_norm):
            state.skipped_in_a_row = 0
            return True
        state.skipped_updates += 1
        state.skipped_in_a_row += 1
        self.progress.say(f"step {state.step + 1}: loss {loss}, gradient norm {gradient_norm}: update skipped")
        if state.skipped_in_a_row == MAX_SKIPPED_IN_A_ROW:
            raise NonFiniteError(
                f"{MAX_SKIPPED_IN_A_ROW} updates in a row up to step {state.step + 1} had a loss or gradient that is "
                "not finite; lower training.learning_rate, look at the data, or set training.precision = 'fp32'. "
                f"The run's checkpoints in {self.output_dir} are from before"
            )
        return False

    def _after_step(self, terms, figures):
        state, settings = self.state, self.settings
        finished = state.step == self.total_steps
        loss = terms.pop("total")
        row = {"step": state.step, "loss": loss, **terms, **figures}
        if state.skipped_updates:
            row["skipped_updates"] = state.skipped_updates
        validated = finished or (settings.validate_every is not None and state.step % settings.validate_every == 0)
        row |= self.initial | (self._validation("validation_") if validated else {})
        self.initial = {}
        self.progress.update(state.step, f"loss {loss:.4f}")
        if not self.accelerator.is_main_process:
            return
        if finished or validated or state.step == 1 or state.step % settings.log_every == 0:
            self.log.write(row)
        if finished and self.export is not None:
            self._export()
        if finished or (settings.checkpoint_every is not None and state.step % settings.checkpoint_every == 0):
            folder = self.output_dir / "checkpoints"
            save_checkpoint(folder, state.step, self.parameters, self.optimizer, vars(state), settings.keep_checkpoints)

    def _validation(self, prefix):
        figures = {}
        if self.validate is None:
            return figures
        if self.accelerator.is_main_process:
            self.module.eval()
            with torch.no_grad(), autocast(self.accelerator.device, self.settings.precision):
                figures = {prefix + name: float(value) for name, value in self.validate(self.module).items()}
            self.module.train()
            shown = ", ".join(f"{name.removeprefix(prefix)} {value:.4g}" for name, value in figures.items())
            self.progress.say(f"validation at step {self.state.step}: {shown}")
        self.accelerator.wait_for_everyone()
        return figures


def _next(batches):
    try:
        return next(batches)
    except DataError as error:
        # A worker process prepends its traceback to the message; the last line is what the user can act on.
        raise DataError(str(error).rsplit("DataError: ", 1)[-1].strip()) from error


def _validation_history(rows):
    history = []
    for row in rows:
        for prefix, step in (("initial_validation_", 0), ("validation_", row["step"])):
            figures = {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)}
            if figures:
                history.append({"step": step, **figures})
    return history
