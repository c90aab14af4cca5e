"""Which samples an optimizer step sees: a function of seed, epoch and position, whatever the number of processes."""

from dataclasses import dataclass

import torch

from wan_alpha.data.sampling import derive_seed


@dataclass(frozen=True)
class MicroBatch:
    """Samples that one process takes at a time, and what their mean loss weighs in the step's mean."""

    indices: list[int]
    weight: float


def epoch_order(seed, epoch, length):
    """The order of an epoch's samples: a permutation of range(length) from (seed, epoch) alone."""
    generator = torch.Generator().manual_seed(derive_seed(seed, epoch, "order"))
    return torch.randperm(length, generator=generator).tolist()


def step_samples(order, position, step_size):
    """Cut an epoch's order, from ``position`` on, into optimizer steps; the last may be smaller, none is dropped."""
    return [order[start : start + step_size] for start in range(position, len(order), step_size)]


def micro_batches(samples, rank, world_size, batch_size):
    """One process's share of an optimizer step.

    The processes' shares partition the samples. Weights add up to 1 over all processes, so that the weighted sum of the
    micro-batches' mean losses is the mean over the step's samples, whatever their number. A process for which nothing
    is left repeats the first sample with weight 0, since every process takes part in averaging gradients.
    """
    share = samples[rank::world_size]
    if not share:
        return [MicroBatch(samples[:1], 0.0)]
    parts = [share[start : start + batch_size] for start in range(0, len(share), batch_size)]
    return [MicroBatch(part, len(part) / len(samples)) for part in parts]
