"""Signals that ask a run to stop: the step is finished and saved first.

SIGTERM, SIGINT (Ctrl-C) and SIGUSR1 (what a cluster sends before the time is over) are noted, no more. A second SIGINT
stops at once.
"""

import os
import signal
import threading
import time

STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name))
# A launcher passes on a Ctrl-C that the terminal has sent to its processes too: that is one wish, not two.
ECHO_SECONDS = 0.2


class StopSignals:
    """A context manager within which the signals are noted; outside the main thread it does nothing.

    Attributes:
        received: name of the first one, None so far.
        at_once: a second SIGINT came; KeyboardInterrupt was raised where the program was.
    """

    def __init__(self, announce=True):
        self.received, self.at_once = None, False
        self._announce, self._interrupted_at, self._former = announce, None, {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                # Whoever starts a run in the background of a shell has SIGINT ignored: so it stays.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._former[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error):
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        name, now = signal.Signals(number).name, time.monotonic()
        if number == signal.SIGINT:
            if self._interrupted_at is not None and now - self._interrupted_at > ECHO_SECONDS:
                self.at_once = True
                raise KeyboardInterrupt
            self._interrupted_at = self._interrupted_at or now
        if self.received is None:
            self.received = name
            if self._announce:
                # Not print: a handler may interrupt another print in the middle.
                os.write(2, f"{name}: finishing this step, then saving (Ctrl-C again stops at once)\n".encode())


def leave_signals_to_the_trainer(worker_id=0):
    """For processes that load data: a signal to the whole group must not take the loaders from a step that goes on."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
