"""One process of a job that meets. Arguments: folder, and what happens."""

import os
import sys
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


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except DataError as error:
        Path(sys.argv[1], f"log.{os.environ['RANK']}").write_text(f"{error}")
