"""Validation within a run: with which weights, by which process, and whether it was the best so far."""

from contextlib import nullcontext
from dataclasses import dataclass

import torch

from wan_alpha.errors import ConfigError
from wan_alpha.training.agreement import on_main
from wan_alpha.training.device import autocast
from wan_alpha.training.guards import is_better
from wan_alpha.training.sharding import is_sharded


def averaged_for(purpose, average, settings):
    """A context in which the trained parameters hold what the settings want for a purpose: weights, or an average.

    Args:
        purpose: "validation" or "export"; average: a WeightAverage, a schedule-free optimizer's OwnAverage, or None.
        settings: TrainingSettings.
    """
    wanted = average is not None and settings.ema_used_by in (purpose, "both")
    return average.in_place_of_weights() if wanted else nullcontext()


@dataclass
class Validation:
    """Validates in the main process while the others wait, or, with the weights in shards, in all; all get the figures.

    Attributes:
        validate: (module) -> dict of figures, or None; module: what is trained; average: see averaged_for.
        accelerator, settings, progress: of the run.
    """

    validate: object
    module: torch.nn.Module
    average: object
    accelerator: object
    settings: object
    progress: object

    def run(self, prefix, step):
        """The figures at ``step``, their names after ``prefix``; {} where there is nothing to validate on."""
        return {} if self.validate is None else self._agreed(prefix, step)

    def _agreed(self, prefix, step):
        return on_main(self.accelerator, self._run, prefix, step, by_all=is_sharded(self.module))

    def _run(self, prefix, step):
        self.module.eval()
        with (
            averaged_for("validation", self.average, self.settings),
            torch.no_grad(),
            autocast(self.accelerator.device, self.settings.precision),
        ):
            figures = {prefix + name: float(value) for name, value in self.validate(self.module).items()}
        self.module.train()
        shown = ", ".join(f"{name.removeprefix(prefix)} {value:.4g}" for name, value in figures.items())
        self.progress.say(f"validation at step {step}: {shown}")
        return figures


def note_best(state, figures, settings):
    """Record in the state that the validation of its step is the best so far, if it is.

    Args:
        state: a RunState; figures: of :meth:`Validation.run`, after "validation_"; settings: TrainingSettings.

    Returns:
        whether it is.

    Raises:
        ConfigError: there is no figure of the name that the settings give.
    """
    name = settings.keep_best
    if name is None or not figures:
        return False
    if f"validation_{name}" not in figures:
        known = ", ".join(key.removeprefix("validation_") for key in figures)
        raise ConfigError(f"training.keep_best = {name!r}: validation gives no such figure; it gives {known}")
    value = figures[f"validation_{name}"]
    if not is_better(value, state.best, settings.best_is):
        return False
    state.best = {"step": state.step, "value": value}
    return True
