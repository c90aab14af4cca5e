"""What changed from one frame to the next: animations store only that."""

import numpy as np


def changed_box(previous: np.ndarray | None, frame: np.ndarray, grid: int = 1) -> tuple[int, int, int, int]:
    """The smallest box that holds every pixel that differs, in any channel.

    Args:
        previous: (H, W, C), or None for the first frame, all of which is new.
        frame: (H, W, C).
        grid: left and top are multiples of it.

    Returns:
        (top, bottom, left, right), half open; one pixel where nothing changed, for a frame cannot be empty.
    """
    height, width = frame.shape[:2]
    if previous is None:
        return 0, height, 0, width
    # Comparing bytes row by row, then only within the rows that differ, is cheaper than channel by channel.
    rows = np.flatnonzero((previous != frame).reshape(height, -1).any(axis=1))
    if len(rows) == 0:
        return 0, 1, 0, 1
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero((previous[top:bottom] != frame[top:bottom]).any(axis=(0, 2)))
    left, right = int(columns[0]), int(columns[-1]) + 1
    return top // grid * grid, bottom, left // grid * grid, right
