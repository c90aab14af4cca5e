"""What shows a run while it goes on: times, trackers, previews. None of it may change the run."""

import json
import math

import numpy as np
import pytest
import torch
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, on_main_process
from durable_toy import settings
from PIL import Image
from toy_regression import ToyDataset, ToyModule, collate

from wan_alpha.errors import ConfigError
from wan_alpha.training import run_folder, trackers
from wan_alpha.training.environment import describe_environment, git_commit, source_sha256
from wan_alpha.training.loop import run_training
from wan_alpha.training.previews import preview_strip
from wan_alpha.training.timing import PARTS, WINDOW, Timings, read_timings, slower_by

FRAMES = np.zeros((9, 32, 16, 4), np.uint8)


def make_previews(module):
    """Draws from the global generator, as a model in a preview may."""
    torch.rand(7)
    return {"one": FRAMES + int(torch.rand(()) * 255)}


def train(folder, preview=None, validate=None, **changes):
    chosen = settings(**({"ema_decay": None, "keep_best": None, "validate_every": None, "max_steps": 8} | changes))
    return run_training(
        ToyModule(), ToyDataset(), chosen, folder, 0, collate=collate, preview=preview, validate=validate
    )


class NotingTracker(GeneralTracker):
    """Stands for TensorBoard: notes what it is given."""

    name, requires_logging_directory = "tensorboard", True

    def __init__(self, run_name, logging_dir, **kwargs):
        super().__init__()
        self.seen = {"run": run_name, "folder": logging_dir, "figures": {}, "pictures": {}, "ended": False}
        type(self).last = self.seen

    @property
    def tracker(self):
        return self

    @on_main_process
    def store_init_configuration(self, values):
        self.seen["config"] = values

    @on_main_process
    def log(self, values, step, **kwargs):
        self.seen["figures"][step] = values

    @on_main_process
    def log_images(self, values, step, dataformats):
        self.seen["pictures"][step] = {name: (value.shape, dataformats) for name, value in values.items()}

    @on_main_process
    def finish(self):
        self.seen["ended"] = True


@pytest.fixture
def tracker(monkeypatch):
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "tensorboard", NotingTracker)
    monkeypatch.setattr(trackers, "_is_installed", lambda name: name == "tensorboard")
    monkeypatch.setattr("accelerate.accelerator.LOGGER_TYPE_TO_CLASS", LOGGER_TYPE_TO_CLASS)
    return NotingTracker


def test_previews_and_trackers_change_no_number(tmp_path, tracker):
    plain = train(tmp_path / "plain", trackers=())
    shown = train(tmp_path / "shown", make_previews, preview_every=3)
    assert shown.losses == plain.losses
    ours, theirs = ((tmp_path / name / "checkpoints").glob("step_*/model.safetensors") for name in ("plain", "shown"))
    assert [path.read_bytes() for path in sorted(ours)] == [path.read_bytes() for path in sorted(theirs)]
    strips = sorted(
        str(path.relative_to(tmp_path / "shown")) for path in (tmp_path / "shown" / "previews").rglob("*.png")
    )
    assert strips == [f"previews/step_0000000{step}/one.png" for step in (3, 6, 8)]


def test_the_tracker_gets_figures_validation_and_pictures(tmp_path, tracker):
    train(tmp_path / "run", make_previews, lambda module: {"error": 2.0}, preview_every=4, validate_every=4)
    seen = tracker.last
    assert seen["run"] == "run" and seen["folder"] == str(tmp_path / "run" / "trackers") and seen["ended"]
    assert sorted(seen["figures"]) == list(range(1, 9)) and {"loss", "learning_rate"} <= set(seen["figures"][1])
    assert seen["figures"][8]["validation_error"] == 2.0 and "initial_validation_error" in seen["figures"][1]
    assert seen["pictures"] == {step: {"preview/one": ((1, 5 * 32, 5 * 16, 3), "NHWC")} for step in (4, 8)}


def test_tensorboard_itself_reads_it_back(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(tmp_path / "run", make_previews, lambda module: {"error": 2.0}, preview_every=4, validate_every=4)
    folder = tmp_path / "run" / "trackers" / "run"  # the recipe's values are in another, below it
    events = accumulator.EventAccumulator(str(folder)).Reload()
    assert [event.step for event in events.Scalars("loss")] == list(range(1, 9))
    assert [(event.step, event.value) for event in events.Scalars("validation_error")] == [(4, 2.0), (8, 2.0)]
    pictures = events.Images("preview/one")
    assert [(picture.step, picture.width, picture.height) for picture in pictures] == [(4, 80, 160), (8, 80, 160)]


def test_wandb_itself_takes_it(tmp_path, monkeypatch):
    """Offline: its files stay below the run's folder, and nothing is asked of the network."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    result = train(tmp_path / "run", make_previews, preview_every=4, trackers=("wandb",))
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    assert result.step == 8 and list(run.glob("*.wandb"))
    assert sorted(path.name.split("_")[1] for path in (run / "files" / "media").rglob("*.png")) == ["4", "8"]


@pytest.mark.parametrize(
    ("names", "installed", "chosen"),
    [(None, False, ()), (None, True, ("tensorboard",)), ((), True, ()), (("tensorboard",), True, ("tensorboard",))],
)
def test_tensorboard_is_the_default_where_it_is_installed(monkeypatch, names, installed, chosen):
    monkeypatch.setattr(trackers, "_is_installed", lambda name: installed)
    assert trackers.choose_trackers(names) == chosen


@pytest.mark.parametrize(
    ("name", "message"),
    [("wandb", "pip install wandb"), ("comet_ml", "pip install comet-ml"), ("excel", "known are aim")],
)
def test_a_tracker_that_is_not_there_is_refused_at_once(tmp_path, monkeypatch, name, message):
    monkeypatch.setattr(trackers, "find_spec", lambda module: None)
    with pytest.raises(ConfigError, match=message):
        train(tmp_path / "run", trackers=(name,))
    assert not (tmp_path / "run").exists()


def test_previews_of_nothing_and_validation_on_nothing_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="nothing was given to make previews of"):
        train(tmp_path, preview_every=3)
    with pytest.raises(ConfigError, match="training.validate_every has no effect without held-out clips"):
        train(tmp_path, validate_every=3)


def test_a_strip_shows_each_background_and_alpha():
    frames = np.zeros((9, 32, 16, 4), np.uint8)
    frames[..., 0], frames[8, ..., 3] = 200, 255
    rows = preview_strip(frames).reshape(5, 32, 5, 16, 3)
    first, last = rows[:, 0, 0, 0], rows[:, 0, 4, 0]
    assert first[1:].tolist() == [[0] * 3, [255] * 3, [255, 0, 255], [0] * 3] and first[0].tolist() == [204] * 3
    assert last.tolist() == [[200, 0, 0]] * 4 + [[255] * 3]


def test_the_strip_is_a_png(tmp_path):
    train(tmp_path, lambda module: {"one": FRAMES}, preview_every=8, trackers=())
    with Image.open(tmp_path / "previews" / "step_00000008" / "one.png") as image:
        assert image.size == (5 * 16, 5 * 32) and image.mode == "RGB"


def test_times_are_beside_the_metrics(tmp_path, capsys):
    train(tmp_path, trackers=())
    rows = read_timings(tmp_path)
    assert [row["step"] for row in rows] == list(range(1, 9))
    for row in rows:
        assert 0 <= sum(row[part] for part in PARTS) <= row["seconds"] and row["memory"] > 1 << 20
    assert not set(json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])) & {"seconds", *PARTS}
    shown = capsys.readouterr().err
    assert "s a step: data " in shown and "optimizer" in shown and "GiB" in shown and "it/s" in shown


STEADY = [1.0 + 0.01 * (number % 5) for number in range(WINDOW)]


@pytest.mark.parametrize(
    ("past", "recent", "factor"),
    [
        (STEADY, [2 * value for value in STEADY], 2.0),
        (STEADY, [1.1 * value for value in STEADY], None),  # within what is let pass
        (STEADY, [value / 2 for value in STEADY], None),
        (STEADY, [2.0] * (WINDOW - 1), None),  # too few to tell
        (STEADY[:5], [2.0] * WINDOW, None),
        ([1.0, 2.0] * WINDOW, [2.0] * WINDOW, None),  # the past itself was that uneven
        (STEADY, [*STEADY[:15], 9.0, 9.0, 9.0, 9.0, 9.0], None),  # a few slow steps
    ],
)
def test_slower_is_told_from_noise(past, recent, factor):
    assert slower_by(past, recent) == (None if factor is None else pytest.approx(factor))


def test_a_run_compares_itself_with_its_past_on_the_same_machine(tmp_path):
    def note(timings, first, seconds):
        parts = dict.fromkeys(PARTS, 0.1)
        return [timings.note(first + number, {"seconds": value, **parts}, 0) for number, value in enumerate(seconds)]

    assert not any(note(Timings(tmp_path, "a"), 1, STEADY))
    assert not any(note(Timings(tmp_path, "b"), 21, [3.0] * WINDOW))  # another machine
    found = note(Timings(tmp_path, "a"), 41, [3.0] * (2 * WINDOW))
    assert [value for value in found if value] == [pytest.approx(3 / 1.02, rel=0.01)]  # said once


def test_the_environment_is_saved_with_the_run(tmp_path):
    train(tmp_path, trackers=())
    saved = json.loads((tmp_path / "environment.json").read_text())
    assert saved == json.loads(json.dumps(describe_environment()))
    assert {"python", "torch", "accelerate", "processor cores", "accelerator", "git commit", "source"} <= set(saved)


def test_the_commit_is_read_from_a_clone(tmp_path):
    git = tmp_path / ".git"
    (git / "refs" / "heads").mkdir(parents=True)
    assert git_commit(tmp_path) == "none"
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "packed-refs").write_text("# pack-refs with: peeled\nabc123 refs/heads/main\n")
    assert git_commit(tmp_path) == "abc123"
    (git / "refs" / "heads" / "main").write_text("def456\n")
    assert git_commit(tmp_path) == "def456"
    (git / "HEAD").write_text("0123ab\n")
    assert git_commit(tmp_path) == "0123ab"
    assert len(source_sha256()) == 64


def test_figures_come_back_from_the_file_as_they_were(tmp_path):
    """JSON has neither infinity nor NaN: an exact copy's PSNR is "inf" there, as in every file of figures."""
    log = run_folder.MetricsLog(tmp_path, 0)
    log.write({"step": 1, "psnr": math.inf, "low": -math.inf, "none": math.nan, "loss": 0.5})
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line == {"step": 1, "psnr": "inf", "low": "-inf", "none": None, "loss": 0.5}
    assert run_folder.read_metrics(tmp_path) == [
        {"step": 1, "psnr": math.inf, "low": -math.inf, "none": None, "loss": 0.5}
    ]
    run_folder.MetricsLog(tmp_path, 1)  # a continued run writes its lines again
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == line
