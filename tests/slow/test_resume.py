"""Both stages on the tiny family, 24 steps: stopped in every step, and killed, they are the run that never stopped.

pytest -n 0 -m slow tests/slow/test_resume.py
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from processes import run_alone, run_together
from tiny_runs import COMMANDS, NUM_CLIPS, NUM_STEPS

from wan_alpha.training.run_folder import read_metrics
from wan_alpha.weights.io import load_state_dict

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("stop_in_every_step.py")
FIGURES = ("step", "loss", "gradient_norm", "learning_rate", "epoch")
FINAL = {"vae": "rgba_vae.safetensors", "dit": "adapter.safetensors"}
NUM_KILLS = 4


def figures(folder):
    return [[row[name] for name in FIGURES] for row in read_metrics(folder)]


def last_checkpoint(folder):
    """Name -> bytes; of weights with a recipe in their metadata, which names its folder, the tensors alone."""
    last = max((folder / "checkpoints").glob("step_*"))
    files = {path.name: path for path in last.iterdir() if path.name not in FINAL.values()}
    for name in ("checksums.json", "complete.json"):  # of all files, those with metadata too
        del files[name]
    return {name: path.read_bytes() for name, path in files.items()}


def assert_same_run(stage, run, straight):
    assert figures(run) == figures(straight)
    assert [row[0] for row in figures(run)] == list(range(1, NUM_STEPS + 1))
    ours, theirs = last_checkpoint(run), last_checkpoint(straight)
    assert {"model.safetensors", "optimizer.safetensors", "ema.safetensors", "state.json"} <= set(ours)
    assert ours == theirs
    weights = [load_state_dict(folder / FINAL[stage]) for folder in (run, straight)]
    assert set(weights[0]) == set(weights[1]) and all(
        torch.equal(weights[0][name], weights[1][name]) for name in weights[0]
    )


@pytest.mark.parametrize("num_workers", [0, 2], ids="workers{}".format)
@pytest.mark.parametrize("num_processes", [1, 2], ids="processes{}".format)
@pytest.mark.parametrize("stage", ["vae", "dit"])
def test_stopped_in_every_step_it_is_the_same_run(tmp_path, tiny_runs, stage, num_processes, num_workers):
    arguments = tiny_runs, stage, num_workers, tmp_path
    if num_processes == 1:
        run_alone(SCRIPT, *arguments, timeout=3000)
    else:
        run_together(SCRIPT, *arguments, num_processes=num_processes, timeout=3000)
    assert_same_run(stage, tmp_path / "stopped", tmp_path / "straight")
    reports = [json.loads((tmp_path / f"report.{rank}.json").read_text()) for rank in range(num_processes)]
    for report in reports:
        assert [f"at step {step} of {NUM_STEPS}" in said for step, said in enumerate(report["stops"], 1)] == [True] * 23
        assert report["last"] == NUM_STEPS - 1
        assert report["seen"]["stopped"] == report["seen"]["straight"], "the same samples in the same order"
    if num_processes == 1:
        seen = Counter(seed for batch in reports[0]["seen"]["straight"] for seed in batch)
        whole_epochs = NUM_STEPS // -(-NUM_CLIPS // 2)
        assert set(seen.values()) == {1} and len(seen) >= whole_epochs * NUM_CLIPS


@pytest.mark.parametrize("stage", ["vae", "dit"])
def test_a_killed_command_given_again_is_the_same_run(tmp_path, tiny_runs, stage):
    """kill -9 at random instants of the real command line, from before its first step to its last checkpoint."""

    def command(folder):
        words = [COMMANDS[stage], "--config", str(tiny_runs / f"{stage}.toml"), "--output_dir", str(folder)]
        return [sys.executable, "-m", "wan_alpha.cli.main", *words, "--training.num_workers", "0"]

    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command(tmp_path / "straight"), env=environment, check=True, capture_output=True)
    generator, killed = random.Random(stage), []
    for kill in range(NUM_KILLS):
        process = subprocess.Popen(command(tmp_path / "killed"), env=environment, stderr=subprocess.DEVNULL)
        wanted = (kill + 1) * NUM_STEPS // (NUM_KILLS + 1)
        while process.poll() is None and num_lines(tmp_path / "killed") < wanted:
            time.sleep(0.01)
        time.sleep(generator.uniform(0, 0.2))
        process.kill()
        killed.append(process.wait())
    # On a busy machine a run may have come to its end before it is killed.
    assert killed[0] == -signal.SIGKILL and set(killed) <= {-signal.SIGKILL, 0}
    subprocess.run(command(tmp_path / "killed"), env=environment, check=True, capture_output=True)
    assert_same_run(stage, tmp_path / "killed", tmp_path / "straight")


def num_lines(folder):
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0
