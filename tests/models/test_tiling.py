"""Tiles cover the frame and blend to what they were cut from."""

import pytest
import torch

from wan_alpha.errors import ConfigError
from wan_alpha.models.tiling import TileBlender, Tiling, scaled, tile_windows


@pytest.mark.parametrize(("height", "width"), [(12, 16), (8, 8), (5, 33), (9, 8)])
@pytest.mark.parametrize("tiling", [Tiling(64, 32), Tiling(64, 0), Tiling(64, 8)])
def test_tiles_of_a_picture_blend_back_to_it(height, width, tiling):
    picture = torch.randn(1, 2, 3, height, width, generator=torch.Generator().manual_seed(0))
    blender = TileBlender(height, width, tiling.overlap // 8)
    for rows, columns in tile_windows(height, width, tiling):
        assert rows.stop - rows.start <= 8 and columns.stop - columns.start <= 8
        blender.add(picture[..., rows, columns], rows, columns)
    torch.testing.assert_close(blender.result(), picture)


def test_the_seam_is_a_ramp_between_two_tiles():
    blender = TileBlender(1, 12, overlap=4)
    blender.add(torch.zeros(1, 1, 1, 1, 8), slice(0, 1), slice(0, 8))
    blender.add(torch.ones(1, 1, 1, 1, 8), slice(0, 1), slice(4, 12))
    seam = blender.result().flatten()
    assert seam[:4].eq(0).all() and seam[8:].eq(1).all()
    torch.testing.assert_close(seam[4:8], torch.tensor([0.2, 0.4, 0.6, 0.8]))


def test_windows_scale():
    assert scaled(slice(2, 5), 8) == slice(16, 40)


def test_blending_is_done_in_float32():
    """Ten equal tiles over one place: in bfloat16 their sum, and so their mean, would be off."""
    picture = torch.full((1, 1, 1, 4, 4), 1.4140625, dtype=torch.bfloat16)
    blender = TileBlender(4, 4, overlap=0)
    for _ in range(10):
        blender.add(picture, slice(0, 4), slice(0, 4))
    assert torch.equal(blender.result(), picture)


@pytest.mark.parametrize(
    ("size", "overlap", "message"),
    [
        (100, 48, "tile size 100 must be a multiple .* 8 pixels; the nearest is 96"),
        (0, 0, "tile size 0 must .* the nearest is 8"),
        (128, 13, "tile overlap 13 must .* the nearest is 16"),
        (128, -8, "tile overlap -8 must .* the nearest is 0"),
    ],
)
def test_sizes_off_the_grid_are_refused(size, overlap, message):
    with pytest.raises(ConfigError, match=message):
        Tiling(size=size, overlap=overlap)


def test_an_overlap_wider_than_half_a_tile_is_refused():
    with pytest.raises(ConfigError, match="overlap 48"):
        Tiling(size=64, overlap=48)
