"""One optimizer step: forward and backward over the micro-batches, what the processes agree on, the update."""

import math
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from accelerate.utils import send_to_device

from wan_alpha.data.sampling import derive_seed
from wan_alpha.errors import DataError
from wan_alpha.training.device import autocast
from wan_alpha.training.sharding import gathered, is_sharded


@dataclass(frozen=True)
class StepReport:
    """What came of a step, the same in all processes.

    Attributes:
        terms: the loss's terms, "total" among them: means over the step's samples.
        gradient_norm: before clipping.
        is_finite: loss and gradients, of every process; else there was no update.
        raised: names of the flags that any process had raised.
    """

    terms: dict[str, float]
    gradient_norm: float
    is_finite: bool
    raised: frozenset[str]


@dataclass
class StepRunner:
    """Makes steps.

    Attributes:
        accelerator: of the run; model: prepared by it; parameters: name -> parameter; optimizer: theirs.
        settings: TrainingSettings; seed: of what a module draws from the global generator.
        clock: a StepClock.
    """

    accelerator: object
    model: torch.nn.Module
    parameters: dict
    optimizer: torch.optim.Optimizer
    settings: object
    seed: int
    clock: object

    def run(self, step, share, batches, rate, flags):
        """Make one step.

        Args:
            step: steps done before; share: this process's MicroBatches; batches: iterator over their batches.
            rate: learning rate; flags: name -> () -> bool, asked once the gradients are there.

        Returns:
            a :class:`StepReport`.
        """
        # What a module draws from the global generator (dropout) is the same after a resume.
        torch.manual_seed(derive_seed(self.seed, step, self.accelerator.process_index, "step"))
        sums = self._gradients(share, batches)
        limit = self.settings.max_grad_norm if self.settings.max_grad_norm is not None else math.inf
        gradient_norm = gathered(torch.nn.utils.clip_grad_norm_(self.parameters.values(), limit)).item()
        values, raised = self._agree(sums, {**flags, "not finite": lambda: not math.isfinite(gradient_norm)})
        is_finite = math.isfinite(values["total"]) and "not finite" not in raised
        with self.clock.measure("optimizer"):
            if is_finite:
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
                self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return StepReport(values, gradient_norm, is_finite, raised)

    def _gradients(self, share, batches):
        sums = {}
        for part in share:
            with self.clock.measure("data"):
                batch = send_to_device(_next(batches), self.accelerator.device)
            # Gradients are averaged over the processes once a step, with the last micro-batch.
            with nullcontext() if part is share[-1] else self._without_averaging():
                with self.clock.measure("forward"), autocast(self.accelerator.device, self.settings.precision):
                    terms = self.model(batch)
                # Data parallelism averages gradients over the processes; the weights are shares of the whole.
                with self.clock.measure("backward"):
                    (terms["total"] * (part.weight * self.accelerator.num_processes)).backward()
            for name, value in terms.items():
                value = value.detach().float()
                value = value * part.weight if part.weight else torch.zeros_like(value)
                sums[name] = sums.get(name, 0.0) + value
        return sums

    @contextmanager
    def _without_averaging(self):
        if is_sharded(self.model):
            self.model.set_requires_gradient_sync(False)
            yield
            self.model.set_requires_gradient_sync(True)
        else:
            with self.accelerator.no_sync(self.model):
                yield

    def _agree(self, sums, flags):
        """Sums over all processes, and the flags that one or more raise: one exchange for both."""
        terms = torch.stack(list(sums.values()))
        told = torch.tensor([float(is_raised()) for is_raised in flags.values()]).to(terms)
        values = self.accelerator.reduce(torch.cat([terms, told]), "sum").tolist()
        raised = frozenset(name for name, count in zip(flags, values[len(sums) :], strict=True) if count)
        return dict(zip(sums, values, strict=False)), raised


def _next(batches):
    try:
        return next(batches)
    except DataError as error:
        # A worker process prepends its traceback to the message; the last line is what the user can act on.
        raise DataError(str(error).rsplit("DataError: ", 1)[-1].strip()) from error
