"""Checkpoints within a run: written beside the training, of the step they say, their errors told."""

import shutil
import threading
import time
from collections import namedtuple

import pytest
import torch
from durable_toy import ListeningModule, everything, settings, train
from toy_regression import ToyDataset, collate

from wan_alpha.errors import CheckpointError, ConfigError
from wan_alpha.training import saving
from wan_alpha.training.background import BackgroundTask
from wan_alpha.training.checkpoint_folder import find_problem, list_checkpoints, read_state, step_of
from wan_alpha.training.loop import run_training
from wan_alpha.training.run_folder import read_metrics
from wan_alpha.training.state import RunState
from wan_alpha.training.validation import forget_other_best
from wan_alpha.weights.io import load_state_dict, read_metadata

PLAIN = {
    "keep_best": None, "validate_every": None, "checkpoint_every": 2, "max_steps": 6, "keep_checkpoints": 9,
    "schedule": "constant",
}  # fmt: skip


def steps(folder):
    return [step_of(path) for path in list_checkpoints(folder / "checkpoints")]


def wrap_writing(monkeypatch, before):
    """Have ``before(step)`` called in front of each checkpoint's writing, where that happens."""
    original = saving.write_checkpoint

    def write(folder, step, *args, **options):
        before(step)
        return original(folder, step, *args, **options)

    monkeypatch.setattr(saving, "write_checkpoint", write)


@pytest.mark.parametrize("background", [True, False])
def test_training_goes_on_while_a_checkpoint_is_written(tmp_path, monkeypatch, background):
    """The write of step 2 does not begin before step 3 does; the one that waits is made at once."""
    events, third_step = [], threading.Event()

    def before(step):
        if background and step == 2:
            assert third_step.wait(timeout=600), "training waits for the write"
        events.append(f"write {step}")

    def listen(call):
        if call == 5:
            events.append("step 3")
            third_step.set()

    wrap_writing(monkeypatch, before)
    train(tmp_path / "run", ListeningModule(listen), background_saving=background, **PLAIN)
    order = ["step 3", "write 2"] if background else ["write 2", "step 3"]
    assert [event for event in events if event in order] == order
    # What was written late is the step that it says, not what the weights were by then.
    train(tmp_path / "other", background_saving=not background, **PLAIN)
    for file in ("model", "optimizer", "ema", "first"):
        ours, theirs = (tmp_path / run / "checkpoints" / "step_00000002" / f"{file}.safetensors" for run in
                        ("run", "other"))  # fmt: skip
        assert ours.read_bytes() == theirs.read_bytes()


def test_at_most_one_is_in_flight_and_all_are_written(tmp_path, monkeypatch):
    active, most = [], []

    def before(step):
        active.append(step)
        most.append(len(active))
        time.sleep(0.005)
        active.remove(step)

    wrap_writing(monkeypatch, before)
    train(tmp_path, **PLAIN | {"checkpoint_every": 1})
    assert max(most) == 1 and steps(tmp_path) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("failing", [4, 6], ids=["in between", "the last"])
def test_a_checkpoint_that_fails_ends_the_run_and_leaves_the_others(tmp_path, monkeypatch, failing, background):
    def before(step):
        if step == failing:
            raise CheckpointError("the disk is gone")

    with monkeypatch.context() as patch:
        wrap_writing(patch, before)
        with pytest.raises(CheckpointError, match="the disk is gone"):
            train(tmp_path / "run", background_saving=background, **PLAIN)
    assert steps(tmp_path / "run") == [step for step in (2, 4, 6) if step < failing]
    assert train(tmp_path / "run", **PLAIN).resumed_from == failing - 2
    train(tmp_path / "straight", **PLAIN)
    assert everything(tmp_path / "run") == everything(tmp_path / "straight")


def test_a_failing_save_does_not_hide_why_the_run_ended(tmp_path, monkeypatch):
    def before(step):
        raise CheckpointError("the disk is gone")

    def listen(call):
        if call == 5:
            raise ZeroDivisionError

    wrap_writing(monkeypatch, before)
    monkeypatch.setattr(saving.Saver, "has_failed", lambda self: False)
    with pytest.raises(ZeroDivisionError) as caught:
        train(tmp_path, ListeningModule(listen), **PLAIN)
    assert "the disk is gone" in caught.value.__notes__[0]


def test_a_full_disk_ends_the_run_with_both_numbers(tmp_path, monkeypatch):
    train(tmp_path, **PLAIN | {"max_steps": 2})
    usage = namedtuple("Usage", "total used free")(0, 0, 4321)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(CheckpointError, match=r"\d+ bytes needed, 4321 bytes free"):
        train(tmp_path, **PLAIN)
    assert steps(tmp_path) == [2] and find_problem(tmp_path / "checkpoints" / "step_00000002") is None


def test_a_damaged_newest_is_named_and_the_previous_used(tmp_path, capsys):
    train(tmp_path / "straight", **PLAIN)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", ListeningModule(fail_at=9), **PLAIN)
    path = tmp_path / "run" / "checkpoints" / "step_00000004" / "optimizer.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert train(tmp_path / "run", **PLAIN).resumed_from == 2
    said = capsys.readouterr().err
    assert "step_00000004: damaged: the checksum of optimizer.safetensors differs; now step_00000004.damaged" in said
    assert "going on from step_00000002" in said
    assert everything(tmp_path / "run") == everything(tmp_path / "straight")


def test_the_best_and_every_so_many_stay(tmp_path):
    options = {"keep_checkpoints": 1, "checkpoint_every": 3, "keep_every": 9, "validate_every": 2}
    train(tmp_path, **options)
    errors = {row["step"]: row["validation_error"] for row in read_metrics(tmp_path) if "validation_error" in row}
    best = min(errors, key=errors.get)
    assert len(errors) == 12 and best % 3 != 0  # a checkpoint that is there for being the best alone
    assert steps(tmp_path) == sorted({9, 18, 24, best})


def test_the_best_by_an_unknown_figure_is_refused_before_the_first_step(tmp_path):
    module = ListeningModule()
    with pytest.raises(ConfigError, match=r"keep_best = 'loss': validation gives no such figure; it gives error"):
        train(tmp_path, module, keep_best="loss", validate_every=20)
    assert module.calls == 0


@pytest.mark.parametrize(
    ("changes", "said", "expected"),
    [
        ({"keep_best": "other"}, "had the lowest error: forgotten, for the lowest other is kept", "other"),
        ({"best_is": "highest"}, "had the lowest error: forgotten, for the highest error is kept", "error"),
        ({"keep_best": None}, "had the lowest error: forgotten, for none is kept", None),
        ({}, None, "error"),
    ],
)
def test_the_best_by_another_figure_is_forgotten_on_resume(tmp_path, capsys, changes, said, expected):
    errors = iter(range(100))

    def validate(module):  # the error gets worse and worse, the other one too, from less
        return {"error": 5.0 + next(errors), "other": 100.0 + next(errors)}

    def go(**changes):
        changes = {"validate_every": 2, "checkpoint_every": 2, "keep_checkpoints": 1, "schedule": "constant"} | changes
        chosen = settings(**changes)
        run_training(ListeningModule(), ToyDataset(), chosen, tmp_path, 0, collate=collate, validate=validate)
        return read_state(list_checkpoints(tmp_path / "checkpoints")[-1])["best"]

    first = go(max_steps=4)
    assert first == {"step": 2, "value": 7.0, "name": "error", "best_is": "lowest"}
    capsys.readouterr()
    best = go(max_steps=8, **changes)
    told = capsys.readouterr().err
    assert (said is None and "forgotten" not in told) or f"the best so far, step 2, {said}" in told
    if expected is None:
        assert best is None and steps(tmp_path) == [8]
    elif said is None:
        assert best == first and steps(tmp_path) == [2, 8]
    else:
        assert best["name"] == expected and best["step"] > 4 and 2 not in steps(tmp_path)


def test_a_best_that_does_not_say_of_what_is_taken_for_todays():
    state = RunState(best={"step": 2, "value": 1.0})
    assert forget_other_best(state, settings()) is None and state.best is not None
    assert "had the best figure: forgotten" in forget_other_best(state, settings(keep_best=None))


@pytest.mark.parametrize(("used_by", "exports_average"), [("both", True), ("export", True), ("validation", False)])
def test_an_export_lies_in_each_checkpoint(tmp_path, used_by, exports_average):
    train(tmp_path, ema_used_by=used_by, **PLAIN)
    for step in (2, 4, 6):
        folder = tmp_path / "checkpoints" / f"step_{step:08d}"
        exported = load_state_dict(folder / "first.safetensors")["w"]
        average, weight = (load_state_dict(folder / f"{name}.safetensors")["first.weight"] for name in ("ema", "model"))
        assert torch.equal(exported, average if exports_average else weight) and not torch.equal(average, weight)
        assert read_metadata(folder / "first.safetensors") == {"format": "toy"}
    final = load_state_dict(tmp_path / "final.safetensors")["first.weight"]
    assert torch.equal(final, average if exports_average else weight)


def test_a_background_error_is_told_once():
    task = BackgroundTask()

    def fail():
        raise CheckpointError("no")

    task.start(fail)
    with pytest.raises(CheckpointError):
        task.wait()
    assert not task.has_failed() and task.close() is None
