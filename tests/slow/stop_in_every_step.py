"""A stage's run straight through, and one that a signal stops in each of its steps; alone or as one process of a job.

Arguments: folder of `write_tiny_runs`, "vae" or "dit", number of loading processes, folder of the runs. Each process
writes which samples it saw, and how the calls ended.
"""

import json
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from tiny_runs import NUM_STEPS, RECIPES, TRAIN

from wan_alpha.errors import RunStopped
from wan_alpha.stages.stage1_vae import ReconstructionModule
from wan_alpha.stages.stage2_dit import WanAlphaTrainingModule
from wan_alpha.training.config import load_recipe

MODULES = {"vae": ReconstructionModule, "dit": WanAlphaTrainingModule}
RANK, WORLD_SIZE = (int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1)))


@contextmanager
def watched(stage, seen, stops):
    """Note the samples of each forward pass; where asked, send this process a signal in it."""
    original = MODULES[stage].forward

    def forward(module, batch):
        seen.append(batch["sample_seed"].tolist())
        if stops:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(module, batch)

    with mock.patch.object(MODULES[stage], "forward", forward):
        yield


def main(sources, stage, num_workers, folder):
    seen, steps = {"straight": [], "stopped": []}, []

    def train(name, stops):
        changes = {"output_dir": folder / name, "training.num_workers": num_workers}
        recipe = load_recipe(RECIPES[stage], sources / f"{stage}.toml", changes)
        with watched(stage, seen[name], stops):
            return TRAIN[stage](recipe)

    train("straight", False)
    for step in range(1, NUM_STEPS):
        try:
            train("stopped", step % WORLD_SIZE == RANK)  # one process is told, all stop
        except RunStopped as stopped:
            steps.append(str(stopped))
    last = train("stopped", False)
    report = {"seen": seen, "stops": steps, "last": last.resumed_from}
    (folder / f"report.{RANK}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
