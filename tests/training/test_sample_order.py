"""Order and shares: functions of their arguments alone."""

from itertools import islice

import pytest
import torch

from wan_alpha.training.config import TrainingSettings
from wan_alpha.training.loading import load_batches
from wan_alpha.training.order import SampleOrder, count_samples, epoch_order, group_steps, micro_batches


def test_order_is_a_permutation_from_seed_and_epoch():
    order = epoch_order(3, 0, 50)
    assert sorted(order) == list(range(50))
    assert order == epoch_order(3, 0, 50)
    assert order != epoch_order(3, 1, 50) and order != epoch_order(4, 0, 50)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("num_samples, batch_size", [(1, 1), (7, 2), (12, 4), (2, 3)])
def test_shares_partition_a_step(world_size, num_samples, batch_size):
    samples = list(range(100, 100 + num_samples))
    parts = [part for rank in range(world_size) for part in micro_batches(samples, rank, world_size, batch_size)]
    counted = [part for part in parts if part.weight > 0]
    assert sorted(index for part in counted for index in part.indices) == samples
    assert sum(part.weight for part in parts) == pytest.approx(1.0)
    assert max(len(part.indices) for part in parts) <= batch_size
    # The mean over the step's samples, whatever the sizes of the micro-batches.
    mean = sum(part.weight * sum(part.indices) / len(part.indices) for part in parts)
    assert mean == pytest.approx(sum(samples) / num_samples)


def test_one_group_is_cut_as_it_comes():
    order = epoch_order(0, 0, 10)
    assert list(group_steps(order, lambda index: None, 4)) == [order[:4], order[4:8], order[8:]]
    assert list(group_steps([], lambda index: None, 4)) == []


def sizes(index):
    """Three groups of uneven size."""
    return "small" if index % 7 == 0 else "wide" if index % 3 == 0 else "tall"


@pytest.mark.parametrize("step_size", [1, 4, 8, 50])
def test_steps_are_of_one_group_but_the_last_and_hold_every_sample_once(step_size):
    order = epoch_order(1, 0, 41)
    steps = list(group_steps(order, sizes, step_size))
    assert sorted(sample for step in steps for sample in step) == list(range(41))
    assert [len(step) for step in steps[:-1]] == [step_size] * (len(steps) - 1) and len(steps) == -(-41 // step_size)
    mixed = [len({sizes(sample) for sample in step}) > 1 for step in steps]
    num_whole = sum(sum(sizes(index) == name for index in range(41)) // step_size for name in ("small", "wide", "tall"))
    assert not any(mixed[:num_whole])
    if step_size == 4:
        firsts = [sizes(step[0]) for step in steps[:num_whole]]
        assert firsts != sorted(firsts) and firsts != sorted(firsts, reverse=True)  # the groups take turns


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_places_of_a_mixed_step_are_of_one_group_in_all_processes(world_size):
    samples = [0, 7, 3, 6, 9, 1]
    shares = [micro_batches(samples, rank, world_size, 2, sizes) for rank in range(world_size)]
    assert len({len(share) for share in shares}) == 1
    for together in zip(*shares, strict=True):
        assert len({sizes(index) for part in together for index in part.indices}) == 1
    counted = [part for share in shares for part in share if part.weight]
    assert sorted(index for part in counted for index in part.indices) == sorted(samples)
    assert sum(part.weight for part in counted) == pytest.approx(1)


class Listed:
    """A dataset of groups whose samples are their own indices."""

    def __init__(self, length=41):
        self.length, self.epoch = length, None

    def set_epoch(self, epoch):
        self.epoch = epoch

    def group_of(self, index):
        return sizes(index)

    def epoch_samples(self, epoch):
        """All but one sample, another one in each epoch."""
        return [index for index in range(self.length) if index != epoch]

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return self.epoch, index


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("world_sizes", [[1], [2], [2, 1, 2], [1, 3]])
def test_every_sample_of_an_epoch_is_seen_exactly_once(num_workers, world_sizes):
    """Whoever loads it, and though the run is interrupted every fifth step and goes on with other processes."""
    settings = TrainingSettings(num_epochs=2, batch_size=2, gradient_accumulation=2, num_workers=num_workers)
    order, epoch, position, cuts = SampleOrder(Listed(), seed=3), 0, 0, []
    seen, alone = [], []
    for part in range(100):
        world_size = world_sizes[part % len(world_sizes)]
        steps = list(islice(order.steps(epoch, cuts, 4 * world_size), 5))
        for rank in range(world_size):
            shares = [micro_batches(step.samples, rank, world_size, 2, order.group_of) for step in steps]
            places = zip([step.epoch for step in steps], shares, strict=True)
            batches = load_batches(Listed(), places, list, settings, torch.device("cpu"))
            parts = [(step.epoch, micro) for step, share in zip(steps, shares, strict=True) for micro in share]
            for (number, micro), batch in zip(parts, batches, strict=True):
                assert batch == [(number, index) for index in micro.indices]
                seen += batch if micro.weight else []
        for step in steps:
            alone += [(step.epoch, index) for index in step.samples]
            position += len(step.samples)
            cuts = count_samples(cuts, 4 * world_size, len(step.samples))
            if position == order.epoch_length:
                epoch, position, cuts = epoch + 1, 0, []
        if epoch >= 2:
            break
    whole = [(number, index) for number in range(2) for index in range(41) if index != number]
    assert sorted(sample for sample in seen if sample[0] < 2) == whole
    if len(world_sizes) == 1:  # not interrupted
        steps = order.steps(0, [], 4 * world_sizes[0])
        straight = [(step.epoch, index) for step in islice(steps, 100) for index in step.samples]
        assert alone == straight[: len(alone)]
