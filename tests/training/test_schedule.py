"""The learning rate against the closed forms, and against PyTorch's own schedules."""

import math

import pytest
import torch

from wan_alpha.errors import ConfigError
from wan_alpha.training.config import TrainingSettings, load_recipe
from wan_alpha.training.recipes import TrainDiTRecipe
from wan_alpha.training.schedule import learning_rate

TOTAL = 103


def settings(schedule, **changes):
    return TrainingSettings(max_steps=TOTAL, learning_rate=2e-3, schedule=schedule, **changes)


@pytest.mark.parametrize(
    "schedule, step, expected",
    [
        ("constant", 0, 0.25), ("constant", 2, 0.75), ("constant", 3, 1.0), ("constant", 99, 1.0),
        ("cosine", 0, 0.25), ("cosine", 3, 1.0), ("cosine", 53, 0.5), ("cosine", 103, 0.0),
        ("cosine", 28, (1 + math.sqrt(0.5)) / 2), ("linear", 1, 0.5), ("linear", 3, 1.0), ("linear", 28, 0.75),
        ("linear", 102, 0.01), ("polynomial", 2, 0.75), ("polynomial", 3, 1.0), ("polynomial", 28, 0.75**2),
        ("polynomial", 103, 0.0),
    ],
)  # fmt: skip
def test_learning_rate(schedule, step, expected):
    assert learning_rate(step, TOTAL, settings(schedule, warmup_steps=3)) == pytest.approx(expected * 2e-3, abs=1e-12)


@pytest.mark.parametrize(
    "schedule, step, expected",
    [("linear", 28, 0.25 + 0.75 * 0.75), ("cosine", 53, 0.625), ("polynomial", 28, 0.25 + 0.75 * 0.75**3)],
)
def test_schedules_fall_to_the_final_rate(schedule, step, expected):
    power = {"schedule_power": 3} if schedule == "polynomial" else {}
    chosen = settings(schedule, warmup_steps=3, final_learning_rate=5e-4, **power)
    assert learning_rate(step, TOTAL, chosen) == pytest.approx(expected * 2e-3)
    assert learning_rate(TOTAL, TOTAL, chosen) == pytest.approx(5e-4)


@pytest.mark.parametrize(
    "schedule, theirs",
    [
        ("linear", lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.0, TOTAL)),
        ("cosine", lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, TOTAL)),
        ("polynomial", lambda o: torch.optim.lr_scheduler.PolynomialLR(o, TOTAL, power=2.0)),
    ],
)
def test_schedules_are_pytorchs(schedule, theirs):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2e-3)
    scheduler = theirs(optimizer)
    for step in range(TOTAL):
        assert learning_rate(step, TOTAL, settings(schedule)) == pytest.approx(
            optimizer.param_groups[0]["lr"], abs=1e-9
        )
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"schedule": "step"}, "'constant', 'linear', 'cosine' or 'polynomial'"),
        ({"final_learning_rate": "1e-5"}, "final_learning_rate has no effect with schedule = 'constant'"),
        ({"schedule": "cosine", "schedule_power": "3"}, "schedule_power has no effect with schedule = 'cosine'"),
        ({"schedule": "linear", "final_learning_rate": "1"}, "final_learning_rate = 1.0 is above learning_rate"),
    ],
)
def test_options_without_effect_are_refused(changes, message):
    given = {"output_dir": "out", "model.wan": "wan", "cache": "cache", "training.max_steps": 5}
    with pytest.raises(ConfigError, match=message):
        load_recipe(TrainDiTRecipe, overrides=given | {f"training.{name}": value for name, value in changes.items()})
