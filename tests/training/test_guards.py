"""What is watched at every step."""

import json

import pytest
import torch
from durable_toy import ListeningModule, train

from wan_alpha.errors import NonFiniteError
from wan_alpha.training.guards import SPIKE_AFTER, SPIKE_WINDOW, is_better, loss_spike
from wan_alpha.training.state import RunState
from wan_alpha.weights.io import load_state_dict

PLAIN = {"keep_best": None, "validate_every": None, "checkpoint_every": 1, "max_steps": 6, "keep_checkpoints": 9}


class BadGradient(ListeningModule):
    """A finite loss whose gradient is NaN, or infinite, at the chosen calls."""

    def __init__(self, bad_at, value):
        super().__init__()
        self.bad_at, self.value = bad_at, value

    def forward(self, batch):
        terms = super().forward(batch)
        if self.calls in self.bad_at:
            zero = (self.first.weight * 0).sum()  # the gradient of its root is infinite; times 0, it is NaN
            bad = zero.sqrt() if self.value == "nan" else (self.first.weight - self.first.weight.detach()).sum().sqrt()
            terms["total"] = terms["total"] + bad
        return terms


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_bad_gradient_under_a_finite_loss_changes_nothing(tmp_path, value):
    """Step 3 is call 5 and 6; the bad one is one micro-batch of two."""
    result = train(tmp_path, BadGradient({6}, value), **PLAIN)
    assert result.skipped_updates == 1 and None not in result.losses
    before, after = (tmp_path / "checkpoints" / f"step_0000000{step}" for step in (2, 3))
    for name in ("model", "optimizer", "ema"):
        ours, theirs = (load_state_dict(folder / f"{name}.safetensors") for folder in (after, before))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    state = json.loads((after / "state.json").read_text())
    assert (state["skipped_updates"], state["skipped_in_a_row"], state["step"]) == (1, 1, 3)


def test_the_number_of_skips_is_an_option(tmp_path):
    with pytest.raises(NonFiniteError, match="2 updates in a row up to step 4"):
        train(tmp_path, ListeningModule(nan_at=range(5, 99)), max_skipped_updates=2)


def test_a_spike_is_told_from_the_losses_around_it():
    state = RunState()
    for number in range(SPIKE_AFTER):
        assert loss_spike(state, 50.0 if number == 3 else 1.0 + number / 100, 5.0) is None  # too early to tell
    assert loss_spike(state, 4.0, 5.0) is None
    assert loss_spike(state, 11.0, 5.0) == pytest.approx(11.0 / 1.105, rel=0.02)
    assert loss_spike(state, float("nan"), 5.0) is None and len(state.recent_losses) == SPIKE_AFTER + 2
    assert loss_spike(state, 999.0, None) is None
    for _ in range(2 * SPIKE_WINDOW):
        loss_spike(state, 20.0, 5.0)
    assert len(state.recent_losses) == SPIKE_WINDOW
    assert loss_spike(state, 30.0, 5.0) is None  # the new level is the usual one by now


def test_a_spike_is_in_the_log(tmp_path, capsys):
    class Spiking(ListeningModule):
        def forward(self, batch):
            terms = super().forward(batch)
            return {name: value * (40 if self.calls in (61, 62) else 1) for name, value in terms.items()}

    train(tmp_path, Spiking(), max_steps=34, log_every=99, loss_spike=9.0, keep_best=None, validate_every=None)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 31, 34] and [row["step"] for row in rows if "loss_spike" in row] == [31]
    assert rows[1]["loss_spike"] > 9 and "step 31: loss" in capsys.readouterr().err


def test_better():
    assert is_better(1.0, None, "lowest") and is_better(1.0, None, "highest")
    assert is_better(1.0, {"value": 2.0}, "lowest") and not is_better(1.0, {"value": 2.0}, "highest")
    assert not is_better(2.0, {"value": 2.0}, "lowest") and not is_better(float("nan"), None, "lowest")
