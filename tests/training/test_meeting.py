"""Processes meet through files, whatever earlier jobs left there."""

import json
import multiprocessing
import os
import threading

import meeting_process
import pytest

from wan_alpha.errors import DataError, WanAlphaError
from wan_alpha.training import meeting as meeting_module
from wan_alpha.training.meeting import Meeting


def run_job(folder, what):
    """Two processes with the variables that torchrun sets; returns what each wrote down."""
    context = multiprocessing.get_context("fork" if hasattr(os, "fork") else "spawn")  # a fork has torch already
    processes = [context.Process(target=meeting_process.run, args=(rank, folder, what)) for rank in (0, 1)]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(timeout=600)
        assert [process.exitcode for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    return [(folder / f"log.{rank}").read_text() for rank in (0, 1)]


def leave_an_earlier_job(folder):
    """All that an earlier job of this folder would have left, had it been to its end and had it failed."""
    room = folder / "meeting" / "earlier"
    room.mkdir(parents=True)
    for rank in (0, 1):
        for what in ("here", "share", "failed"):
            (room / f"{what}.{rank}").write_text("long ago")
    (folder / "meeting" / "hello.1").write_text("nonce")
    (folder / "meeting" / "job.json").write_text(json.dumps({"token": "earlier", "nonces": {"1": "nonce"}}))


@pytest.mark.parametrize("is_fresh", [True, False], ids=["fresh", "stale files"])
def test_two_processes_wait_for_each_other(tmp_path, is_fresh):
    if not is_fresh:
        leave_an_earlier_job(tmp_path)
    assert run_job(tmp_path, "works") == ["share", "share"]  # the first read what the second wrote after a second


def test_a_failure_is_told_to_the_others(tmp_path):
    message = "row 7 (x.mp4): damaged"
    assert run_job(tmp_path, "fails") == [f"process 1 failed: {message}", message]


def meet(folder, rank, calls, *, world_size=3):
    with Meeting(folder, rank, world_size) as meeting:
        for name, *arguments in calls:
            if name == "fail":
                raise DataError(*arguments)
            getattr(meeting, name)(*arguments)


def run_threads(folder, jobs):
    """Run meet(folder, rank, calls) for each rank at once; returns rank -> error or None."""
    errors = {}

    def run(rank, calls):
        try:
            meet(folder, rank, calls)
            errors[rank] = None
        except WanAlphaError as error:
            errors[rank] = error

    threads = [threading.Thread(target=run, args=job, daemon=True) for job in jobs.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=600)
    return errors


def test_jobs_one_after_the_other_leave_the_last_two_rooms(tmp_path):
    for _ in range(4):
        jobs = {
            0: [("wait_for", "share"), ("tell", "end")],
            1: [("tell", "share"), ("wait_for", "end", [0])],
            2: [("tell", "share"), ("wait_for", "end", [0])],
        }
        assert run_threads(tmp_path, jobs) == {0: None, 1: None, 2: None}
    assert sum(path.is_dir() for path in tmp_path.iterdir()) == 2


def test_whoever_waits_for_another_hears_of_a_third_ones_failure(tmp_path):
    errors = run_threads(
        tmp_path, {0: [("wait_for", "end", [1])], 1: [("wait_for", "never", [0])], 2: [("fail", "row 7")]}
    )
    assert sorted(errors) == [0, 1, 2] and all(str(error).endswith("row 7") for error in errors.values())


def test_waiting_is_said(tmp_path, capsys, monkeypatch):
    said = threading.Event()

    def say(text, **options):
        print(text, **options)
        said.set()

    def come_late():
        assert said.wait(timeout=600)
        meet(tmp_path, 1, [], world_size=2)

    monkeypatch.setattr(meeting_module, "SAY_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(meeting_module, "print", say, raising=False)
    other = threading.Thread(target=come_late, daemon=True)
    other.start()
    meet(tmp_path, 0, [], world_size=2)
    other.join(timeout=600)
    assert capsys.readouterr().err.count("process 0 waits for the start of process 1") == 1


def test_one_process_writes_nothing(tmp_path):
    meet(tmp_path / "folder", 0, [("tell", "a"), ("wait_for", "b")], world_size=1)
    assert not (tmp_path / "folder").exists()
