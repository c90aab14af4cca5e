"""Each metric grows with the damage that it is named for, and the figures of regions say where the damage is."""

from itertools import pairwise

import pytest
import torch
from drawn_mattes import clip_of, disc, painted

from wan_alpha.metrics.reference_meter import ReferenceMeter

NUM_FRAMES = 4


@pytest.fixture(scope="module")
def alpha():
    """A disc that moves, with a semi-transparent one beside it."""
    frames = [torch.maximum(disc(center=(32, 26 + index)), 0.5 * disc(center=(32, 62))) for index in range(NUM_FRAMES)]
    return clip_of(*frames)


def figures(pred, alpha, pred_rgb=None):
    meter, rgb = ReferenceMeter(), painted(alpha)
    meter.update(rgb if pred_rgb is None else pred_rgb, pred, rgb, alpha)
    return meter.means()


def blurred(alpha, radius):
    """Box-blurred frames; the rim is repeated."""
    padded = torch.nn.functional.pad(alpha[:, 0], (radius,) * 4, mode="replicate")
    return torch.nn.functional.avg_pool2d(padded, 2 * radius + 1, stride=1)[:, None]


def shaken(alpha, pixels):
    return torch.stack([frame.roll(pixels * (-1) ** index, -1) for index, frame in enumerate(alpha.unbind(2))], 2)


def with_island(alpha, size):
    pred = alpha.clone()
    pred[..., 2 : 2 + size, 2 : 2 + size] = 1
    return pred


def offset(alpha, amount):
    return (alpha - amount).clamp(0, 1)


def grown(damage, alpha, amounts, *path):
    found = []
    for amount in amounts:
        value = figures(damage(alpha, amount), alpha)
        for name in path:
            value = value[name]
        found.append(value.item())
    return all(low < high for low, high in pairwise(found))


@pytest.mark.parametrize(
    ("damage", "amounts", "name"),
    [
        (blurred, (1, 2, 4), "alpha_grad"),
        (with_island, (3, 6, 9), "alpha_conn"),
        (shaken, (1, 2, 4), "alpha_dtssd"),
        (shaken, (1, 2, 4), "alpha_mad"),
        (offset, (0.05, 0.1, 0.3), "alpha_mad"),
        (offset, (0.05, 0.1, 0.3), "alpha_mse"),
        (offset, (0.05, 0.1, 0.3), "alpha_sad"),
    ],
)
def test_a_metric_grows_with_its_damage(damage, amounts, name, alpha):
    assert grown(damage, alpha, amounts, "frame", "mean", name)


@pytest.mark.parametrize(("damage", "amounts"), [(blurred, (4, 2, 1)), (offset, (0.3, 0.1, 0.05))])
@pytest.mark.parametrize("path", [("alpha", "psnr"), ("alpha", "ssim"), ("composite", "grey", "psnr")])
def test_quality_falls_with_damage(damage, amounts, path, alpha):
    assert grown(damage, alpha, amounts, "frame", *path)


def test_messddt_sees_an_error_that_comes_and_goes(alpha):
    flashes = [alpha * torch.tensor([1.0, 1 - amount] * 2).view(-1, 1, 1) for amount in (0.1, 0.2, 0.4)]
    found = [figures(pred, alpha)["frame"]["mean"]["alpha_messddt"].item() for pred in flashes]
    assert found[0] < found[1] < found[2]
    assert figures(0.6 * alpha, alpha)["frame"]["mean"]["alpha_messddt"] < 0.1 * found[2], "steady, but for the motion"


def test_each_metric_tells_its_damage_from_a_faint_veil(alpha):
    """At equal MAD: what a matte that is a little too thin everywhere hardly shows, its own damage shows."""
    veil, blur, island, jitter = (
        {name: (value / of_mean["alpha_mad"]).item() for name, value in of_mean.items()}
        for of_mean in (
            figures(pred, alpha)["frame"]["mean"]
            for pred in (offset(alpha, 0.1), blurred(alpha, 3), with_island(alpha, 8), shaken(alpha, 2))
        )
    )
    assert blur["alpha_grad"] > 3 * veil["alpha_grad"]
    assert island["alpha_conn"] > 3 * veil["alpha_conn"]
    assert jitter["alpha_dtssd"] > 3 * max(veil["alpha_dtssd"], blur["alpha_dtssd"], island["alpha_dtssd"])


def test_a_softened_edge_counts_in_the_edge_band(alpha):
    found = figures(blurred(alpha, 1), alpha)
    assert found["edge"]["mean"]["alpha_mad"] > 2 * found["frame"]["mean"]["alpha_mad"]
    assert found["opaque"]["mean"]["alpha_mad"] < found["edge"]["mean"]["alpha_mad"]


def test_wrong_colour_counts_for_the_foreground_and_composites_only(alpha):
    wrong = painted(alpha, (0.2, 0.4, 0.8))
    found = figures(alpha, alpha, wrong)
    for of_region in found.values():
        assert of_region["mean"]["alpha_mad"] == 0
        assert of_region["mean"]["foreground_mad"].item() == pytest.approx(1e3 * 0.4, rel=1e-5)
        assert of_region["composite"]["cyan"]["psnr"] < 20
