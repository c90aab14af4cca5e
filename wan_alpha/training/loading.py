"""Batches, loaded ahead of the training by worker processes, or by the training itself.

With 0 workers (the default) each batch is loaded when its turn comes: nothing is started, and for a latent cache, whose
items are read in milliseconds, nothing is gained by more. With n workers each loads ``training.prefetch`` batches
ahead. They are started once a run and stay from one epoch to the next; what they prefetch reaches across epochs.

On Linux they are forked: at once, without importing anything again, and what the dataset holds is shared. They are
forked before the first step, touch no accelerator and compute with one thread, so that none of what makes forking
dangerous is at work; ``training.worker_start`` chooses otherwise. Elsewhere they are spawned, as Python does there.
"""

import sys
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset

from wan_alpha.training.signals import leave_signals_to_the_trainer


@dataclass
class _EpochSamples(Dataset):
    """A dataset by (epoch, index): which epoch it is travels with each sample, to whichever process makes it.

    Workers load ahead of one another across epochs: where the epoch is told by ``set_epoch``, which datasets may keep
    in memory that all workers share, one would change it under the other.
    """

    dataset: object

    def __getitem__(self, place):
        epoch, index = place
        if hasattr(self.dataset, "sample"):
            return self.dataset.sample(epoch, index)
        self.dataset.set_epoch(epoch)
        return self.dataset[index]


def load_batches(dataset, shares, collate, settings, device):
    """Iterate over the batches of a run.

    Args:
        dataset: map-style, with ``sample(epoch, index)``, or with ``set_epoch`` if it keeps the epoch to its process.
        shares: iterable of (epoch, this process's MicroBatches), a step each.
        collate: list of samples -> batch; settings: TrainingSettings; device: of the training.

    Returns:
        an iterator over the batches, one for each micro-batch.
    """
    places = ([(epoch, index) for index in part.indices] for epoch, share in shares for part in share)
    loader = DataLoader(
        _EpochSamples(dataset),
        batch_sampler=places,
        collate_fn=collate,
        num_workers=settings.num_workers,
        prefetch_factor=settings.prefetch if settings.num_workers else None,
        multiprocessing_context=worker_context(settings.worker_start) if settings.num_workers else None,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # the loader draws a seed for its workers: not from the global generator
        worker_init_fn=leave_signals_to_the_trainer,
    )
    return iter(loader)


def worker_context(start):
    """How workers are started: ``start`` itself, or for "auto" what the module says."""
    if start != "auto":
        return start
    return "fork" if sys.platform.startswith("linux") else "spawn"
