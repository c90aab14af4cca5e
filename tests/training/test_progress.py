"""A bar in a terminal, lines elsewhere, silence on the other processes."""

import io

import pytest
from rich.console import Console

from wan_alpha.training.progress import StepProgress, watch_progress


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


def test_plain_output_is_a_few_lines():
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
