"""One process of a job that meets."""

import os
import time
from pathlib import Path

from wan_alpha.errors import DataError, WanAlphaError
from wan_alpha.training.meeting import Meeting


def main(folder, what):
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    log = Path(folder) / f"log.{rank}"
    with Meeting(Path(folder) / "meeting", rank, world_size) as meeting:
        if what == "fails" and rank == 1:
            raise DataError("row 7 (x.mp4): damaged")
        if rank == 1:
            time.sleep(1.0)
            log.write_text("share")
        meeting.tell("share")
        try:
            meeting.wait_for("share")
        except WanAlphaError as error:
            log.write_text(f"{error}")
            return
        if rank == 0:
            log.write_text((Path(folder) / "log.1").read_text())


def run(rank, folder, what):
    """Be one of two processes in a folder, and write down what it was told; what: "works" or "fails"."""
    os.environ.update(RANK=str(rank), WORLD_SIZE="2")
    try:
        main(folder, what)
    except DataError as error:
        Path(folder, f"log.{rank}").write_text(f"{error}")
