"""How long the parts of a step take, kept with the run, and whether it has become slower than it was."""

import json
import math
import statistics
import time
from collections import deque
from contextlib import contextmanager
from pathlib import Path

import torch

from wan_alpha.errors import DataError

TIMINGS_FILE = "timings.jsonl"
PARTS = ("data", "forward", "backward", "optimizer")
WINDOW = 20  # steps whose median is compared
NOISE = 3.0  # standard deviations of single steps, by their median deviation
LEAST_FACTOR = 1.15
_MAD_TO_DEVIATION = 1.4826  # of a normal distribution


class StepClock:
    """Seconds of a step's parts; on CUDA by events, so that nothing waits for the device that would not."""

    def __init__(self, device):
        self._on_cuda = device.type == "cuda"
        self._started, self._spans = time.perf_counter(), []

    @contextmanager
    def measure(self, part):
        """Within, time is that of ``part``, one of PARTS; parts that occur again add up."""
        begin = self._now()
        yield
        self._spans.append((part, begin, self._now()))

    def _now(self):
        if not self._on_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def take(self):
        """{"seconds": since the last call, and each part's}, float; what is begun anew is empty."""
        spans, self._spans = self._spans, []
        parts = dict.fromkeys(PARTS, 0.0)
        for part, begin, end in spans:
            if self._on_cuda:
                end.synchronize()
                parts[part] += begin.elapsed_time(end) / 1000
            else:
                parts[part] += end - begin
        now = time.perf_counter()
        seconds, self._started = now - self._started, now
        return {"seconds": seconds, **parts}


class Timings:
    """``timings.jsonl`` of a run: a line each ``log_every`` steps, of this start and of all before.

    It is apart from ``metrics.jsonl``, whose lines of two runs of one recipe are equal.

    Args:
        output_dir: of the run; place: device and number of processes, as a text: only steps of one place are compared.
        log_every: steps between lines.
    """

    def __init__(self, output_dir, place, log_every=1):
        self.path, self.place, self.log_every = Path(output_dir) / TIMINGS_FILE, place, log_every
        self._past = [row["seconds"] for row in read_timings(output_dir) if row.get("place") == place]
        self._recent, self._sums, self._num_steps = deque(maxlen=WINDOW), {}, 0
        self._is_slow = False

    def note(self, step, timing, memory):
        """Take a step's timing in.

        Args:
            step: that was made; timing: of :meth:`StepClock.take`; memory: bytes, the most within the step.

        Returns:
            how many times slower steps are than in the run's past, where that has just begun; else None.
        """
        for name, value in timing.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._num_steps += 1
        self._recent.append(timing["seconds"])
        if step % self.log_every == 0:
            shown = {name: round(value, 6) for name, value in timing.items()}
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **shown, "memory": memory, "place": self.place}) + "\n")
        factor = slower_by(self._past, list(self._recent))
        has_begun, self._is_slow = factor is not None and not self._is_slow, factor is not None
        if len(self._past) + self._num_steps >= 2 * WINDOW and self._num_steps >= WINDOW and factor is None:
            self._past.append(timing["seconds"])  # the past of a first start grows with it
        return factor if has_begun else None

    def data_share(self):
        """Part of the time that steps waited for their data, 0 to 1."""
        return self._sums.get("data", 0.0) / max(self._sums.get("seconds", 0.0), 1e-9)

    def breakdown(self):
        """One line: a step's mean seconds and the parts' shares; None before the first step."""
        if not self._num_steps:
            return None
        seconds = max(self._sums["seconds"], 1e-9)
        shares = {part: self._sums[part] / seconds for part in PARTS}
        shares["else"] = max(0.0, 1 - sum(shares.values()))
        shown = ", ".join(f"{part} {share:.1%}" for part, share in shares.items())
        return f"{seconds / self._num_steps:.3g} s a step: {shown}"


def read_timings(output_dir):
    """The lines of a run's ``timings.jsonl``, each a dict with "seconds"; what a kill cut short is left out.

    Raises:
        DataError: a line that is no row of a run's times; file and line are named.
    """
    path, rows = Path(output_dir) / TIMINGS_FILE, []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        seconds = row.get("seconds") if isinstance(row, dict) else None
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
            raise DataError(
                f'{path}, line {number}: expected a step\'s times, an object with "seconds", found {line[:80]}; '
                "remove the line, or the file"
            )
        rows.append(row)
    return rows


def slower_by(past, recent):
    """How many times slower the recent steps are than the past ones, beyond noise; else None.

    Args:
        past, recent: seconds of steps; too few of either tell nothing.
    """
    if len(past) < WINDOW or len(recent) < WINDOW:
        return None
    before, now = statistics.median(past), statistics.median(recent)
    deviation = _MAD_TO_DEVIATION * statistics.median(abs(value - before) for value in past)
    return now / before if now > max(LEAST_FACTOR * before, before + NOISE * deviation) else None
