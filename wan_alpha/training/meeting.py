"""Processes of one job that wait for each other through files alone.

A collective operation would time out, since shares of the work may take hours longer than one another, and the latent
cache is built without a process group. What earlier jobs left in the folder means nothing to a new one: the first
process names the job by a fresh token, in answer to a nonce that each other process wrote for this job.

    <folder>/hello.<rank>      a nonce, by each process but the first
    <folder>/job.json          the token and the nonces it answers, by the first
    <folder>/<token>/here.<rank>, <what>.<rank>, failed.<rank>
"""

import json
import shutil
import sys
import time
import uuid
from pathlib import Path

from wan_alpha.errors import WanAlphaError
from wan_alpha.weights.io import replacing

POLL_SECONDS = 0.2
SAY_AFTER_SECONDS = 10.0


class Meeting:
    """A context manager; its end in an error is told to the other processes, whose waiting then ends in an error too.

    Args:
        folder: that all processes see, theirs alone; rank, world_size: which of how many this process is.

    Raises:
        WanAlphaError: another process failed; its message is repeated.
    """

    def __init__(self, folder, rank, world_size):
        self.folder, self.rank, self.others = Path(folder), rank, [r for r in range(world_size) if r != rank]

    def __enter__(self):
        if self.others:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._room = self._open() if self.rank == 0 else self._join()
        return self

    def __exit__(self, kind, error, traceback):
        if self.others and error is not None:
            _write(self._room / f"failed.{self.rank}", f"{error}" or kind.__name__)

    def tell(self, what):
        """Let the others know that this process has come to ``what``, a word."""
        if self.others:
            (self._room / f"{what}.{self.rank}").touch()

    def wait_for(self, what, ranks=None):
        """Wait until processes have told ``what``: those of ``ranks``, all others if None."""
        missing = set(self.others if ranks is None else ranks) & set(self.others)

        def is_done():
            missing.difference_update([rank for rank in missing if (self._room / f"{what}.{rank}").exists()])
            # Whoever failed without being waited for, a third process say, will never tell anything either.
            for rank in self.others if missing else ():
                failed = self._room / f"failed.{rank}"
                if failed.exists():
                    raise WanAlphaError(f"process {rank} failed: {failed.read_text(encoding='utf-8')}")
            return not missing

        self._poll(is_done, lambda: f"{what} of {_names(missing)}")

    def _open(self):
        """The first process: name the job, answer the others' nonces until all are here."""
        # A process may still be reading the end of the last job; of those before, all have been seen to their end.
        last = json.loads(_read(self.folder / "job.json") or "{}").get("token")
        for path in self.folder.iterdir():
            if path.is_dir() and path.name != last:
                shutil.rmtree(path)
        token, answered, missing = uuid.uuid4().hex, None, set(self.others)
        room = self.folder / token
        room.mkdir()

        def is_done():
            nonlocal answered
            # A nonce may be an earlier job's, until its process of this job has replaced it: then it is answered anew.
            nonces = {str(rank): _read(self.folder / f"hello.{rank}") for rank in self.others}
            if nonces != answered:
                _write(self.folder / "job.json", json.dumps({"token": token, "nonces": nonces}))
                answered = nonces
            missing.difference_update([rank for rank in missing if (room / f"here.{rank}").exists()])
            return not missing

        self._poll(is_done, lambda: f"start of {_names(missing)}")
        return room

    def _join(self):
        """Another process: say hello, wait for the answer."""
        nonce, job = uuid.uuid4().hex, {}
        _write(self.folder / f"hello.{self.rank}", nonce)

        def is_done():
            job.update(json.loads(_read(self.folder / "job.json") or "{}"))
            return job.get("nonces", {}).get(str(self.rank)) == nonce

        self._poll(is_done, lambda: "start of process 0")
        room = self.folder / job["token"]
        (room / f"here.{self.rank}").touch()
        return room

    def _poll(self, is_done, what):
        started, said = time.monotonic(), False
        while not is_done():
            if not said and time.monotonic() - started > SAY_AFTER_SECONDS:
                print(f"process {self.rank} waits for the {what()}", file=sys.stderr)
                said = True
            time.sleep(POLL_SECONDS)


def _names(ranks):
    return f"process{'es' if len(ranks) > 1 else ''} {', '.join(map(str, sorted(ranks)))}"


def _read(path):
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _write(path, text):
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
