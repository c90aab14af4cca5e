"""Figures without a reference: each grows with the fault it is named for, and keeps still at others."""

import math

import pytest
import torch
from drawn_mattes import clip_of, disc, painted

from wan_alpha.errors import DataError
from wan_alpha.metrics import region_sums
from wan_alpha.metrics.colour_fringe import BACKGROUNDS
from wan_alpha.metrics.transparency import FIGURES, TransparencyMeter


def measured(rgb, alpha, *lengths):
    meter, start = TransparencyMeter(), 0
    for length in lengths or (alpha.shape[2],):
        meter.update(rgb[:, :, start : start + length], alpha[:, :, start : start + length])
        start += length
    return meter


def figures(alpha, rgb=None):
    return measured(painted(alpha) if rgb is None else rgb, alpha).means()[0]


@pytest.fixture
def still():
    return clip_of(*[disc()] * 5)


def test_a_good_clip(still):
    found = figures(still)
    assert found["clear"] + found["semi_transparent"] + found["opaque"] == pytest.approx(1)
    assert (found["border_clear"], found["border_stays_clear"], found["collapse"]) == (1, True, None)
    assert found["flicker"] == 0 and found["fringe_background"] is None
    assert found["colour_fringe"] == pytest.approx(0, abs=1e-4)


def test_chunks_do_not_matter():
    generator = torch.Generator().manual_seed(0)
    rgb, alpha = torch.rand(1, 3, 7, 24, 30, generator=generator), torch.rand(1, 1, 7, 24, 30, generator=generator)
    rgb = 0.5 + 0.1 * rgb  # still enough for flicker to count
    whole, chunked = measured(rgb, alpha), measured(rgb, alpha, 1, 1, 3, 2)
    for name in FIGURES:
        torch.testing.assert_close(whole.per_frame()[name], chunked.per_frame()[name], equal_nan=True)
    found, expected = whole.means()[0], chunked.means()[0]
    assert found == pytest.approx(expected) and found["flicker"] > 0


def test_parts_do_not_matter(still, monkeypatch):
    expected = figures(still)
    monkeypatch.setattr(region_sums, "CPU_PIXELS", 1)
    assert figures(still) == pytest.approx(expected)


def test_samples_of_a_batch_do_not_mix(still):
    moving = clip_of(*(disc(center=(32, 30 + 3 * index)) for index in range(5)))
    both = torch.cat([still, moving])
    rgb = torch.cat([painted(still), painted(moving, (0.1, 0.2, 0.9))])
    found = measured(rgb, both).means()
    expected = [figures(still), figures(moving, rgb[1:])]
    assert [one == pytest.approx(other, abs=1e-9) for one, other in zip(found, expected, strict=True)] == [True, True]


@pytest.mark.parametrize("softness", [4, 7, 12])
def test_edge_width_is_in_pixels(softness):
    assert figures(clip_of(disc(softness=softness)))["edge_width"] == pytest.approx(softness, rel=0.1)


def test_a_hard_edge_is_a_pixel_wide():
    step = torch.zeros(20, 30)
    step[:, 12:] = 1
    assert figures(clip_of(step))["edge_width"] == figures(clip_of(step.T))["edge_width"] == 1
    assert 1 < figures(clip_of(disc(softness=0.01)))["edge_width"] < 1.8
    assert math.isnan(figures(torch.ones(1, 1, 2, 20, 30))["edge_width"])


def test_flicker_grows_with_jitter_and_not_with_motion(still):
    columns = torch.arange(80.0).expand(64, 80)
    passing = clip_of(*((columns < 10 + 9 * index).float() for index in range(5)))
    assert figures(passing)["flicker"] == 0
    moving = clip_of(*(disc(center=(32, 28 + 5 * index), softness=1) for index in range(5)))
    assert figures(moving)["flicker"] < 3  # the disc's rim above and below comes and goes
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(still.shape, generator=generator)
    amounts = [figures((still + sigma * noise * (still > 0)).clamp(0, 1))["flicker"] for sigma in (0.02, 0.05, 0.1)]
    assert 3 < amounts[0] < amounts[1] < amounts[2]


def test_an_edge_that_comes_and_goes_is_flicker(still):
    pulsing = still.clone()
    pulsing[:, :, 1::2] *= 0.8
    # 0.2 of alpha, at most, in the three inner frames of the visible pixels
    assert 150 < figures(pulsing)["flicker"] <= 200.1


def test_what_moves_does_not_flicker(still):
    """Colour that changes in the middle of the subject says that something moves there."""
    pulsing = still.clone()
    pulsing[:, :, 1::2] *= 0.8
    rgb = torch.rand(painted(still).shape, generator=torch.Generator().manual_seed(0))
    assert math.isnan(figures(pulsing, rgb)["flicker"]), "nothing stands still"
    rgb[..., :40] = 0.5
    assert 0 < figures(pulsing, rgb)["flicker"] < figures(pulsing)["flicker"] * 1.1


def test_a_short_clip_has_no_flicker(still):
    assert math.isnan(figures(still[:, :, :2])["flicker"])


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_fringe_finds_the_background_that_was_left(name):
    alpha = clip_of(disc(softness=8))
    color = torch.tensor([0.7, 0.35, 0.25]).view(1, 3, 1, 1, 1)
    names = ("black", "blue", "green", "cyan", "red", "magenta", "yellow", "white")
    bits = [names.index(name) >> shift & 1 for shift in (2, 1, 0)] if name != "grey" else [0.5, 0.5, 0.5]
    background = torch.tensor(bits, dtype=torch.float32).view(1, 3, 1, 1, 1)
    amounts = []
    for part in (0.0, 0.3, 1.0):
        found = figures(alpha, color + part * (1 - alpha) * (background - color))
        amounts.append(found["colour_fringe"])
        assert found["fringe_background"] == (name if part else None)
    assert amounts == pytest.approx([0, 0.3, 1], abs=0.02)


def test_colour_that_varies_is_no_fringe(still):
    generator = torch.Generator().manual_seed(0)
    rgb = (painted(still) + 0.1 * torch.randn(painted(still).shape, generator=generator)).clamp(0, 1)
    assert figures(still, rgb)["colour_fringe"] < 0.01


def test_border_counts_what_reaches_the_rim(still):
    cut = clip_of(*[disc(center=(32, 10))] * 2, *[disc()] * 2)
    found = figures(cut)
    assert 0.9 < found["border_clear"] < 1 and not found["border_stays_clear"] and found["collapse"] is None


@pytest.mark.parametrize(
    ("alpha", "name"),
    [
        (torch.ones(1, 1, 2, 64, 80), "all opaque"),
        (torch.full((1, 1, 2, 64, 80), 253 / 255), "all opaque"),
        (torch.zeros(1, 1, 2, 64, 80), "all clear"),
        (torch.full((1, 1, 2, 64, 80), 0.5), "background kept"),
        (1 - clip_of(disc()), "background kept"),
    ],
)
def test_collapsed_transparency_has_a_name(alpha, name):
    found = figures(alpha)
    assert found["collapse"] == name
    assert math.isnan(found["colour_fringe"]) == (name != "background kept" or bool((alpha == 0.5).all()))


def test_what_is_no_clip_is_refused(still):
    with pytest.raises(DataError, match="are no clip"):
        TransparencyMeter().update(painted(still)[..., 1:], still)
    with pytest.raises(DataError, match="no frames"):
        TransparencyMeter().means()
