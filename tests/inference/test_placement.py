"""Masks that say where the subject stands: read, resized, drawn, refused."""

import pytest
import torch
import torch.nn.functional as F

from wan_alpha.errors import CheckpointError, ConfigError
from wan_alpha.inference.placement import draw_placement, read_placement

GRID = (5, 12, 20)


def test_a_mask_file_on_the_grid_comes_back_and_another_is_resized(tmp_path):
    mask = torch.rand(5, 24, 40)
    torch.save(mask, tmp_path / "mask.pt")
    assert torch.equal(read_placement(tmp_path / "mask.pt", (5, 24, 40)), mask)
    found = read_placement(tmp_path / "mask.pt", GRID)
    assert found.shape == GRID
    assert torch.allclose(found, F.interpolate(mask[None], GRID[1:], mode="bilinear")[0], atol=1e-6)
    assert read_placement(tmp_path / "mask.pt", (3, 12, 20)).shape == (3, 12, 20)
    torch.save(mask[None, None].double(), tmp_path / "wrapped.pt")
    assert torch.allclose(read_placement(tmp_path / "wrapped.pt", (5, 24, 40)), mask)


def peak(frame):
    row, column = divmod(int(frame.argmax()), frame.shape[1])
    return row, column


def test_a_drawn_ellipse_stands_or_moves():
    still = read_placement("ellipse:0.25,0.5,0.1,0.2", GRID)
    assert still.shape == GRID and still.min() == 0 and still.max() == 1
    assert all(torch.equal(frame, still[0]) for frame in still)
    assert abs(peak(still[0])[0] - 5.5) <= 0.5 and abs(peak(still[0])[1] - 4.5) <= 0.5
    moving = draw_placement(GRID, 0.25, 0.5, 0.1, 0.2, 0.5, 0.0)
    columns = [peak(frame)[1] for frame in moving]
    assert columns == sorted(columns) and columns[-1] - columns[0] == 10
    # Shares of width and height: half the height is reached at rx/ry apart in cells.
    assert still[0, 5, 4 + 2] == pytest.approx(float(still[0, 5 - 2, 4]), abs=0.2)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (torch.rand(4, 4), CheckpointError, "latent frames x height x width"),
        (torch.ones(2, 4, 4, dtype=torch.uint8), CheckpointError, "expected a float tensor"),
        (torch.full((2, 4, 4), 2.0), CheckpointError, r"expected values in \[0, 1\], found 2 to 2"),
        ({"mask": torch.ones(1)}, CheckpointError, "expected one tensor"),
        ("ellipse:0.5,0.5,big,0.2", ConfigError, "expected numbers"),
        ("ellipse:0.5,0.5,0.2", ConfigError, "ellipse:cx,cy,rx,ry"),
        ("ellipse:0.5,0.5,0,0.2", ConfigError, "rx, ry above 0"),
    ],
)
def test_what_is_no_mask_is_refused(content, error, message, tmp_path):
    source = content
    if not isinstance(content, str):
        source = tmp_path / "mask.pt"
        torch.save(content, source)
    with pytest.raises(error, match=message):
        read_placement(source, GRID)
