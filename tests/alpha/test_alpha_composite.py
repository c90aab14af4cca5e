import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from wan_alpha.alpha.composite import (
    BACKGROUND_COLOR_NAMES,
    BACKGROUND_COLORS,
    as_background,
    background_color,
    checkerboard,
    hard_render,
    over,
    soft_render,
)
from wan_alpha.alpha.ranges import model_to_unit
from wan_alpha.errors import ConfigError


@pytest.fixture
def clip():
    generator = torch.Generator().manual_seed(0)
    rgb = torch.rand(2, 3, 5, 8, 8, generator=generator) * 2 - 1
    alpha = torch.rand(2, 1, 5, 8, 8, generator=generator)
    alpha[:, :, :, :3] = 0
    alpha[:, :, :, 5:] = 1
    return rgb, alpha


def test_colors_are_the_eight_corners_in_order():
    assert BACKGROUND_COLORS.shape == (8, 3) and BACKGROUND_COLORS.dtype == torch.float32
    named = dict(zip(BACKGROUND_COLOR_NAMES, BACKGROUND_COLORS.tolist(), strict=True))
    assert list(named) == ["black", "blue", "green", "cyan", "red", "magenta", "yellow", "white"]
    assert named["blue"] == [-1, -1, 1] and named["magenta"] == [1, -1, 1] and named["yellow"] == [1, 1, -1]
    assert background_color("cyan") == (-1, 1, 1) and background_color("grey") == (0, 0, 0)
    with pytest.raises(ConfigError, match="'pink' is unknown: choose one of black, blue"):
        background_color("pink")


@pytest.mark.parametrize(("render", "name"), [(hard_render, "hard"), (soft_render, "soft")])
def test_renders_equal_the_reference(reference_dir, render, name):
    path = reference_dir / "rgba_vae_io.safetensors"
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        background = BACKGROUND_COLORS[int(file.metadata()[f"{name}_color"])]
    rendered = render(tensors["rgb"], model_to_unit(tensors["alpha"][:, :1]), background)
    torch.testing.assert_close(rendered, tensors[name], atol=1e-6, rtol=0)


def test_every_form_of_background_gives_the_same_composite(clip):
    rgb, alpha = clip
    color = (0.5, -0.25, 1.0)
    expected = over(rgb, alpha, color)
    forms = [
        torch.tensor(color),
        torch.tensor(color, dtype=torch.float64),
        torch.tensor([color, color]),
        torch.tensor(color).view(1, 3, 1, 1, 1),
        torch.tensor(color).view(1, 3, 1, 1, 1).expand_as(rgb),
    ]
    for form in forms:
        assert torch.equal(over(rgb, alpha, form), expected)


def test_per_sample_backgrounds(clip):
    rgb, alpha = clip
    both = over(rgb, alpha, BACKGROUND_COLORS[[4, 7]])
    for sample, color in enumerate((4, 7)):
        own = slice(sample, sample + 1)
        assert torch.equal(both[own], over(rgb[own], alpha[own], BACKGROUND_COLORS[color]))


def test_opaque_shows_foreground_and_clear_shows_background(clip):
    rgb, alpha = clip
    for render in (over, soft_render, hard_render):
        result = render(rgb, alpha, (1.0, -1.0, 0.5))
        torch.testing.assert_close(result[..., 5:, :], rgb[..., 5:, :])
        assert (result[..., :3, :] == torch.tensor([1.0, -1.0, 0.5]).view(3, 1, 1, 1)).all()


def test_hard_threshold_is_the_largest_clear_alpha(clip):
    rgb, _ = clip
    alpha = torch.full((2, 1, 5, 8, 8), 3 / 255)
    background = (0.1, 0.2, 0.3)
    assert torch.equal(hard_render(rgb, alpha, background), rgb)
    covered = hard_render(rgb, alpha, background, threshold=3 / 255)
    assert torch.equal(covered, as_background(background, rgb).expand_as(rgb))


def test_three_channel_alpha_renders_channel_by_channel(clip):
    rgb, alpha = clip
    three = torch.cat([alpha, alpha * 0.5, torch.zeros_like(alpha)], dim=1)
    for render in (soft_render, hard_render):
        result = render(rgb, three, (1.0, 1.0, 1.0))
        for channel in range(3):
            alone = render(rgb, three[:, channel : channel + 1], (1.0, 1.0, 1.0))
            assert torch.equal(result[:, channel], alone[:, channel])


@pytest.mark.parametrize(
    ("rgb_shape", "alpha_shape", "background", "message"),
    [
        ((1, 3, 1, 4, 4), (1, 1, 1, 4, 5), (0, 0, 0), "do not belong together"),
        ((1, 3, 1, 4, 4), (1, 2, 1, 4, 4), (0, 0, 0), "do not belong together"),
        ((1, 3, 4, 4), (1, 1, 4, 4), (0, 0, 0), "do not belong together"),
        ((2, 3, 1, 4, 4), (2, 1, 1, 4, 4), torch.zeros(3, 3), "does not fit a clip of shape"),
        ((1, 3, 1, 4, 4), (1, 1, 1, 4, 4), (0, 0), "does not fit a clip of shape"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(rgb_shape, alpha_shape, background, message):
    with pytest.raises(ConfigError, match=message):
        over(torch.zeros(rgb_shape), torch.zeros(alpha_shape), background)


def test_checkerboard():
    board = checkerboard(40, 36, square=16)
    assert board.shape == (3, 40, 36) and board.unique().numel() == 2
    assert torch.equal(board[0], board[2]) and board.abs().max() <= 1
    assert board[0, 0, 0] == board[0, 15, 15] == board[0, 16, 16] == board[0, 33, 33]
    assert board[0, 0, 16] == board[0, 16, 0] < board[0, 0, 0]
