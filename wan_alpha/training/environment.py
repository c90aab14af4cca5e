"""What a run was computed with: versions, processor, accelerator. Nothing that names a person, a machine or a path."""

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from wan_alpha.training.run_folder import replace_file

ENVIRONMENT_FILE = "environment.json"
PACKAGES = ("wan_alpha", "torch", "torchvision", "diffsynth", "accelerate", "peft", "transformers", "numpy")


def describe_environment():
    """Name -> text, in the order in which it is shown."""
    environment = {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "processor cores": str(os.cpu_count()),
        "torch threads": str(torch.get_num_threads()),
        "accelerator": _accelerator(),
    }
    for package in PACKAGES:
        try:
            environment[package] = version(package)
        except PackageNotFoundError:  # run from a clone that was never installed
            environment[package] = "not installed"
    return environment


def _accelerator():
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return f"{', '.join(names)} (CUDA {torch.version.cuda})"
    return "Apple GPU (MPS)" if torch.backends.mps.is_available() else "none"


def write_environment(output_dir):
    """Record :func:`describe_environment` as ``environment.json``; a resumed run's last session stands there."""
    replace_file(Path(output_dir) / ENVIRONMENT_FILE, json.dumps(describe_environment(), indent=2) + "\n")
