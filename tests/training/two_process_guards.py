"""What two processes agree on; started by torchrun. Argument: output folder. Each writes what it saw as JSON.

Together they train the toy too, in "every length": to start processes takes longer than all of it.
"""

import json
import os
import signal
import sys
from contextlib import ExitStack, nullcontext, redirect_stderr
from io import StringIO
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate import PartialState
from durable_toy import ListeningModule, train
from toy_regression import ToyDataset
from two_process_toy import train_every_length

from wan_alpha.cli import guard
from wan_alpha.errors import CheckpointError
from wan_alpha.training import saving, shared_folder
from wan_alpha.training.run_lock import run_lock
from wan_alpha.weights.io import tensors_sha256

RANK = int(os.environ["RANK"])
OPTIONS = {"batch_size": 1, "gradient_accumulation": 1, "max_steps": 8, "checkpoint_every": 1, "keep_checkpoints": 99}
LENGTH = 7  # in steps of two samples: the last of an epoch has one
# Who is told what, in which of its steps.
INTERRUPTIONS = (
    (1, signal.SIGUSR1, 2),
    (0, signal.SIGTERM, 1),
    (1, signal.SIGTERM, 1),
    (0, signal.SIGUSR1, 2),
    (1, signal.SIGTERM, 1),
)


class HashingModule(ListeningModule):
    """Keeps the hash of the weights before each step."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.hashes = []

    def forward(self, batch):
        self.hashes.append(tensors_sha256(dict(self.named_parameters()))[:16])
        return super().forward(batch)


def attempt(folder, module=None, **changes):
    """Train as a command does; returns (exit code, module)."""
    module = module or HashingModule()
    options = OPTIONS | {"validate_every": None, "keep_best": None} | changes
    code = guard.run_recipe("toy", dict, lambda recipe: train(folder, module, ToyDataset(LENGTH), **options))
    return code, module


def on_rank(rank, number, at_call):
    """A module that sends one process a signal."""
    return HashingModule(lambda call: os.kill(os.getpid(), number) if (RANK, call) == (rank, at_call) else None)


def failing_write(*args, **options):
    raise CheckpointError("the disk is gone")


def main(top):
    seen = {}
    straight = attempt(top / "straight")
    seen["straight"] = straight[0], straight[1].hashes
    seen["timeout"] = dist.group.WORLD._get_backend(torch.device("cpu")).options._timeout.total_seconds()

    code, module = attempt(top / "nan", HashingModule(nan_at=(3, 5) if RANK == 1 else ()))
    seen["nan"] = code, module.hashes
    bad = HashingModule(nan_at=range(4, 99) if RANK == 1 else ())
    code, module = attempt(top / "fatal", bad, max_skipped_updates=3)
    seen["fatal"] = code, module.calls

    seen["straight samples"] = straight[1].seen
    for num_workers in (0, 2):
        folder, options = top / f"stopped{num_workers}", {"num_workers": num_workers}
        runs = [attempt(folder, on_rank(*interruption), **options) for interruption in INTERRUPTIONS]
        runs.append(attempt(folder, **options))
        seen[folder.name] = [code for code, _ in runs]
        seen[f"{folder.name} samples"] = [seed for _, module in runs for seed in module.seen]

    original, saving.write_checkpoint = saving.write_checkpoint, failing_write
    seen["unsaved"] = attempt(top / "unsaved")[0]
    saving.write_checkpoint = original
    with ExitStack() as stack:
        stack.enter_context(run_lock(top / "locked") if RANK == 0 else nullcontext())
        PartialState().wait_for_everyone()
        seen["locked"] = attempt(top / "locked")[0]
    shared_folder.SEEN_WITHIN_SECONDS, said = 0.0, StringIO()
    elsewhere = top / "elsewhere"  # as on a second machine: a folder of this name, with a run of its own once
    with run_lock(elsewhere) if RANK else nullcontext(), redirect_stderr(said):
        code = attempt(elsewhere if RANK else top / "apart")[0]
    seen["apart"] = code, said.getvalue()
    (top / f"seen.{RANK}.json").write_text(json.dumps(seen))
    train_every_length(top / "every length", batch_size=1, accumulation=2)


if __name__ == "__main__":
    guard.check_torchvision = lambda: None
    main(Path(sys.argv[1]))
