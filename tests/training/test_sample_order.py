"""Order, shares and learning rate: functions of their arguments alone."""

import pytest

from wan_alpha.training.config import TrainingSettings
from wan_alpha.training.order import epoch_order, micro_batches, step_samples
from wan_alpha.training.schedule import learning_rate


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


def test_steps_go_on_from_a_position_and_drop_nothing():
    order = epoch_order(0, 0, 10)
    assert step_samples(order, 0, 4) == [order[:4], order[4:8], order[8:]]
    assert step_samples(order, 8, 4) == [order[8:]]


@pytest.mark.parametrize(
    "schedule, step, expected",
    [
        ("constant", 0, 0.25), ("constant", 2, 0.75), ("constant", 3, 1.0), ("constant", 99, 1.0),
        ("cosine", 0, 0.25), ("cosine", 3, 1.0), ("cosine", 53, 0.5), ("cosine", 103, 0.0),
    ],
)  # fmt: skip
def test_learning_rate(schedule, step, expected):
    settings = TrainingSettings(max_steps=103, learning_rate=2e-3, warmup_steps=3, schedule=schedule)
    assert learning_rate(step, 103, settings) == pytest.approx(expected * 2e-3, abs=1e-12)
