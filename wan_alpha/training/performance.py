"""``performance.json``: how long the stages of a command took, what memory they had, what they got through.

A command opens a record; what it calls times its stage with :func:`measured`, which does nothing where none is open.
"""

import json
import statistics
import time
from collections import deque
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

import torch

from wan_alpha.training.environment import describe_environment
from wan_alpha.training.peak_memory import Peak, peak_within
from wan_alpha.training.performance_file import FORMAT, PERFORMANCE_FILE
from wan_alpha.training.run_folder import replace_file

HARDWARE = ("system", "processor cores", "torch threads", "accelerator", "torch")
MAX_SAMPLES = 2000  # newest ones kept of a stage
_MAD_TO_DEVIATION = 1.4826  # of a normal distribution
NO_PEAK = Peak("")
_OPEN = ContextVar("performance_record", default=None)


@dataclass
class Stage:
    """Of a stage: seconds of each time that it ran, what it got through in all, its most memory in bytes.

    Attributes:
        memory_is: what these bytes are, as ``peak_memory`` says it.
        first: seconds of the first time, which pays for what is prepared once, and how many units it got through.
        others: the same of the later times, the newest ones.
    """

    unit: str = ""
    count: int = 0
    total: float = 0.0
    memory: int = 0
    memory_is: str = ""
    times: int = 0
    first: tuple[float, int] | None = None
    others: deque = field(default_factory=lambda: deque(maxlen=MAX_SAMPLES))

    def add(self, seconds, count, peak):
        self.count, self.total = self.count + count, self.total + seconds
        self.memory, self.memory_is = max(self.memory, peak.bytes), peak.what
        self.times += 1
        if self.first is None:
            self.first = seconds, count
        else:
            self.others.append((seconds, count))

    def as_dict(self):
        """As JSON values; the median and its deviation as :func:`spread` has them."""
        samples = self.others or [self.first]
        median, deviation = spread([seconds for seconds, _ in samples])
        of_unit, deviation_of_unit = spread([seconds / count for seconds, count in samples])
        return {
            "times": self.times, "median_seconds": round(median, 6), "deviation": round(deviation, 6),
            "seconds_per_unit": round(of_unit, 9), "deviation_per_unit": round(deviation_of_unit, 9),
            "samples": len(samples), "first_seconds": round(self.first[0], 6), "total_seconds": round(self.total, 6),
            "memory_bytes": self.memory, "memory_is": self.memory_is, "count": self.count, "unit": self.unit,
            "per_second": round(self.count / self.total, 6) if self.total > 0 else None,
        }  # fmt: skip


def spread(samples):
    """(median, standard deviation of a single sample by the median deviation, 0.0 for one alone)."""
    median = statistics.median(samples)
    return median, _MAD_TO_DEVIATION * statistics.median(abs(value - median) for value in samples)


class PerformanceRecord:
    """The stages of one command so far.

    Args:
        command: its name; output_dir: gets the file; device: a torch.device, or None where it is not chosen yet.
    """

    def __init__(self, command, output_dir, device=None):
        self.command, self.path, self.device = command, Path(output_dir) / PERFORMANCE_FILE, device
        self.stages = {}

    def add(self, stage, seconds, count=1, unit="times", peak=NO_PEAK):
        """Take one time of a stage in; count: of units that it got through; peak: its memory, a Peak."""
        self.stages.setdefault(stage, Stage(unit)).add(seconds, count, peak)

    def write(self):
        """Write what there is, whole or not at all."""
        environment = describe_environment()
        content = {
            "format": FORMAT, "command": self.command,
            "hardware": {name: environment[name] for name in HARDWARE},
            "stages": {name: stage.as_dict() for name, stage in self.stages.items()},
        }  # fmt: skip
        replace_file(self.path, json.dumps(content, indent=1) + "\n")


@contextmanager
def recording(command, output_dir, is_main=True):
    """Open a record for a command's time; it is written at the end, however that comes. Where nothing but loading
    was done, as in a run that was finished already, the one that is there stays.

    Args:
        is_main: False in processes that shall not write.
    """
    record = PerformanceRecord(command, output_dir)
    token = _OPEN.set(record)
    try:
        yield record
    finally:
        _OPEN.reset(token)
        did_work = any(not name.startswith("load") for name in record.stages)
        if is_main and did_work and record.path.parent.is_dir():
            record.write()


@contextmanager
def measured(stage, count=1, unit="times", device=None):
    """Within, time is that of a stage of the open record.

    Args:
        count: units that it gets through; device: to be waited for, and whose memory counts; None for the process's.
    """
    record = _OPEN.get()
    if record is None:
        yield
        return
    on_cuda = device is not None and device.type == "cuda"
    if on_cuda:
        torch.cuda.synchronize(device)
    with peak_within(device) as peak:
        begin = time.perf_counter()
        yield
        if on_cuda:
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - begin
    record.add(stage, seconds, count, unit, peak)


def span_of_memory(device):
    """A context that yields a Peak, for :func:`note_stage`; without an open record it is the most so far."""
    return peak_within(device, begins_anew=_OPEN.get() is not None)


def note_stage(stage, seconds, count=1, unit="times", peak=NO_PEAK):
    """As :func:`measured`, for a time that was taken already."""
    if (record := _OPEN.get()) is not None:
        record.add(stage, seconds, count, unit, peak)
