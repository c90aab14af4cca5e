"""What a run shows while it runs: a bar in a terminal, a plain line now and then elsewhere."""

import time
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

PLAIN_INTERVAL = 15.0  # seconds
_WATCHER = ContextVar("watcher", default=None)


@contextmanager
def watch_progress(watcher):
    """While it lasts, each StepProgress of this thread also calls watcher(description, done, total, figure)."""
    token = _WATCHER.set(watcher)
    try:
        yield
    finally:
        _WATCHER.reset(token)


@contextmanager
def report_progress(callback):
    """While it lasts, everything of this thread that shows a bar calls callback(stage, done, total), for front ends.

    Stages are those of the bars: "loading", "hashing", "clips" (caching), "sampling", "decoding", "converting", the
    training's description, and so on; `total` is None where it is not known yet. The bars themselves stay.
    """
    with watch_progress(lambda stage, done, total, figure: callback(stage, done, total)):
        yield


class StageBars:
    """A callback(stage, done, total) that shows itself: one bar after the other, a new one for each stage.

    Args:
        unit: name of a step; enabled: False shows nothing; console: as in :class:`StepProgress`.
    """

    def __init__(self, unit="it", enabled=True, console=None):
        self._options = {"unit": unit, "enabled": enabled, "console": console}
        self._bar = None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self._bar is not None:
            self._bar.__exit__(*error)
            self._bar = None

    def __call__(self, stage, done, total):
        if self._bar is None or self._bar.description != stage:
            self.__exit__(None, None, None)
            self._bar = StepProgress(stage, total, **self._options).__enter__()
        self._bar.update(done, total=total)


class StepProgress:
    """Progress over steps with a figure and the rate; a context manager.

    Args:
        description: what is going on; total: steps in all, None if not known yet; done: steps done before.
        enabled: False shows nothing; unit: name of a step; console: where to show it, standard error if None.
    """

    def __init__(self, description, total, done=0, enabled=True, unit="it", console=None):
        self.console = console or Console(stderr=True)
        self.description, self.total, self.unit = description, total, unit
        self._first, self._started, self._last_line = done, time.monotonic(), None
        self._enabled, self._bar = enabled, None
        if enabled and self.console.is_terminal:
            columns = (
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                TextColumn("{task.fields[figure]}"), TimeElapsedColumn(), TextColumn("ETA"), TimeRemainingColumn(),
            )  # fmt: skip
            self._bar = Progress(*columns, console=self.console)
            self._task = self._bar.add_task(description, total=total, completed=done, figure="")

    def __enter__(self):
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *error):
        if self._bar is not None:
            self._bar.stop()

    def say(self, text):
        """Print a line above the bar."""
        if self._enabled:
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def update(self, done, figure="", total=None):
        """Show that ``done`` steps are done, with a short text such as the loss; ``total`` if not known before."""
        self.total = self.total if total is None else total
        elapsed = time.monotonic() - self._started
        rate = (done - self._first) / elapsed if elapsed > 0 else 0.0
        figure = f"{figure} {rate:.2f} {self.unit}/s".strip()
        if (watcher := _WATCHER.get()) is not None:
            watcher(self.description, done, self.total, figure)
        if self._bar is not None:
            self._bar.update(self._task, total=self.total, completed=done, figure=figure)
        elif self._enabled and (done == self.total or self._line_is_due()):
            self._last_line = time.monotonic()
            known = self.total is not None
            left = f", {(self.total - done) / rate:.0f} s left" if known and rate > 0 and done < self.total else ""
            self.say(f"{self.description}: {done}{f'/{self.total}' if known else ''} {figure}{left}")

    def _line_is_due(self):
        return self._last_line is None or time.monotonic() - self._last_line > PLAIN_INTERVAL
