"""Sends signals to training processes at random instants. Arguments: an empty folder, names of signals.

Prints JSON, name of a signal -> whether the runs that came of it equal one that was left alone.
"""

import json
import os
import random
import select
import signal
import sys
import time
from pathlib import Path

from durable_toy import ListeningModule, everything, train
from file_faults import leftovers

from wan_alpha.cli.guard import EXIT_STOPPED
from wan_alpha.errors import RunStopped
from wan_alpha.training import saving

NUM_STOPS = 20
STEP_SECONDS = 0.004
PATIENCE = 600.0  # seconds until a child that says nothing is taken for stuck


def fork_training(folder):
    """Train in a child; returns (process id, pipe that says T at each forward, S when a save begins)."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    os.close(reading)
    original = saving.write_checkpoint

    def slow_save(*args, **options):
        os.write(writing, b"S")
        time.sleep(STEP_SECONDS)
        original(*args, **options)

    def listen(call):
        os.write(writing, b"T")
        time.sleep(STEP_SECONDS)

    saving.write_checkpoint = slow_save
    # What the run puts back at its end: a signal that comes between that and the process's own end kills nothing.
    signal.signal(signal.SIGTERM, lambda *_: None)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    code = 1
    try:
        train(folder, ListeningModule(listen))
        code = 0
    except RunStopped:
        code = EXIT_STOPPED
    finally:
        os._exit(code)


def wait_for(reading, letter, seconds):
    """Whether the child says a letter within some seconds, or before its end."""
    end = time.monotonic() + seconds
    while select.select([reading], [], [], max(0.0, end - time.monotonic()))[0]:
        said = os.read(reading, 4096)
        if not said or letter in said:
            return bool(said)
    return False


def stop_runs(top, number, expected):
    """Train until NUM_STOPS signals have come through; what came of it, and whether that is as expected."""
    generator = random.Random(1)
    counts = {"stopped": 0, "while_saving": 0, "finished": 0}
    exit_codes, differing, left = [], [], []
    run = top / "run0"
    while counts["stopped"] < NUM_STOPS or not counts["finished"]:
        child, reading = fork_training(run)
        wait_for(reading, b"T", PATIENCE)
        # By now the handlers are there. Every other time wait for a save; what comes first counts.
        is_saving = counts["stopped"] % 2 == 1 and wait_for(reading, b"S", PATIENCE)
        time.sleep(generator.uniform(0, STEP_SECONDS) if is_saving else generator.uniform(0, 30 * STEP_SECONDS))
        if counts["stopped"] < NUM_STOPS:
            os.kill(child, number)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.close(reading)
        exit_codes.append(code)
        counts["stopped"] += code != 0
        counts["while_saving"] += code != 0 and is_saving
        if code == 0:
            counts["finished"] += 1
            found = everything(run)
            differing += [name for name in expected if found.get(name) != expected[name]]
            left += leftovers(run / "checkpoints")
            run = top / f"run{counts['finished']}"
    return {**counts, "differing": differing, "leftovers": left, "exit_codes": sorted(set(exit_codes))}


def main(top, *names):
    train(top / "straight")
    expected = everything(top / "straight")
    print(json.dumps({name: stop_runs(top / name, signal.Signals[name], expected) for name in names}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
