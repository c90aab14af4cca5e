"""Clips per second of `prepare` and `doctor`, in one process and in several.

    python tests/benchmarks/bench_prepare.py
    python tests/benchmarks/bench_prepare.py --clips 16 --workers 1 2 4 8

The time to start the processes is part of it.
"""

import argparse
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench_read import make_pairs
from rich.console import Console
from rich.table import Table

from wan_alpha.data.doctor.run import examine_dataset, read_dataset
from wan_alpha.data.prepare import prepare_dataset


@dataclass
class Worked:
    """What a number of processes took, seconds, and what came of it: to be equal whatever their number."""

    work: str
    workers: int
    seconds: float
    outcome: list


def compare(folder, workers=(1, 2)):
    """`prepare` of the pairs in folder/"source", and `doctor` of what it made, with each number of processes."""
    timed = []
    for count in workers:
        prepared, start = folder / f"prepared_{count}", time.perf_counter()
        prepare_dataset(folder / "source", prepared, workers=count)
        table = (prepared / "metadata.csv").read_text(encoding="utf-8")
        timed.append(Worked("prepare", count, time.perf_counter() - start, table.splitlines()))
    for count in workers:
        dataset, start = read_dataset(folder / f"prepared_{workers[0]}"), time.perf_counter()
        reports = examine_dataset(dataset, workers=count).reports
        findings = [sorted(str(finding) for finding in report.findings) for report in reports]
        timed.append(Worked("doctor", count, time.perf_counter() - start, findings))
    return timed


def print_speed(title, timed, num_clips):
    table = Table(title=title)
    for heading in ("work", "processes", "clips/s", "times faster"):
        table.add_column(heading, justify="left" if heading == "work" else "right")
    single = {one.work: one.seconds for one in reversed(timed)}  # the first of each
    for one in timed:
        ratio = single[one.work] / one.seconds
        table.add_row(one.work, str(one.workers), f"{num_clips / one.seconds:.2f}", f"{ratio:.2f}")
    Console(width=120).print(table)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=6, help="pairs of 480x832")
    parser.add_argument("--length", type=int, default=33, help="frames of each pair")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="processes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "source").mkdir()
        make_pairs(folder / "source", options.clips, options.length, 480, 832, crf=20)
        load = os.getloadavg()[0]
        timed = compare(folder, options.workers)
    title = f"{options.clips} pairs of {options.length} frames, 480x832, {os.cpu_count()} cores, load {load:.1f}"
    print_speed(title, timed, options.clips)


if __name__ == "__main__":
    main()
