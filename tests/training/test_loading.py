"""Worker processes: started once, ahead by so much, and without a trace in the training's randomness."""

import os
import sys
import time

import pytest
import torch

from wan_alpha.errors import ConfigError
from wan_alpha.training.config import TrainingSettings, load_recipe
from wan_alpha.training.loading import load_batches, worker_context
from wan_alpha.training.order import MicroBatch
from wan_alpha.training.recipes import TrainDiTRecipe

CPU = torch.device("cpu")


class Counting:
    """Samples say who made them, in which epoch; a counter in shared memory says how many there were."""

    def __init__(self):
        self.epoch, self.made = None, torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __getitem__(self, index):
        self.made += 1
        return os.getpid(), self.epoch, index


class Sharing:
    """Keeps the epoch where all workers see it, as the stages' datasets do."""

    def __init__(self):
        self.epoch = None

    def set_epoch(self, epoch):
        self.epoch = epoch

    def sample(self, epoch, index):
        return epoch, index


def shares(num_epochs, num_steps=4):
    return [(epoch, [MicroBatch([step], 1.0)]) for epoch in range(num_epochs) for step in range(num_steps)]


def settings(**changes):
    return TrainingSettings(max_steps=1, **changes)


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_workers_stay_over_the_epochs_and_know_each(num_workers):
    state = torch.get_rng_state()
    batches = list(load_batches(Counting(), shares(3), list, settings(num_workers=num_workers), CPU))
    assert [batch[0][1:] for batch in batches] == [(epoch, step) for epoch in range(3) for step in range(4)]
    makers = {batch[0][0] for batch in batches}
    assert len(makers) == max(num_workers, 1) and (os.getpid() in makers) == (num_workers == 0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("options", "ahead"), [({"num_workers": 1}, 2), ({"num_workers": 1, "prefetch": 5}, 5)])
def test_workers_are_ahead_by_what_prefetch_says(options, ahead):
    dataset = Counting()
    batches = load_batches(dataset, shares(5), list, settings(**options), CPU)
    next(batches)
    patience = time.monotonic() + 600
    while int(dataset.made) < 1 + ahead and time.monotonic() < patience:
        time.sleep(0.01)
    time.sleep(0.05)
    assert int(dataset.made) == 1 + ahead


def test_without_workers_nothing_is_made_before_its_turn():
    dataset = Counting()
    batches = load_batches(dataset, shares(1), list, settings(), CPU)
    assert int(dataset.made) == 0
    next(batches)
    assert int(dataset.made) == 1


def test_workers_are_forked_on_linux_and_as_asked(monkeypatch):
    for platform, start in (("linux", "fork"), ("darwin", "spawn"), ("win32", "spawn")):
        monkeypatch.setattr(sys, "platform", platform)
        assert worker_context("auto") == start
    assert worker_context("forkserver") == "forkserver"


@pytest.mark.parametrize("option", [{"prefetch": "4"}, {"worker_start": "spawn"}])
def test_options_of_workers_without_workers_are_refused(option):
    given = {"output_dir": "out", "model.wan": "wan", "cache": "cache", "training.max_steps": 5}
    with pytest.raises(ConfigError, match="has no effect with num_workers = 0"):
        load_recipe(TrainDiTRecipe, overrides=given | {f"training.{name}": value for name, value in option.items()})


def test_loaders_that_are_an_epoch_apart_do_not_change_each_others_samples():
    """What two workers of one run do, one of which is ahead: in one process, so that their order is known."""
    data = Sharing()
    early, late = (load_batches(data, [(epoch, [MicroBatch([0, 1], 1.0), MicroBatch([2], 1.0)])], list, settings(), CPU)
                   for epoch in (0, 1))  # fmt: skip
    assert [next(early), next(late), next(early), next(late)] == [
        [(0, 0), (0, 1)], [(1, 0), (1, 1)], [(0, 2)], [(1, 2)],
    ]  # fmt: skip
