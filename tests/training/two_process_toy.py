"""Trains the toy, in one process or in two."""

import os

import torch
from toy_regression import ToyDataset, ToyModule, collate

from wan_alpha.training.config import TrainingSettings
from wan_alpha.training.loop import run_training
from wan_alpha.weights.io import save_safetensors

# In steps of 4 with two processes: a last step of one sample, where one process has none, and one of three, where one
# has two micro-batches and the other one.
LENGTHS = (13, 15)
GROUPED = 14  # in three groups, so that the last step has several


class GroupedToy(ToyDataset):
    """The toy with samples that do not all fit into one batch."""

    def group_of(self, index):
        return index % 3 if self.length == GROUPED else None


def export(module, folder):
    save_safetensors(dict(module.state_dict()), folder / "final.safetensors")
    return [folder / "final.safetensors"]


def train(folder, length, batch_size, accumulation=1):
    module = ToyModule()
    module.register_buffer("constant", torch.ones(3))
    module.dropout.p = 0.0
    settings = TrainingSettings(
        num_epochs=2, batch_size=batch_size, gradient_accumulation=accumulation, learning_rate=1e-2, device="cpu"
    )
    return run_training(
        module, GroupedToy(length), settings, folder, 0, collate=collate,
        validate=lambda module: {"norm": module.first.weight.norm()},
        export=export,
    )  # fmt: skip


def train_every_length(folder, batch_size, accumulation):
    for length in (*LENGTHS, GROUPED):
        if length == LENGTHS[1]:
            # As under a configuration with FSDP2: what does not say how to be sharded is replicated all the same.
            os.environ.update(ACCELERATE_USE_FSDP="true", FSDP_VERSION="2")
        train(folder / str(length), length, batch_size, accumulation)
