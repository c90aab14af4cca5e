"""Makes the Nth file operation of a piece of work fail. Needs no torch."""

import contextlib
import os

OPERATIONS = ("mkdir", "open", "write", "read", "fsync", "rename", "unlink", "rmdir", "listdir", "scandir")


class Faults:
    """Counts calls of ``os``, and does something at one of them.

    Args:
        number: of the call, from 1 on; happen: (name of the operation) -> None, raises or never returns.

    Attributes:
        count: calls so far.
    """

    def __init__(self, number, happen):
        self.number, self.happen, self.count = number, happen, 0

    @contextlib.contextmanager
    def injected(self):
        originals = {name: getattr(os, name) for name in OPERATIONS}
        for name, original in originals.items():
            setattr(os, name, self._counted(name, original))
        try:
            yield self
        finally:
            for name, original in originals.items():
                setattr(os, name, original)

    def _counted(self, name, original):
        def call(*args, **kwargs):
            self.count += 1
            if self.count == self.number:
                self.happen(name)
            return original(*args, **kwargs)

        return call


def contents(step, num_bytes=800, num_chunks=3):
    """Files of a checkpoint, different at every step, in chunks of so many bytes."""
    chunk = f"{step:08d}".encode() * (num_bytes // 8)
    return {name: (num_chunks * num_bytes, [chunk] * num_chunks) for name in ("model.bin", "optimizer.bin")}


def leftovers(folder):
    """Names in a folder of checkpoints that a reader should never meet."""
    return sorted(
        path.name for path in folder.iterdir() if path.name.startswith(".") or not (path / "complete.json").is_file()
    )
