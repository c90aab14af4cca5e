"""What a run was computed with: versions, hardware, commit. Nothing that names a person, a machine or a path."""

import hashlib
import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from wan_alpha.training.run_folder import replace_file

ROOT = Path(__file__).parents[2]
ENVIRONMENT_FILE = "environment.json"
PACKAGES = ("wan_alpha", "torch", "torchvision", "diffsynth", "accelerate", "peft", "transformers", "numpy")


def describe_environment():
    """Name -> text, in the order in which it is shown."""
    environment = {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "processor cores": str(os.cpu_count()),
        "torch threads": str(torch.get_num_threads()),
        "accelerator": describe_accelerator(),
    }
    for package in PACKAGES:
        try:
            environment[package] = version(package)
        except PackageNotFoundError:  # run from a clone that was never installed
            environment[package] = "not installed"
    environment["git commit"] = git_commit(ROOT)
    environment["source"] = f"sha256 {source_sha256()[:16]}"
    return environment


def git_commit(root):
    """The commit that a clone stands at, "none" where there is no clone; whether it was changed since, the hash of the
    sources tells."""
    folder = Path(root) / ".git"
    try:
        head = (folder / "HEAD").read_text(encoding="utf-8").strip()
        if not head.startswith("ref: "):
            return head
        reference = head.removeprefix("ref: ")
        if (folder / reference).is_file():
            return (folder / reference).read_text(encoding="utf-8").strip()
        packed = (folder / "packed-refs").read_text(encoding="utf-8").splitlines()
        return next(line.split()[0] for line in packed if line.endswith(f" {reference}"))
    except (OSError, StopIteration):
        return "none"


def source_sha256():
    """Hash of the package's own modules, names and contents: another one means other code."""
    digest, package = hashlib.sha256(), Path(__file__).parents[1]
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def describe_accelerator():
    """The accelerators of this machine by name."""
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return f"{', '.join(names)} (CUDA {torch.version.cuda})"
    return "Apple GPU (MPS)" if torch.backends.mps.is_available() else "none"


def write_environment(output_dir):
    """Record :func:`describe_environment` as ``environment.json``; a resumed run's last start stands there."""
    replace_file(Path(output_dir) / ENVIRONMENT_FILE, json.dumps(describe_environment(), indent=2) + "\n")
