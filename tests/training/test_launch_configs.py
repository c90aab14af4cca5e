"""How runs are launched: examples/launch, what the installed accelerate makes of it and the loop of that; start.sh."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from torch.distributed.run import get_args_parser as torchrun_parser

from wan_alpha.training.sharding import mesh_sizes

FOLDER = Path(__file__).parents[2] / "examples" / "launch"
# File -> processes, what the weights are sharded over.
CONFIGS = {
    "one_gpu.yaml": (1, None),
    "four_gpus.yaml": (4, None),
    "eight_gpus.yaml": (8, None),
    "two_nodes.yaml": (16, None),
    "four_gpus_sharded.yaml": (4, (1, 4)),
    "eight_gpus_sharded.yaml": (8, (1, 8)),
    "two_nodes_hybrid.yaml": (16, (2, 8)),
}


def test_all_are_looked_at_here():
    assert {path.name for path in FOLDER.iterdir()} == set(CONFIGS)


@pytest.mark.parametrize("name", CONFIGS)
def test_options_are_accelerates(name):
    config = load_config_from_file(str(FOLDER / name))  # refuses what it does not know at the top
    content = yaml.safe_load((FOLDER / name).read_text())
    known = {action.dest for action in launch_command_parser()._actions}
    for table in ("fsdp_config", "parallelism_config"):
        assert set(content.get(table, ())) <= known
    assert config.num_processes == CONFIGS[name][0] and config.mixed_precision == "no"


@pytest.mark.parametrize("name", [name for name, (processes, _) in CONFIGS.items() if processes > 1])
def test_the_loop_shards_as_the_configuration_says(name, monkeypatch):
    """The environment that the launcher would give to its processes."""
    processes, sizes = CONFIGS[name]
    arguments = launch_command_parser().parse_args(["--config_file", str(FOLDER / name), "train.py"])
    arguments, _, _ = _validate_launch_command(arguments)
    for variable, value in prepare_multi_gpu_env(arguments).items():
        monkeypatch.setenv(variable, value)
    assert arguments.num_processes == processes and mesh_sizes(processes) == sizes


@pytest.fixture
def launchers(tmp_path, monkeypatch):
    """Stand-ins for python and accelerate which say who they are, and what torchrun would be told."""
    for name in ("python", "accelerate"):
        said = f'{name} $$ "$PET_SIGNALS_TO_HANDLE" "$TORCH_ELASTIC_SHUTDOWN_TIMEOUT" $*'
        (tmp_path / name).write_text(f'#!/bin/sh\n[ "$1" = -c ] && echo $GPUS || echo {said}\n')
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize("script", ["start.sh", "stage1_full.sh", "stage1_merge.sh", "stage2_dora.sh"])
@pytest.mark.parametrize(("gpus", "program"), [("0", "python"), ("1", "python"), ("4", "accelerate")])
def test_the_scripts_become_what_they_start_so_that_signals_reach_it(launchers, script, gpus, program):
    """A shell that starts another process, and accelerate with one process, would keep the signal to themselves."""
    environment = os.environ | {"GPUS": gpus}
    started = subprocess.Popen([FOLDER.parent / script, "--option"], stdout=subprocess.PIPE, text=True, env=environment)
    *_, last = started.communicate()[0].splitlines()
    words = last.split()
    assert words[:2] == [program, str(started.pid)] and words[-1] == "--option"
    if program == "accelerate":
        assert "SIGUSR1" in words[2].split(",") and int(words[3]) > 30


def test_the_installed_torchrun_takes_the_signals_from_the_variable_that_is_documented(monkeypatch):
    monkeypatch.setenv("PET_SIGNALS_TO_HANDLE", "SIGTERM,SIGUSR1")
    assert torchrun_parser().parse_args(["train.py"]).signals_to_handle == "SIGTERM,SIGUSR1"
