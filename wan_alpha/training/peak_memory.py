"""The most memory that something took while it went on.

On CUDA the allocator counts it. Of a process Linux does: VmHWM of /proc/self/status is the most that was resident since
the process began, or since "5" was written to /proc/self/clear_refs, which takes microseconds (man 5 proc_pid_status,
proc_pid_clear_refs). Elsewhere nothing does, and what there is at the end stands for it.
"""

from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import psutil
import torch

DEVICE_PEAK = "peak of the device's tensors"
PROCESS_PEAK = "peak of the process"
DRIVER_AT_END = "what the driver holds at the end, no peak"
PROCESS_AT_END = "what the process holds at the end, no peak"
_within = []  # spans that are open, outermost first


@dataclass(eq=False)
class Peak:
    """Memory of a span.

    Attributes:
        device_type: "cuda", "mps" or "cpu"; what: one of this module's sentences, "" where it was not begun anew.
        bytes: filled in at the span's end.
    """

    device_type: str
    what: str = ""
    bytes: int = 0


@contextmanager
def peak_within(device, begins_anew=True):
    """Yield a :class:`Peak` that has its bytes at the end; spans may lie within each other.

    Args:
        device: a torch.device; None for the CPU.
        begins_anew: False leaves the counts of allocator and system to those who read them too: the most is then that
            since they began.
    """
    device = torch.device("cpu") if device is None else device
    peak = Peak(device.type)
    if begins_anew:
        _note(device)
        peak.what = _reset(device)
    _within.append(peak)
    try:
        yield peak
    finally:
        _note(device)
        _within.remove(peak)


def _note(device):
    for span in _within:
        if span.device_type == device.type:
            span.bytes = max(span.bytes, _read(device, span.what))


def _reset(device):
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return DEVICE_PEAK
    if device.type == "mps":
        return DRIVER_AT_END
    return PROCESS_PEAK if _reset_process() else PROCESS_AT_END


def _reset_process():
    if not _counts_process_peaks():
        return False
    Path("/proc/self/clear_refs").write_text("5")
    return True


@lru_cache
def _counts_process_peaks():
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # no Linux, or one without it, as in some sandboxes
        return False
    return _process_peak() is not None


def _process_peak():
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), None)


def _read(device, what):
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    peak = None if what == PROCESS_AT_END else _process_peak()
    return psutil.Process().memory_info().rss if peak is None else peak
