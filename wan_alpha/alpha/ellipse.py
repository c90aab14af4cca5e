"""One ellipse: fitted to a coverage map of latent cells, drawn as a polygon, read as a Gaussian.

Coordinates are cells: x to the right, y down, a cell's centre on the integers.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

MIN_HALF_AXIS = 1.0
MIN_POINTS_FOR_PCA = 5


@dataclass(frozen=True)
class Ellipse:
    """Centre and half axes in cells; `angle` in degrees turns the major axis from x (right) towards y (down)."""

    center_x: float
    center_y: float
    half_major: float
    half_minor: float
    angle: float

    def scaled(self, factor: float) -> "Ellipse":
        return replace(self, half_major=self.half_major * factor, half_minor=self.half_minor * factor)


def _cells_above(coverage: np.ndarray, threshold: float) -> np.ndarray:
    ys, xs = np.nonzero(coverage > threshold)
    return np.stack([xs, ys], axis=1).astype(np.float64)


def _principal_axes(points: np.ndarray) -> np.ndarray:
    """Unit vectors in columns, the direction of largest variance first."""
    return np.linalg.eigh(np.cov(points, rowvar=False))[1][:, ::-1]


def fit_ellipse(
    coverage: np.ndarray, shape_threshold: float = 0.2, orientation_threshold: float = 0.9
) -> Ellipse | None:
    """Fit by principal components: centre and extent from the covered cells, direction from the solid ones.

    Args:
        coverage: (h, w), share of each cell that the subject covers, [0, 1].
        shape_threshold: cells above it make the centre (their mean) and the half axes (half their extent along
            each principal axis, at least 1 cell). Fewer than five of them: their bounding box.
        orientation_threshold: cells above it make the direction; fewer than five: the shape's own.

    Returns:
        The ellipse, or None where no cell is above `shape_threshold`.
    """
    points = _cells_above(coverage, shape_threshold)
    if len(points) == 0:
        return None
    if len(points) < MIN_POINTS_FOR_PCA:
        low, high = points.min(axis=0), points.max(axis=0)
        half_x, half_y = np.maximum((high - low) / 2, MIN_HALF_AXIS)
        center_x, center_y = (low + high) / 2
        return Ellipse(float(center_x), float(center_y), float(half_x), float(half_y), 0.0)
    center = points.mean(axis=0)
    axes = _principal_axes(points)
    half_major, half_minor = np.maximum(np.ptp((points - center) @ axes, axis=0) / 2, MIN_HALF_AXIS)
    solid = _cells_above(coverage, orientation_threshold)
    direction = (_principal_axes(solid) if len(solid) >= MIN_POINTS_FOR_PCA else axes)[:, 0]
    angle = math.degrees(math.atan2(direction[1], direction[0]))
    return Ellipse(float(center[0]), float(center[1]), float(half_major), float(half_minor), angle)


def _polygon(ellipse: Ellipse) -> np.ndarray:
    """Corners (n, 2) of the polygon that stands for an ellipse: the smaller the ellipse, the fewer the corners."""
    size = max(ellipse.half_major, ellipse.half_minor)
    step = 90 if size < 3 else 30 if size < 10 else 18 if size < 15 else 5
    turn, theta = np.radians(ellipse.angle), np.radians(np.arange(0, 360, step))
    u, v = ellipse.half_major * np.cos(theta), ellipse.half_minor * np.sin(theta)
    x = ellipse.center_x + u * np.cos(turn) - v * np.sin(turn)
    y = ellipse.center_y + u * np.sin(turn) + v * np.cos(turn)
    return np.stack([x, y], axis=1)


def _row_spans(polygon: np.ndarray, num_rows: int, num_columns: int) -> np.ndarray:
    """Cells between the polygon's left and right end on each row, corners moved to the nearest row, (h, w) bool."""
    corner_x, corner_row = polygon[:, 0], np.floor(polygon[:, 1] + 0.5)
    next_x, next_row = np.roll(corner_x, -1), np.roll(corner_row, -1)
    rows, columns = np.arange(num_rows)[:, None], np.arange(num_columns)
    crosses = (np.minimum(corner_row, next_row) <= rows) & (rows <= np.maximum(corner_row, next_row))
    rise = np.where(next_row == corner_row, 1, next_row - corner_row)
    crossing = corner_x + (rows - corner_row) / rise * (next_x - corner_x)
    left = np.where(crosses, crossing, np.inf).min(axis=1, keepdims=True)
    right = np.where(crosses, crossing, -np.inf).max(axis=1, keepdims=True)
    return (columns >= np.floor(left + 0.5)) & (columns <= np.floor(right + 0.5))


def rasterize_ellipse(ellipse: Ellipse, height: int, width: int) -> np.ndarray:
    """Cells that a filled ellipse covers when it is drawn with whole numbers only, (h, w) bool.

    Centre, half axes (at least 1) and angle are rounded and the outline is a polygon, as raster drawing libraries do
    it: on a coarse grid this decides which cells count as covered. The release draws with OpenCV, whose own roundings
    now and then include a cell more or less on the outline.
    """
    drawn = Ellipse(
        center_x=min(max(round(ellipse.center_x), 0), width - 1),
        center_y=min(max(round(ellipse.center_y), 0), height - 1),
        half_major=max(round(ellipse.half_major), 1),
        half_minor=max(round(ellipse.half_minor), 1),
        angle=round(ellipse.angle),
    )
    polygon = _polygon(drawn)
    return _row_spans(polygon, height, width) | _row_spans(polygon[:, ::-1], width, height).T


def enlarge_to_cover(
    ellipse: Ellipse, cells: np.ndarray, share: float = 0.98, step: float = 1.12, max_tries: int = 8
) -> Ellipse:
    """The first of ellipse, ellipse*step, ellipse*step^2, ... that covers `share` of the cells; else the best seen.

    Args:
        ellipse: where to start.
        cells: (h, w) bool, at least one True.
        share: wanted share of the cells, [0, 1].
        step: factor between two tries.
        max_tries: how many sizes are tried, the first included.
    """
    best, best_cover = ellipse, 0.0
    for exponent in range(max_tries):
        candidate = ellipse.scaled(step**exponent)
        cover = float(rasterize_ellipse(candidate, *cells.shape)[cells].mean())
        if cover > best_cover:
            best, best_cover = candidate, cover
        if cover >= share:
            break
    return best


def gaussian(ellipse: Ellipse, height: int, width: int) -> np.ndarray:
    """A Gaussian with the half axes as standard deviations, stretched to span [0, 1] over the frame, (h, w) float64.

        g = exp(-(u^2/half_major^2 + v^2/half_minor^2) / 2),    G = (g - min g) / (max g - min g)

    with u, v the coordinates along the axes. All zeros where g is the same everywhere.
    """
    y, x = np.mgrid[0:height, 0:width]
    x, y = x - ellipse.center_x, y - ellipse.center_y
    cos, sin = math.cos(math.radians(ellipse.angle)), math.sin(math.radians(ellipse.angle))
    u, v = x * cos + y * sin, y * cos - x * sin
    values = np.exp(np.maximum(-0.5 * ((u / ellipse.half_major) ** 2 + (v / ellipse.half_minor) ** 2), -50.0))
    spread = values.max() - values.min()
    return (values - values.min()) / spread if spread >= 1e-9 else np.zeros_like(values)
