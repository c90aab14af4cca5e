"""What the engine itself costs a step: everything but forward, backward and optimizer.

    python tests/benchmarks/bench_engine.py --millions 30 --num_workers 2

Trained are so many values in tensors of a million, with clipping and a line in the log at every step; samples are
latents and context of the 1.3B model's 81 frames of 480x832.
"""

import argparse
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from wan_alpha.data.dataset import collate
from wan_alpha.training.config import TrainingSettings
from wan_alpha.training.loop import run_training

TENSOR_SIZE = 1 << 20
LATENTS, CONTEXT = (16, 21, 60, 104), (512, 4096)
CLOCKS = {"clock": time.perf_counter, "processor": time.process_time}


class Spent(Counter):
    """(clock, what) -> seconds."""

    @contextmanager
    def on(self, what):
        started = {name: clock() for name, clock in CLOCKS.items()}
        try:
            yield
        finally:
            for name, clock in CLOCKS.items():
                self[name, what] += clock() - started[name]


class Weights(torch.nn.Module):
    """Tensors of which the loss is the mean: nearly nothing to compute."""

    def __init__(self, num_values, spent):
        super().__init__()
        count = max(1, num_values // TENSOR_SIZE)
        self.weights = torch.nn.ParameterList(torch.full((TENSOR_SIZE,), 0.1) for _ in range(count))
        self.spent = spent

    def forward(self, batch):
        with self.spent.on("forward"):
            noise = batch["latents"].mean() * 0
            return {"total": noise + torch.stack([weight.square().mean() for weight in self.weights]).sum()}


class Samples(torch.utils.data.Dataset):
    """Made anew each time, as latents read from a cache are; `shapes` of what a sample holds."""

    def __init__(self, shapes, length=1000):
        self.shapes, self.length = shapes, length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return {name: torch.zeros(shape) for name, shape in self.shapes.items()} | {"sample_seed": index}

    def set_epoch(self, epoch):
        pass


def measure(folder, num_steps, num_values, num_workers=0, ema_decay=None, shapes=None):
    """Train, and see where the time goes.

    Returns:
        clock -> {"total", "forward", "backward", "optimizer", "engine"}: seconds a step, from after the first step on.
    """
    spent = Spent()
    module = Weights(num_values, spent)
    settings = TrainingSettings(
        max_steps=num_steps, checkpoint_every=None, device="cpu", ema_decay=ema_decay, num_workers=num_workers
    )
    original, begun = torch.Tensor.backward, {}

    def backward(loss, *arguments, **options):
        with spent.on("backward"):
            original(loss, *arguments, **options)

    def before(optimizer, arguments, options):
        begun.update({name: clock() for name, clock in CLOCKS.items()})

    def after(optimizer, arguments, options):
        for name, clock in CLOCKS.items():
            spent[name, "optimizer"] += clock() - begun[name]
        if "first" not in begun:  # what is made once (moments, loading processes, buffers) is not a step's
            spent.clear()
            begun["first"] = {name: clock() for name, clock in CLOCKS.items()}
        begun["last"] = {name: clock() for name, clock in CLOCKS.items()}

    hooks = [register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)]
    try:
        with mock.patch.object(torch.Tensor, "backward", backward):
            data = Samples(shapes or {"latents": LATENTS, "context": CONTEXT})
            run_training(module, data, settings, folder, 0, collate=collate)
    finally:
        for hook in hooks:
            hook.remove()
    found = {}
    for name in CLOCKS:
        of_step = {what: spent[name, what] / (num_steps - 1) for what in ("forward", "backward", "optimizer")}
        total = (begun["last"][name] - begun["first"][name]) / (num_steps - 1)
        found[name] = {"total": total, **of_step, "engine": total - sum(of_step.values())}
    return found


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--millions", type=int, default=30, help="trained values, in millions")
    parser.add_argument("--steps", type=int, default=40, help="optimizer steps")
    parser.add_argument("--num_workers", type=int, default=0, help="processes that load samples")
    parser.add_argument("--ema_decay", type=float, default=None, help="keep an average of the weights too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        num_values = options.millions * 10**6
        found = measure(Path(folder), options.steps, num_values, options.num_workers, options.ema_decay)
    print(f"{options.millions} million trained values, {options.num_workers} loading processes, a step:")
    for clock, seconds in found.items():
        parts = ", ".join(f"{what} {1000 * value:.1f} ms" for what, value in seconds.items() if what != "engine")
        print(f"  by the {clock}: {parts}")
        print(f"    the engine {1000 * seconds['engine']:.1f} ms, {seconds['engine']:.2%} of a step of one second")


if __name__ == "__main__":
    main()
