"""Which samples an optimizer step sees: a function of seed, epoch and what was seen, whatever the number of processes.

A dataset may say by ``group_of(index)`` which samples fit into one batch (all do, where it does not), and by
``epoch_samples(epoch)`` which samples an epoch holds, always as many (all, where it does not).
"""

from dataclasses import dataclass

import torch

from wan_alpha.data.sampling import derive_seed


@dataclass(frozen=True)
class MicroBatch:
    """Samples that one process takes at a time, and what their mean loss weighs in the step's mean."""

    indices: list[int]
    weight: float


@dataclass(frozen=True)
class PlannedStep:
    """The samples of one optimizer step, of all processes, and their epoch."""

    epoch: int
    samples: list[int]


def epoch_order(seed, epoch, samples):
    """The order of an epoch's samples: a permutation of them (of range(samples) for a number) from (seed, epoch)."""
    samples = range(samples) if isinstance(samples, int) else samples
    generator = torch.Generator().manual_seed(derive_seed(seed, epoch, "order"))
    return [samples[place] for place in torch.randperm(len(samples), generator=generator).tolist()]


def group_steps(order, group_of, step_size):
    """Cut an order of samples into optimizer steps; none is dropped, none is seen twice.

    A group's samples wait, in the order's own succession, until there are enough for a step. What waits at the end
    makes the last steps, which may hold several groups; so only the very last one can be smaller. The same steps follow
    when some are made and the order of the other samples is cut again: a run may continue from what it has not seen.

    Args:
        order: sample indices; group_of: index -> group, hashable; step_size: samples of a step.

    Yields:
        lists of sample indices.
    """
    waiting = {}
    for sample in order:
        group = group_of(sample)
        part = waiting.setdefault(group, [])
        part.append(sample)
        if len(part) == step_size:
            yield waiting.pop(group)
    rest = [sample for part in waiting.values() for sample in part]
    yield from (rest[start : start + step_size] for start in range(0, len(rest), step_size))


class SampleOrder:
    """The order of a dataset's samples in a run.

    Args:
        dataset: see the module; seed: of the order.

    Attributes:
        group_of: index -> the sample's group; epoch_length: samples of an epoch.
    """

    def __init__(self, dataset, seed):
        self.seed = seed
        self.group_of = getattr(dataset, "group_of", lambda index: None)
        self._samples = getattr(dataset, "epoch_samples", lambda epoch: range(len(dataset)))
        self.epoch_length = len(self._samples(0))

    def steps(self, epoch, cuts, step_size):
        """Yield a :class:`PlannedStep` for each step from here on, without an end.

        Args:
            epoch: the present one; cuts: [step size, samples] of its parts that are done, see RunState.
            step_size: samples of each step.
        """
        while True:
            order = epoch_order(self.seed, epoch, self._samples(epoch))
            for size, done in cuts:
                seen = {sample for step in _steps_of(order, self.group_of, size, done) for sample in step}
                order = [sample for sample in order if sample not in seen]
            yield from (PlannedStep(epoch, samples) for samples in group_steps(order, self.group_of, step_size))
            epoch, cuts = epoch + 1, []


def _steps_of(order, group_of, step_size, num_samples):
    left = num_samples
    for samples in group_steps(order, group_of, step_size):
        if left <= 0:
            return
        yield samples
        left -= len(samples)


def count_samples(cuts, step_size, num_samples):
    """``cuts`` after a step of ``num_samples`` that was planned with ``step_size``; see RunState."""
    if cuts and cuts[-1][0] == step_size:
        return [*cuts[:-1], [step_size, cuts[-1][1] + num_samples]]
    return [*cuts, [step_size, num_samples]]


def micro_batches(samples, rank, world_size, batch_size, group_of=lambda index: None):
    """One process's share of an optimizer step.

    The processes' shares partition the samples. Weights add up to 1 over all processes, so that the weighted sum of the
    micro-batches' mean losses is the mean over the step's samples, whatever their number. All processes have as many
    micro-batches, and those of one place are of one group: a process for which nothing is left repeats the group's
    first sample with weight 0, since every process takes part in what they do together.
    """
    groups = {}
    for sample in samples:
        groups.setdefault(group_of(sample), []).append(sample)
    parts = []
    for members in groups.values():
        share = members[rank::world_size]
        most = -(-len(members) // world_size)
        for start in range(0, most, batch_size):
            indices = share[start : start + batch_size]
            parts.append(MicroBatch(indices or members[:1], len(indices) / len(samples)))
    return parts
