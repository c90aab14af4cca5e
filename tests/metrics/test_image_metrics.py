import json
import math

import pytest
import torch
from safetensors.torch import load_file

from wan_alpha.errors import ConfigError, DataError
from wan_alpha.metrics.composite import composite_quality
from wan_alpha.metrics.coverage import Coverage, coverage
from wan_alpha.metrics.mae import mae_255, mae_verdict
from wan_alpha.metrics.psnr import psnr
from wan_alpha.metrics.ssim import ssim, ssim_per_frame


@pytest.fixture
def clips(reference_dir):
    tensors = load_file(reference_dir / "metrics_io.safetensors")
    mattes = [tensors[name][None, None] for name in ("pred_alpha", "alpha")]
    return *mattes, *(tensors[name].permute(3, 0, 1, 2)[None] for name in ("pred_foreground", "foreground"))


@pytest.fixture
def reference(reference_dir):
    return json.loads((reference_dir / "metrics.json").read_text())


def test_composites_equal_the_reference(clips, reference):
    pred_alpha, alpha, pred_rgb, rgb = clips
    qualities = composite_quality(pred_rgb, pred_alpha, rgb, alpha)
    assert len(qualities) == 9 and set(reference["composite"]) < set(qualities)
    for name, expected in reference["composite"].items():
        quality = vars(qualities[name])
        assert quality.pop("lpips") is None
        assert quality == pytest.approx(expected, rel=1e-4)


def test_alpha_quality_equals_the_reference(clips, reference):
    pred_alpha, alpha, _, _ = clips
    assert psnr(pred_alpha, alpha) == pytest.approx(reference["alpha"]["psnr"], rel=1e-4)
    assert ssim(pred_alpha, alpha) == pytest.approx(reference["alpha"]["ssim"], rel=1e-4)


def test_colour_under_clear_alpha_is_not_seen(clips):
    _, alpha, _, rgb = clips
    clear = torch.zeros_like(alpha)
    quality = composite_quality(1 - rgb, clear, rgb, clear, backgrounds=("green",))["green"]
    assert quality.psnr == math.inf and quality.ssim == pytest.approx(1)
    with pytest.raises(ConfigError, match="'plaid' is unknown"):
        composite_quality(rgb, alpha, rgb, alpha, backgrounds=("plaid",))


def test_psnr_by_hand():
    black = torch.zeros(1, 3, 2, 4, 4)
    assert psnr(black + 0.1, black) == pytest.approx(20)
    assert psnr(black, black) == math.inf
    only_one_frame = black.clone()
    only_one_frame[:, :, 0] = 0.1
    assert psnr(only_one_frame, black) == pytest.approx(20 + 10 * math.log10(2))


def test_ssim_of_flat_frames_is_the_luminance_term():
    dark, light = torch.full((1, 1, 1, 12, 12), 0.2), torch.full((1, 1, 1, 12, 12), 0.6)
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert ssim(dark, light) == pytest.approx(expected, rel=1e-5)


def test_ssim_is_symmetric_and_per_frame():
    generator = torch.Generator().manual_seed(0)
    p, q = torch.rand(2, 2, 3, 4, 16, 13, generator=generator)
    values = ssim_per_frame(p, q)
    assert values.shape == (2, 4)
    torch.testing.assert_close(values, ssim_per_frame(q, p))
    torch.testing.assert_close(values[1, 2], ssim_per_frame(p[1:, :, 2:3], q[1:, :, 2:3])[0, 0])
    assert ssim(p, p) == pytest.approx(1) and values.max() < 0.5


def test_ssim_needs_room_for_its_window():
    with pytest.raises(DataError, match="at least 11x11 pixels, got 20x10"):
        ssim(torch.zeros(1, 1, 1, 10, 20), torch.zeros(1, 1, 1, 10, 20))


@pytest.mark.parametrize("metric", [psnr, ssim, mae_255])
def test_shapes_must_agree(metric):
    with pytest.raises(DataError, match="cannot compare clips"):
        metric(torch.zeros(1, 3, 1, 16, 16), torch.zeros(1, 3, 2, 16, 16))


def test_coverage_counts_pixels():
    alpha = torch.tensor([0.0, 3 / 255, 5 / 255, 0.5, 250 / 255, 252 / 255, 1.0, 1.0])
    assert coverage(alpha) == Coverage(clear=0.25, semi_transparent=0.375, opaque=0.375)
    assert coverage(alpha, tolerance=0.0) == Coverage(clear=0.125, semi_transparent=0.625, opaque=0.25)


def test_coverage_adds_up_to_one():
    shares = coverage(torch.rand(1, 1, 3, 17, 19), tolerance=0.2)
    assert shares.clear + shares.semi_transparent + shares.opaque == pytest.approx(1)
    assert min(shares.clear, shares.semi_transparent, shares.opaque) > 0.1


def test_mae_is_in_levels():
    black = torch.zeros(1, 3, 1, 4, 4)
    assert mae_255(black + 10 / 255, black) == pytest.approx(10)


@pytest.mark.parametrize(
    ("stream", "mae", "verdict"),
    [
        ("rgb", 9.99, "excellent"),
        ("rgb", 10.0, "good"),
        ("rgb", 19.9, "good"),
        ("rgb", 20.0, "poor"),
        ("alpha", 4.99, "excellent"),
        ("alpha", 5.0, "good"),
        ("alpha", 14.9, "good"),
        ("alpha", 15.0, "poor"),
    ],
)
def test_verdicts(stream, mae, verdict):
    assert mae_verdict(stream, mae) == verdict
