"""The toy with everything that a checkpoint can hold: average, validation, best, skipped updates, spikes."""

from pathlib import Path

import torch
from toy_regression import ToyDataset, ToyModule, collate

from wan_alpha.training.config import Recipe, TrainingSettings
from wan_alpha.training.loop import run_training
from wan_alpha.weights.io import save_safetensors


class ToyRecipe(Recipe):
    """A recipe with a training table only."""

    may_change_on_resume = frozenset({"training.max_steps", "training.background_saving"})
    training: TrainingSettings


class ListeningModule(ToyModule):
    """Calls ``listen(call number)`` at each forward, and keeps the seeds of the samples that it got.

    Args:
        listen: may raise, or send a signal.
    """

    def __init__(self, listen=lambda call: None, **kwargs):
        super().__init__(**kwargs)
        self.listen, self.seen = listen, []

    def forward(self, batch):
        self.listen(self.calls + 1)
        self.seen += batch["sample_seed"].tolist()
        return super().forward(batch)


def settings(**changes):
    values = {
        "max_steps": 24, "batch_size": 3, "learning_rate": 1e-2, "schedule": "cosine", "warmup_steps": 3,
        "checkpoint_every": 5, "device": "cpu", "ema_decay": 0.9, "loss_spike": 1.2, "validate_every": 4,
        "keep_best": "error", "gradient_accumulation": 2,
    }  # fmt: skip
    return TrainingSettings(**(values | changes))


def validate(module):
    """Draws from the global generator, as a real validation may: training must not notice."""
    torch.rand(3)
    return {"error": float(module.first.weight.norm() - 1.0)}


def export(module, folder):
    save_safetensors(dict(module.state_dict()), Path(folder) / "final.safetensors")
    return [Path(folder) / "final.safetensors"]


def train(folder, module=None, dataset=None, seed=0, **changes):
    chosen = settings(**changes)
    return run_training(
        module or ListeningModule(nan_at=()), ToyDataset(seed=seed) if dataset is None else dataset, chosen, folder,
        seed, collate=collate, validate=validate, export=export,
        checkpoint_export=lambda module: {"first.safetensors": ({"w": module.first.weight}, {"format": "toy"})},
        recipe=ToyRecipe(output_dir=folder, seed=seed, training=chosen),
    )  # fmt: skip


def everything(folder):
    """Name -> bytes of all that a run leaves: metrics, final weights, the last checkpoint file by file."""
    folder = Path(folder)
    last = max((folder / "checkpoints").glob("step_*"))
    files = [folder / "metrics.jsonl", folder / "final.safetensors", *last.iterdir()]
    return {path.name: path.read_bytes() for path in files}
