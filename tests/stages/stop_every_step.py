"""Stops a stage's training by a signal in each of its steps, until it is done."""

import os
import signal

import pytest

from wan_alpha.errors import RunStopped


def train_stopping(train, recipe, module_class, monkeypatch):
    """Train as the recipe says, in as many calls as there are steps; returns the last call's result."""
    original = module_class.forward

    def forward(module, batch, *others):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(module, batch, *others)

    for step in range(1, recipe.training.max_steps):
        with monkeypatch.context() as patch, pytest.raises(RunStopped, match=f"at step {step} of "):
            patch.setattr(module_class, "forward", forward)
            train(recipe)
    return train(recipe)


def everything(folder):
    """Name -> bytes of metrics, final weights and the last checkpoint, file by file; recipes name their folders."""
    last = max((folder / "checkpoints").glob("step_*"))
    files = [folder / "metrics.jsonl", *last.glob("*.safetensors"), last / "state.json"]
    return {path.name: path.read_bytes() for path in files}
