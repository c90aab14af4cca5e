"""Processes that tests and benchmarks start: by themselves, or several of one job; and the memory that one has held."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node")


def run_alone(script, *arguments, timeout=600):
    """Run a Python script in a process of its own; what stands beside it and in this folder can be imported.

    Returns:
        what it printed.
    """
    return _run([sys.executable, str(script), *map(str, arguments)], script, timeout)


def run_together(script, *arguments, num_processes=2, timeout=600):
    """Run a Python script as the processes of one job on the CPU, each with one thread (torchrun, gloo)."""
    return _run([*TORCHRUN, str(num_processes), str(script), *map(str, arguments)], script, timeout)


def run_forked(script, *arguments, num_processes=2, timeout=600):
    """As :func:`run_together`, by processes that are forked from one which has imported the package's stages."""
    job = TESTS / "forked_job.py"
    return _run([sys.executable, *map(str, (job, num_processes, script, *arguments))], script, timeout)


def _run(command, script, timeout):
    # The checkout itself too: what is installed may be another one.
    paths = [TESTS, Path(script).parent, TESTS.parent, *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {"PYTHONPATH": os.pathsep.join(map(str, paths)), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}\n{done.stderr}"
    return done.stdout


def memory_now():
    """MiB that this process holds (Linux)."""
    return _memory("self", "VmRSS")


def peak_memory(process="self"):
    """MiB that a running process has held at most; 0 if it has ended.

    Linux. (What getrusage says of a child counts its parent's memory before exec.)
    """
    return _memory(process, "VmHWM")


def _memory(process, name):
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(name)), 0.0)


def child_processes():
    """Ids of the processes that this one started, from whichever thread (Linux)."""
    return [child for task in Path("/proc/self/task").iterdir() for child in (task / "children").read_text().split()]
