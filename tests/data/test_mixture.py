"""Several datasets in one epoch: shares, and no clip missing."""

from collections import Counter

import pytest

from wan_alpha.data.mixture import Mixture, Part, share_table
from wan_alpha.errors import ConfigError


def clip_counts(mixture, epoch):
    return Counter(mixture.clip(index) for index in mixture.epoch_samples(epoch))


def test_one_part_is_its_clips_repeated():
    mixture = Mixture([Part("a", 3, repeat=2)])
    assert len(mixture) == 6 and list(mixture.epoch_samples(5)) == list(range(6))
    assert [mixture.clip(index) for index in range(6)] == [0, 1, 2, 0, 1, 2]
    for index in (-1, 6):
        with pytest.raises(IndexError):
            mixture.clip(index)
    assert share_table(mixture) == []


def test_repeats_without_weights():
    mixture = Mixture([Part("a", 3, repeat=2), Part("b", 4)])
    assert clip_counts(mixture, 0) == {0: 2, 1: 2, 2: 2, 3: 1, 4: 1, 5: 1, 6: 1}


@pytest.mark.parametrize(
    ("parts", "samples"),
    [
        ([Part("a", 10, weight=1), Part("b", 10, weight=1)], [10, 10]),
        ([Part("a", 10, weight=3), Part("b", 4, weight=1)], [12, 4]),
        ([Part("a", 100, weight=0.5), Part("b", 7, weight=0.5)], [100, 100]),
        ([Part("a", 5, repeat=2, weight=1), Part("b", 3, weight=2), Part("c", 1, weight=0.25)], [10, 20, 2]),
    ],
)
def test_weights_are_shares_and_no_clip_is_missing(parts, samples):
    mixture = Mixture(parts, seed=1)
    assert mixture.samples == samples
    ends = [sum(part.num_clips for part in parts[: number + 1]) for number in range(len(parts))]
    for epoch in range(3):
        indices = list(mixture.epoch_samples(epoch))
        assert len(set(indices)) == len(indices) == sum(samples) and max(indices) < len(mixture)
        counts = clip_counts(mixture, epoch)
        for part, end, expected in zip(parts, ends, samples, strict=True):
            own = [counts[clip] for clip in range(end - part.num_clips, end)]
            # Each clip as often as the others, or once more (once a repeat).
            assert sum(own) == expected and min(own) >= part.repeat and max(own) - min(own) <= part.repeat
    total = sum(part.weight for part in parts)
    for part, count in zip(parts, samples, strict=True):
        assert count / sum(samples) == pytest.approx(part.weight / total, abs=0.5 / sum(samples) * len(parts))


def test_which_clips_come_once_more_is_drawn_for_each_epoch():
    mixture = Mixture([Part("a", 10, weight=1), Part("b", 7, weight=1)], seed=1)
    epochs = [frozenset(mixture.epoch_samples(epoch)) for epoch in range(5)]
    assert len(set(epochs)) > 1 and epochs[2] == frozenset(mixture.epoch_samples(2))
    assert frozenset(Mixture(mixture.parts, seed=2).epoch_samples(2)) != epochs[2]
    counts = sum((clip_counts(mixture, epoch) for epoch in range(300)), Counter())
    often = [counts[clip] for clip in range(10, 17)]
    assert min(often) > 390 and max(often) < 470  # 10/7 an epoch


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "needs parts"),
        ([Part("a", 0)], "a: 0 clips, repeat 1"),
        ([Part("a", 1, weight=1), Part("b", 1)], "weights in all of them or in none"),
    ],
)
def test_impossible_mixtures_are_refused(parts, message):
    with pytest.raises(ConfigError, match=message):
        Mixture(parts)


def test_the_table_says_the_shares():
    (table,) = share_table(Mixture([Part("clips/a.csv", 10, weight=3), Part("b.csv", 4, repeat=2, weight=1)]))
    assert [line.split() for line in table.splitlines()] == [
        ["dataset", "clips", "repeat", "weight", "samples", "an", "epoch", "share"],
        ["clips/a.csv", "10", "1", "3", "24", "75.0%"],
        ["b.csv", "4", "2", "1", "8", "25.0%"],
    ]
