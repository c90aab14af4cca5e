"""What a run will take, before it starts: the same figures for ``wan-alpha plan`` and for ``--dry-run``."""

import os
from dataclasses import dataclass, field

import psutil

from wan_alpha.data.buckets import Bucket
from wan_alpha.models.devices import choose_device, choose_dtype, device_memory, device_name
from wan_alpha.training.foresight import GIB, checkpoint_bytes, num_steps, print_tables, show_bytes, show_gib
from wan_alpha.training.sharding import mesh_sizes

HEADROOM = 0.1  # of a device: what a prediction may err by, and what allocator and driver take for themselves


@dataclass(frozen=True)
class Target:
    """What a plan is for.

    Attributes:
        device_type: "cuda", "mps" or "cpu"; name: as people call it; memory: bytes of it in all, None if unknown.
        processes: that train together; shards: that weights are in parts over, 1 for none.
        host_memory: bytes of the machine's own memory for each process on it, None where it is not the one here.
    """

    device_type: str
    name: str
    memory: float | None
    processes: int = 1
    shards: int = 1
    host_memory: float | None = None

    def dtype(self, precision):
        """The type that a run with this setting computes in there."""
        return choose_dtype(self.device_type, precision)


def target_of_run(device):
    """The :class:`Target` of a run that starts here and now; device: the recipe's setting."""
    found, processes = choose_device(device), int(os.environ.get("WORLD_SIZE", 1))
    sizes = mesh_sizes(processes)
    return Target(
        found.type, device_name(found), device_memory(found), processes, 1 if sizes is None else sizes[1],
        host_memory_of_process(),
    )  # fmt: skip


def host_memory_of_process(processes=None):
    """Bytes of this machine's memory for each of the processes on it; None = as many as were launched."""
    return psutil.virtual_memory().total / (processes or int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


class Assumptions:
    """What a plan takes for granted because it is not there to be looked at.

    Args:
        are_allowed: False where a missing file is an error, as it is for a run.
        bucket: size of the clips where no cache says it; num_samples: of an epoch where no dataset does.
        model: name in the registry, where the recipe's own path names none.

        steps: made for earlier plans with the same, which later ones may take; None for a plan by itself.

    Attributes:
        said: one sentence each.
    """

    def __init__(self, are_allowed=False, bucket=None, num_samples=None, model=None, steps=None):
        self.steps = {} if steps is None else steps
        self.are_allowed, self.said = are_allowed, []
        self._given, self._asked = {"bucket": bucket, "num_samples": num_samples, "model": model}, set()

    @property
    def bucket(self):
        return self._ask("bucket")

    @property
    def num_samples(self):
        return self._ask("num_samples")

    @property
    def model(self):
        return self._ask("model")

    def _ask(self, name):
        self._asked.add(name)
        return self._given[name]

    def without_effect(self):
        """Names of what was given and nothing asked for so far."""
        return [name for name, value in self._given.items() if value is not None and name not in self._asked]

    def is_first(self, question):
        """Whether none of the plans that share their steps has asked this yet; from now on one has."""
        is_new = question not in self.steps
        self.steps.setdefault(question, {})
        return is_new

    def say(self, sentence):
        if sentence not in self.said:
            self.said.append(sentence)


@dataclass
class Plan:
    """What a run will take.

    Attributes:
        command: that the recipe is for; target: what it was computed for.
        data: rows of text about the clips; summary: of the data, as the run's start has it.
        memory: name -> bytes of one process's device memory, the peak as "in all" at the end.
        host_memory: bytes that wait in host memory for their turn on the device, where the two are apart.
        steps: rows of text; num_steps: in all, None where it is not known; tokens: of a step, None without a DiT.
        bucket: of the largest clips, None where only latents are known.
        disk: rows of text; num_trained: numbers, None where nothing trains.
        not_counted, assumed: one sentence each.
    """

    command: str
    target: Target
    data: dict[str, str]
    memory: dict[str, float]
    disk: dict[str, str]
    summary: str = ""
    host_memory: float = 0.0
    steps: dict[str, str] = field(default_factory=dict)
    num_steps: int | None = None
    tokens: int | None = None
    num_trained: int | None = None
    bucket: Bucket | None = None
    not_counted: list[str] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)

    @property
    def peak(self):
        """Bytes of device memory, the most."""
        return self.memory["in all"]

    def fits(self):
        """Whether it fits device and host."""
        return self.fits_device() and self.fits_host()

    def fits_device(self):
        """Whether the peak leaves a tenth of the device; True where its memory is not known."""
        return self.target.memory is None or self.peak <= (1 - HEADROOM) * self.target.memory

    def fits_host(self):
        """Whether host memory holds what waits there; True where it is not known."""
        return self.target.host_memory is None or self.host_memory <= self.target.host_memory

    def tables(self):
        """Title -> (name -> text), in the order of printing."""
        memory = {name: show_bytes(value) for name, value in self.memory.items()}
        if self.num_trained is not None:
            memory = {"trained": f"{self.num_trained} numbers", **memory}
        if self.host_memory:
            memory["host memory"] = f"{show_bytes(self.host_memory)}, waiting for its turn on the device"
        if self.not_counted:
            memory["not counted"] = "; ".join(self.not_counted)
        tables = {"data": self.data, "steps": self.steps, "memory of a process": memory, "disk": self.disk}
        return {title: rows for title, rows in tables.items() if rows}

    def verdict(self):
        """One sentence: whether it fits."""
        if self.target.memory is None:
            return f"needs {show_gib(self.peak)}; how much {self.target.name} has is not known"
        there = f"{show_gib(self.peak)} of the {show_gib(self.target.memory)} of {self.target.name}"
        if not self.fits_host():
            host = f"{show_gib(self.host_memory)} of the {show_gib(self.target.host_memory)} of this machine's memory"
            return f"does not fit: {there}, and {host} for what waits there (offload_blocks, offload_activations)"
        if self.fits():
            return f"fits: {there}"
        if self.peak <= self.target.memory:
            return (
                f"may not fit: {there}, less than a tenth is left for the allocator, the driver and what this errs by"
            )
        return f"does not fit: {there}"


def print_plan(plan):
    """Print a plan's tables, and the data's summary."""
    print_tables(plan.tables())
    if plan.summary and int(os.environ.get("RANK", 0)) == 0:
        print(plan.summary, end="\n\n")


def print_assumed(plan):
    """Print what a plan took for granted, where it did."""
    if plan.assumed and int(os.environ.get("RANK", 0)) == 0:
        print("\n".join(["assumed:", *(f"  {sentence}" for sentence in plan.assumed), ""]))


def step_rows(num_samples, settings, target):
    """(rows of text about the steps, steps in all or None).

    Args:
        num_samples: of an epoch, None if not known; settings: TrainingSettings.
    """
    step_size, per_epoch, steps = num_steps(num_samples, settings, target.processes)
    rows = {
        "samples of a step": f"{step_size} (batch {settings.batch_size} x accumulation "
        f"{settings.gradient_accumulation} x {target.processes} process(es))"
    }
    if per_epoch is None:
        rows["in all"] = "not known without the data" if steps is None else f"at most {steps}"
        return rows, steps
    return rows | {"of an epoch": str(per_epoch), "in all": f"{steps} ({steps / per_epoch:.2f} epochs)"}, steps


def checkpoint_rows(num_trained, settings, exported):
    """Rows of text about the checkpoints' disk space; exported: numbers that each holds besides its own."""
    one = checkpoint_bytes(num_trained, settings, exported)
    kept = settings.keep_checkpoints + 1
    rows = {"a checkpoint": show_bytes(one), "kept at a time": f"{settings.keep_checkpoints}, and one that is being "
            f"written: {show_gib(kept * one)}"}  # fmt: skip
    if settings.keep_every is not None or settings.keep_best is not None:
        rows["besides"] = "those of keep_every and keep_best"
    return rows


def with_waiting(memory, target):
    """Rows of a StepMemory, with what waits in host memory where device and host have one memory."""
    rows = memory.rows()
    if target.device_type == "cuda" or not memory.host:
        return rows
    *others, (total, peak) = rows.items()
    return {**dict(others), "what waits for its block": memory.host, total: peak + memory.host}


def with_host_copy(memory, target, settings, num_trained, exported):
    """Memory rows with the copy that is made of a checkpoint, where device and host have one memory."""
    if target.device_type == "cuda" or not settings.background_saving:
        return memory
    copy = checkpoint_bytes(num_trained, settings, exported)
    *rows, (total, peak) = memory.items()
    return {**dict(rows), "copy of a checkpoint": copy, total: peak + copy}


def gib(count):
    """Bytes of so many GiB."""
    return None if count is None else count * GIB
