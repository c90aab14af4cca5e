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


def check_best_is_known(settings, figures):
    """Refuse the name of a figure that validation does not give.

    Args:
        settings: TrainingSettings; figures: names of those that it gives.

    Raises:
        ConfigError: with the names.
    """
    name = settings.keep_best
    if name is not None and name not in figures:
        raise ConfigError(
            f"training.keep_best = {name!r}: validation gives no such figure; it gives {', '.join(figures)}"
        )


def forget_other_best(state, settings):
    """Drop the best so far from a RunState where it was so by another figure, or in the other direction.

    A state of an earlier version does not say by which: it is taken for today's.

    Returns:
        what to say of it, or None.
    """
    if state.best is None:
        return None
    is_same = all(state.best.get(name, value) == value for name, value in _how(settings).items())
    if is_same and settings.keep_best is not None:
        return None
    had = " ".join(state.best[key] for key in ("best_is", "name") if key in state.best) or "best figure"
    step, state.best = state.best["step"], None
    now = "none is kept" if settings.keep_best is None else f"the {settings.best_is} {settings.keep_best} is kept"
    return f"the best so far, step {step}, had the {had}: forgotten, for {now} from now on"


def _how(settings):
    return {"name": settings.keep_best, "best_is": settings.best_is}


def note_best(state, figures, settings):
    """Record in the state that the validation of its step is the best so far, if it is.

    Args:
        state: a RunState; figures: of :meth:`Validation.run`, after "validation_"; settings: TrainingSettings.

    Returns:
        whether it is.

    Raises:
        ConfigError: there is no figure of the name that the settings give.
    """
    if settings.keep_best is None or not figures:
        return False
    check_best_is_known(settings, [name.removeprefix("validation_") for name in figures])
    value = figures[f"validation_{settings.keep_best}"]
    if not is_better(value, state.best, settings.best_is):
        return False
    state.best = {"step": state.step, "value": value, **_how(settings)}
    return True
