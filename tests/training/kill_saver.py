"""Kills processes that save checkpoints, and looks at what they leave. Needs no torch. Argument: an empty folder.

Prints JSON: what each kind of kill came to.
"""

import itertools
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from file_faults import Faults, contents, leftovers

from wan_alpha.training.checkpoint_folder import Keep, find_newest, list_checkpoints, write_checkpoint

NUM_RANDOM_KILLS = 100
SIZE = 1 << 16, 20  # bytes of a chunk, chunks of a file
KEEP = Keep(newest=2)


def forked(work):
    """Run work(pipe to write to) in a child; returns (its process id, the pipe to read from)."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        work(writing)
        os._exit(0)
    os.close(writing)
    return child, reading


def acknowledged(reading):
    """The last step that a dead child had said to be saved, 0 for none."""
    said = b""
    while part := os.read(reading, 1 << 16):
        said += part
    os.close(reading)
    return max([0, *map(int, said.split(b"\n")[:-1])])


def look(folder, at_least):
    """(what was left lying before the restart's cleaning, what is wrong after it)."""
    before = leftovers(folder) if folder.is_dir() else []
    try:
        found = find_newest(folder)
    except Exception as error:  # noqa: BLE001 (whatever it is, it is what the test must hear of)
        return before, [repr(error)]
    step = found.state["step"] if found.state else 0
    wrong = [f"step {step}, though {at_least} was saved"] if step < at_least else []
    wrong += [f"left over: {name}" for name in (leftovers(folder) if folder.is_dir() else [])]
    wrong += [f"damaged: {entry}" for entry in found.damaged]
    return before, wrong


def next_step(folder):
    return max([0, *(int(path.name[5:]) for path in list_checkpoints(folder))]) + 1


def kill_at_random(folder):
    generator, wrong, interrupted, saved = random.Random(0), [], 0, 0

    def save_on_and_on(pipe):
        for step in itertools.count(next_step(folder)):
            write_checkpoint(folder, step, contents(step, *SIZE), {}, KEEP)
            os.write(pipe, b"%d\n" % step)

    for number in range(NUM_RANDOM_KILLS):
        started = time.monotonic()
        child, reading = forked(save_on_and_on)
        # Every other one is killed at a random instant of its first save or, with luck, its second; the others after a
        # first save that has come to its end, however long that took: by it the next instants are drawn.
        if number % 2 == 0:
            saved = max(saved, int(os.read(reading, 1 << 16).split(b"\n")[-2]))
            a_save = time.monotonic() - started
        time.sleep(generator.uniform(0, a_save * (1 + number % 2)))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        saved = max(saved, acknowledged(reading))
        before, found_wrong = look(folder, saved)
        interrupted += bool(before)
        wrong += found_wrong
    return {"wrong": wrong, "interrupted": interrupted, "saved": saved}


def kill_at_every_operation(folder):
    """The same, at the Nth file operation of one save, for every N."""
    wrong, interrupted, number = [], 0, 0
    while True:
        number += 1
        room = folder / str(number)
        write_checkpoint(room, 1, contents(1), {}, Keep(newest=1))

        def save_and_die(pipe, room=room, number=number):
            with Faults(number, lambda name: os.kill(os.getpid(), signal.SIGKILL)).injected():
                write_checkpoint(room, 2, contents(2), {}, Keep(newest=1))

        child, reading = forked(save_and_die)
        acknowledged(reading)
        died = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        before, found_wrong = look(room, 1)
        interrupted += bool(before)
        wrong += [f"operation {number}: {text}" for text in found_wrong]
        if not died:
            return {"wrong": wrong, "interrupted": interrupted, "operations": number - 1}


if __name__ == "__main__":
    assert "torch" not in sys.modules
    top = Path(sys.argv[1])
    print(json.dumps({"random": kill_at_random(top / "a"), "every": kill_at_every_operation(top / "b")}))
