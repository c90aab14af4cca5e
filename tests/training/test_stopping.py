"""Signals: the step is finished and saved, and what follows equals the run that never stopped, to the bit."""

import json
import os
import signal
import threading
from pathlib import Path

import pytest
from durable_toy import ListeningModule, everything, train
from processes import run_alone
from toy_regression import ToyDataset

from wan_alpha.data.sampling import derive_seed
from wan_alpha.errors import RunStopped
from wan_alpha.training import signals as signals_module
from wan_alpha.training.signals import STOP_SIGNALS, StopSignals


def send(number, at_call):
    """A module that sends its own process a signal in the middle of a step."""
    return ListeningModule(lambda call: os.kill(os.getpid(), number) if call == at_call else None)


@pytest.fixture(autouse=True)
def interruptible():
    """A shell's background jobs have SIGINT ignored, and the package leaves it so; these tests are about the others."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    train(folder)
    return everything(folder)


@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
def test_the_step_is_finished_and_saved(tmp_path, straight, number, capfd):
    handlers = [signal.getsignal(number) for number in STOP_SIGNALS]
    with pytest.raises(RunStopped, match=f"stopped by {number.name} at step 3 of 24, saved; the same command"):
        train(tmp_path, send(number, at_call=5))
    assert "finishing this step, then saving" in capfd.readouterr().err
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000003"]
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == handlers
    assert train(tmp_path).resumed_from == 3
    assert everything(tmp_path) == straight


def test_stopped_after_every_step_it_is_the_same_run(tmp_path, straight):
    """Losses, weights, moments, average, best, position: every file that a run leaves."""
    for step in range(1, 24):
        with pytest.raises(RunStopped, match=f"at step {step} of 24"):
            train(tmp_path, send(signal.SIGTERM, at_call=1))
    assert train(tmp_path).resumed_from == 23
    assert everything(tmp_path) == straight


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_sample_is_seen_once_over_five_interruptions(tmp_path, num_workers):
    seen, options = [], {"max_steps": None, "num_epochs": 3, "num_workers": num_workers}
    for at_call in (3, 1, 4, 2, 3):
        module = send(signal.SIGTERM, at_call)
        with pytest.raises(RunStopped):
            train(tmp_path, module, ToyDataset(length=17), **options)
        seen += module.seen
    module = ListeningModule()
    train(tmp_path, module, ToyDataset(length=17), **options)
    expected = [derive_seed(0, epoch, index) for epoch in range(3) for index in range(17)]
    assert sorted(seen + module.seen) == sorted(expected)


def test_a_signal_at_the_end_still_stops_whoever_called(tmp_path, straight):
    with pytest.raises(RunStopped, match="at step 24 of 24"):
        train(tmp_path, send(signal.SIGTERM, at_call=47))  # of 48
    assert everything(tmp_path) == straight
    assert train(tmp_path).was_finished


def test_a_second_interrupt_stops_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(signals_module, "ECHO_SECONDS", 0.0)

    def interrupt(call):
        if call in (3, 4):  # both in step 2
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, ListeningModule(interrupt))
    assert not list((tmp_path / "checkpoints").glob("step_*"))


def test_a_launchers_echo_is_no_second_interrupt(monkeypatch):
    monkeypatch.setattr(signals_module, "ECHO_SECONDS", 600.0)  # this process may be held up between two of them
    with StopSignals(announce=False) as signals:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)
    assert (signals.received, signals.at_once) == ("SIGINT", False)


def test_an_ignored_interrupt_stays_ignored():
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSignals(announce=False) as signals:
            os.kill(os.getpid(), signal.SIGINT)
        assert signals.received is None
    finally:
        signal.signal(signal.SIGINT, former)


def test_in_another_thread_signals_are_left_alone(tmp_path):
    results = []
    thread = threading.Thread(target=lambda: results.append(train(tmp_path, max_steps=2)))
    thread.start()
    thread.join(timeout=600)
    assert results[0].step == 2


@pytest.fixture(scope="module")
def stopped_runs(tmp_path_factory):
    """Name of a signal -> what came of 20 of them, half of them sent while a checkpoint was being written."""
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    script, folder = Path(__file__).with_name("stop_toy.py"), tmp_path_factory.mktemp("stopped")
    return json.loads(run_alone(script, folder, "SIGTERM", "SIGKILL"))


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_stopped_at_random_instants_it_is_the_same_run(stopped_runs, name):
    result = stopped_runs[name]
    assert result["differing"] == [] and result["leftovers"] == []
    assert result["stopped"] >= 20 and result["while_saving"] >= 5 and result["finished"] >= 1
    assert set(result["exit_codes"]) <= ({0, 75} if name == "SIGTERM" else {0, -9})
