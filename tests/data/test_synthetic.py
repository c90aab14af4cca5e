"""Drawn clips: what the caption says is what is seen."""

import pytest
import torch

from wan_alpha.data.synthetic import (
    COLORS,
    MOTIONS,
    OPACITIES,
    SHAPES,
    SIZES,
    ShapeClip,
    draw_shape_clip,
    random_shape_clip,
)


def draw(num_frames=9, pixels=48, seed=0, **attributes):
    clip = ShapeClip(
        **{"shape": "circle", "color": "red", "size": "large", "opacity": "solid", "motion": "moving right"}
        | attributes
    )
    return draw_shape_clip(clip, num_frames, pixels, pixels, torch.Generator().manual_seed(seed))


def centre_of(matte):
    """Centre of mass (x, y) of one frame (H, W) in pixels."""
    y, x = torch.meshgrid(torch.arange(matte.shape[0]), torch.arange(matte.shape[1]), indexing="ij")
    return ((x * matte).sum() / matte.sum()).item(), ((y * matte).sum() / matte.sum()).item()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("opacity", OPACITIES)
def test_alpha_is_soft_edged_and_as_opaque_as_said(shape, opacity):
    rgb, alpha = draw(shape=shape, opacity=opacity)
    assert rgb.shape == (3, 9, 48, 48) and alpha.shape == (1, 9, 48, 48)
    assert rgb.min() >= -1 and rgb.max() <= 1 and alpha.min() == 0
    assert alpha.max() == pytest.approx(OPACITIES[opacity], abs=0.02)
    edge = (alpha > 0.1 * alpha.max()) & (alpha < 0.9 * alpha.max())
    assert 0.01 < edge.float().mean() < 0.3
    border = torch.cat([alpha[..., 0, :], alpha[..., -1, :], alpha[..., 0], alpha[..., -1]], dim=-1)
    assert border.max() == 0, "the subject stays inside the frame"


@pytest.mark.parametrize(
    ("motion", "axis", "sign"),
    [("moving right", 0, 1), ("moving left", 0, -1), ("moving down", 1, 1), ("moving up", 1, -1)],
)
def test_motion_goes_where_the_caption_says(motion, axis, sign):
    _, alpha = draw(motion=motion)
    first, last = centre_of(alpha[0, 0]), centre_of(alpha[0, -1])
    assert sign * (last[axis] - first[axis]) > 5 and abs(last[1 - axis] - first[1 - axis]) < 1


def test_growing_grows_spinning_turns_and_sizes_differ():
    _, growing = draw(motion="growing")
    assert growing[0, -1].sum() > 1.5 * growing[0, 0].sum()
    _, spinning = draw(motion="spinning", shape="square")
    assert spinning[0, -1].sum() == pytest.approx(spinning[0, 0].sum().item(), rel=0.05)
    assert (spinning[0, -1] - spinning[0, 0]).abs().mean() > 0.01
    assert draw(size="large")[1].sum() > 1.5 * draw(size="small")[1].sum()


@pytest.mark.parametrize("color", COLORS)
def test_colour_is_the_named_one(color):
    rgb, alpha = draw(color=color)
    seen = ((rgb + 1) / 2)[:, alpha[0] > 0.5].mean(dim=1)
    distances = {name: (seen - torch.tensor(value)).norm().item() for name, value in COLORS.items()}
    assert min(distances, key=distances.get) == color


def test_a_seed_gives_one_clip_and_captions_name_every_attribute():
    generator = torch.Generator().manual_seed(3)
    clips = [random_shape_clip(generator) for _ in range(400)]
    assert {clip.shape for clip in clips} == set(SHAPES) and {clip.motion for clip in clips} == set(MOTIONS)
    for clip in clips[:20]:
        for attribute in (clip.shape, clip.color, clip.size, clip.opacity, clip.motion):
            assert attribute in clip.caption
    assert {clip.size for clip in clips} == set(SIZES)
    again = [draw(seed=7) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*again, strict=True))
    assert not torch.equal(draw(seed=8)[1], again[0][1])


def test_a_still_is_one_frame():
    rgb, alpha = draw(num_frames=1)
    assert rgb.shape[1] == alpha.shape[1] == 1 and alpha.max() > 0.9
