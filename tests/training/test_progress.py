"""A bar in a terminal, lines elsewhere, silence on the other processes."""

import hashlib
import io

import pytest
from rich.console import Console

from wan_alpha.training.progress import StageBars, StepProgress, report_progress, watch_progress
from wan_alpha.weights.io import file_sha256


def run(terminal, enabled=True, total=40):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    with StepProgress("training", total=total, enabled=enabled, console=console) as progress:
        progress.say("a [bracketed] word")
        for done in range(1, 41):
            progress.update(done, "loss 0.5")
    return console.file.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_shows_loss_rate_and_the_end(terminal):
    text = run(terminal)
    assert "40/40" in text and "loss 0.5" in text and "it/s" in text and "a [bracketed] word" in text


def test_plain_output_is_a_few_lines(monkeypatch):
    monkeypatch.setattr("wan_alpha.training.progress.PLAIN_INTERVAL", 600.0)  # however slow the machine is
    assert len(run(terminal=False).splitlines()) <= 4


def test_unknown_total_and_other_processes():
    assert "loss 0.5" in run(terminal=False, total=None)
    assert run(terminal=False, enabled=False) == run(terminal=True, enabled=False) == ""


def test_a_watcher_is_told_what_is_shown_while_it_watches():
    told = []
    quiet = StepProgress("decoding", total=3, enabled=False, unit="frames")
    with watch_progress(lambda *step: told.append(step[:3])):
        quiet.update(1)
        quiet.update(3, total=4)
    quiet.update(4)
    assert told == [("decoding", 1, 3), ("decoding", 3, 4)]


def test_a_front_end_is_called_with_stage_done_and_total():
    told = []
    with report_progress(lambda *step: told.append(step)):
        StepProgress("sampling", total=None, enabled=False).update(1, "loss 0.5")
        with StageBars("bytes", enabled=False) as bars:
            bars("loading", 1, 2)
            bars("loading", 2, 2)
            bars("hashing", 5, 9)
    assert told == [("sampling", 1, None), ("loading", 1, 2), ("loading", 2, 2), ("hashing", 5, 9)]


def test_stages_are_shown_one_after_the_other():
    shown = io.StringIO()
    with StageBars("tensors", console=Console(file=shown, width=100)) as bars:
        for stage in ("loading", "hashing"):
            bars(stage, 2, 2)
    text = shown.getvalue()
    assert text.index("loading: 2/2") < text.index("hashing: 2/2") and "tensors/s" in text


def test_hashing_tells_how_far_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr("wan_alpha.weights.io._HASHED_AT_A_TIME", 4)
    path, told = tmp_path / "file", []
    path.write_bytes(b"0123456789")
    plain = file_sha256(path)
    assert file_sha256(path, lambda *step: told.append(step)) == plain == hashlib.sha256(b"0123456789").hexdigest()
    assert told == [("hashing", 4, 10), ("hashing", 8, 10), ("hashing", 10, 10)]
