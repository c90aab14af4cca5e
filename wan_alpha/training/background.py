"""Work beside the training, one piece at a time."""

import threading
from concurrent.futures import ThreadPoolExecutor


class BackgroundTask:
    """A thread for one task at a time. Its error is raised by the next call that waits for it; leaving joins it.

    Attributes:
        is_cancelled: for the task to ask; True after :meth:`cancel`.
    """

    def __init__(self):
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._future = None
        self._cancelled = threading.Event()
        self.is_cancelled = self._cancelled.is_set

    def start(self, function, *arguments, **options):
        """Run ``function`` in the thread, once the task before is done.

        Raises:
            the error of the task before.
        """
        self.wait()
        self._future = self._executor.submit(function, *arguments, **options)

    def wait(self):
        """Wait for the task that is running; returns its result, None if there is none.

        Raises:
            its error, once.
        """
        future, self._future = self._future, None
        return None if future is None else future.result()

    def is_running(self):
        """Whether a task is there that has not ended."""
        return self._future is not None and not self._future.done()

    def has_failed(self):
        """Whether the task has ended in an error that nobody has been told yet; does not wait."""
        return self._future is not None and self._future.done() and self._future.exception() is not None

    def cancel(self):
        """Ask the task to give up; it says so by an error of its own, which nobody waits for."""
        self._cancelled.set()

    def close(self):
        """Wait for the task without asking how it ended.

        Returns:
            its error, None if there is none.
        """
        future, self._future = self._future, None
        self._executor.shutdown(wait=True)
        return None if future is None else future.exception()
