"""Rows worked on by several processes at once, their results in order."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from wan_alpha.errors import ConfigError, DataError


def num_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_rows(function: Callable, jobs: Sequence[tuple], workers: int | None = None) -> Iterator:
    """Yield function(*job) for every job, in order; a DataError that it raises is yielded in its place.

    Whoever stops iterating, by an exception too, stops the work: rows that have not begun are dropped.

    Args:
        function: of a module's top level; it and what it gets and gives go through pickle.
        jobs: arguments of one call each.
        workers: processes; None = one per core that this process may use. 1 works in this process.

    Raises:
        ConfigError: workers below 1.
        DataError: a process died, out of memory for example.
    """
    workers = num_cores() if workers is None else workers
    if workers < 1:
        raise ConfigError(f"workers = {workers} must be at least 1")
    workers = min(workers, max(len(jobs), 1))
    if workers == 1:
        yield from (_outcome(function, job) for job in jobs)
        return
    pool = ProcessPoolExecutor(workers, mp_context=_context(function.__module__), initializer=_leave_interrupts)
    try:
        for future in [pool.submit(_outcome, function, job) for job in jobs]:
            try:
                yield future.result()
            except BrokenProcessPool as error:
                raise DataError(
                    "a working process was ended from outside, perhaps for want of memory; give fewer --workers"
                ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _outcome(function: Callable, job: tuple):
    try:
        return function(*job)
    except DataError as error:
        return error


def _context(module: str):
    # Not fork: the parent may run torch's threads, whose locks a forked child would inherit locked.
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])  # imported once, not once a process
    return context


def _leave_interrupts() -> None:
    # Ctrl-C reaches every process of a terminal; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
