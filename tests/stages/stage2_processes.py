"""Stage 2 in several processes; started by forked_job.py. Argument: a JSON list of runs.

A run has "recipe", a file; "environment", what accelerate's launcher would set; and perhaps "bad_calls", at which the
last process has a NaN loss; "stop_at", the call at which it gets SIGTERM; "fails_to_write", its disk is full;
"loses_folder", it does not see the output folder any more;
"continues", the name of a run whose first three checkpoints this one begins with. Each process writes its exit codes,
and hashes of its weights before each step, as JSON beside the list.
"""

import errno
import json
import os
import shutil
import signal
import sys
from pathlib import Path

from accelerate import PartialState

from wan_alpha.cli import guard
from wan_alpha.stages import stage2_dit
from wan_alpha.training import sharded_saving
from wan_alpha.training.checkpoint_folder import partial_folder, write_files
from wan_alpha.training.config import load_recipe
from wan_alpha.training.recipes import TrainDiTRecipe
from wan_alpha.training.sharding import local
from wan_alpha.training.step import StepRunner
from wan_alpha.weights.io import tensors_sha256

RANK, IS_LAST = os.environ["RANK"], os.environ["RANK"] == str(int(os.environ["WORLD_SIZE"]) - 1)
FORWARD, RUN = stage2_dit.WanAlphaTrainingModule.forward, StepRunner.run


class Watched:
    """The module's forward, with what a run asks for."""

    def __init__(self, run):
        self.run, self.calls, self.hashes = run, 0, []

    def __call__(self, module, batch, draw=None):
        if draw is not None:
            return FORWARD(module, batch, draw)
        self.calls += 1
        terms = FORWARD(module, batch)
        if IS_LAST and self.calls in self.run.get("bad_calls", ()):
            terms["total"] = terms["total"] * float("nan")
        if IS_LAST and self.calls == self.run.get("stop_at"):
            os.kill(os.getpid(), signal.SIGTERM)
        return terms

    def note_weights(self, runner, *args):
        parts = {name: local(parameter.detach()).clone() for name, parameter in runner.parameters.items()}
        self.hashes.append(tensors_sha256(parts)[:16])
        return RUN(runner, *args)


def begin_with(recipe, other):
    """What another run, in the folder beside, had after three steps."""
    source, target = recipe.output_dir.with_name(other), recipe.output_dir
    for number in (1, 2, 3):
        name = f"checkpoints/step_{number:08d}"
        shutil.copytree(source / name, target / name)
    shutil.copy(source / "metrics.jsonl", target)


def full_disk(*args):
    raise OSError(errno.ENOSPC, "No space left on device")


def folder_that_is_gone(folder, step):
    return partial_folder(folder / "gone", step)


def main(path):
    seen = []
    for run in json.loads(path.read_text()):
        watched, before = Watched(run), dict(os.environ)
        stage2_dit.WanAlphaTrainingModule.forward = lambda module, *args, watched=watched: watched(module, *args)
        StepRunner.run = lambda runner, *args, watched=watched: watched.note_weights(runner, *args)
        os.environ.update(run.get("environment", {}))
        if "continues" in run:
            if RANK == "0":
                begin_with(load_recipe(TrainDiTRecipe, run["recipe"]), run["continues"])
            PartialState().wait_for_everyone()
        sharded_saving.partial_folder = folder_that_is_gone if run.get("loses_folder") and IS_LAST else partial_folder
        sharded_saving.write_files = full_disk if run.get("fails_to_write") and IS_LAST else write_files
        code = guard.run_recipe("run", lambda run=run: load_recipe(TrainDiTRecipe, run["recipe"]), stage2_dit.train_dit)
        os.environ.clear()
        os.environ.update(before)
        seen.append({"code": code, "hashes": watched.hashes})
    path.with_name(f"seen.{RANK}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    guard.check_torchvision = lambda: None
    main(Path(sys.argv[1]))
