"""Figures added up chunk by chunk, over the frame and its regions."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from wan_alpha.errors import DataError
from wan_alpha.metrics import matting, region_sums
from wan_alpha.metrics.alpha_meter import AlphaMeter
from wan_alpha.metrics.composite import composite_quality
from wan_alpha.metrics.frame_rows import FIRST_CAPACITY, FrameRows
from wan_alpha.metrics.reference_meter import ReferenceMeter
from wan_alpha.metrics.regions import REGIONS, edge_radius, region_masks, trimap
from wan_alpha.metrics.ssim import ssim_per_frame

TOLERANCE = 1e-4


@pytest.fixture
def clips(reference_dir):
    """rgb and alpha, predicted and true."""
    tensors = load_file(reference_dir / "metrics_io.safetensors")
    mattes = [tensors[name][None, None] for name in ("pred_alpha", "alpha")]
    colors = [tensors[name].permute(3, 0, 1, 2)[None] for name in ("pred_foreground", "foreground")]
    return colors[0], mattes[0], colors[1], mattes[1]


def measured(clips, *lengths, **options):
    meter, start = ReferenceMeter(**options), 0
    for length in lengths:
        meter.update(*(clip[:, :, start : start + length] for clip in clips))
        start += length
    return meter


@pytest.mark.parametrize("lengths", [(5,), (1, 3, 1)])
def test_the_meter_equals_the_reference(reference_dir, clips, lengths):
    expected = json.loads((reference_dir / "metrics.json").read_text())
    meter = measured(clips, *lengths)
    means, per_frame = meter.means()["frame"], meter.per_frame()["frame"]["mean"]
    for name, values in expected["per_frame"].items():
        assert per_frame[name][0].tolist() == pytest.approx(values, rel=TOLERANCE)
        assert means["mean"][name].item() == pytest.approx(expected["mean"][name], rel=TOLERANCE)
    for kind in ("psnr", "ssim"):
        assert means["alpha"][kind].item() == pytest.approx(expected["alpha"][kind], rel=TOLERANCE)
        for name, values in expected["composite"].items():
            assert means["composite"][name][kind].item() == pytest.approx(values[kind], rel=TOLERANCE)


def test_the_meter_equals_the_functions(clips):
    pred_rgb, pred_alpha, rgb, alpha = clips
    figures = measured(clips, 2, 3).per_frame()["frame"]
    for name, values in matting.matting_metrics(pred_alpha, alpha, pred_rgb, rgb).items():
        torch.testing.assert_close(figures["mean"][name], values, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(figures["alpha"]["ssim"], ssim_per_frame(pred_alpha, alpha))


def test_small_parts_give_the_same_figures(clips, monkeypatch):
    whole = measured(clips, 5).means()
    monkeypatch.setattr(region_sums, "CPU_PIXELS", 1)
    torch.testing.assert_close(measured(clips, 5).means(), whole, equal_nan=True)


def test_samples_of_a_batch_do_not_mix(clips):
    both = measured([torch.cat([clip, clip.flip(2)]) for clip in clips], 5).means()
    single, flipped = measured(clips, 5).means(), measured([clip.flip(2) for clip in clips], 5).means()
    for region in ("frame", *REGIONS):
        for name, values in both[region]["mean"].items():
            expected = torch.cat([single[region]["mean"][name], flipped[region]["mean"][name]])
            torch.testing.assert_close(values, expected, equal_nan=True, rtol=1e-5, atol=1e-8)


def test_regions_partition_the_frame(clips):
    alpha = clips[3]
    mattes = alpha[:, 0].flatten(0, 1)
    frame, edge, semi, opaque = region_masks(mattes).unbind(1)
    assert frame.all() and edge.any() and opaque.any()
    clear = mattes <= 4 / 255
    assert ((clear.int() + semi.int() + opaque.int()) == 1).all()
    kinds = trimap(mattes)
    assert set(kinds.unique().tolist()) <= {0, 1, 2} and torch.equal(kinds == 1, edge)
    assert not (semi & ~edge).any(), "what is semi-transparent is unknown to a trimap"
    assert opaque[kinds == 2].all() and clear[kinds == 0].all()


def test_sums_over_a_partition_add_up(clips):
    meter = AlphaMeter()
    mattes = clips[3][:, 0].flatten(0, 1)
    kinds = torch.stack([trimap(mattes) == kind for kind in range(3)])[:, None].float()
    meter.update(clips[1], clips[3], kinds)
    figures = meter.per_frame()
    for name in ("alpha_sad", "alpha_grad", "alpha_conn"):
        parts = sum(figures[region][name].nan_to_num() for region in REGIONS)
        torch.testing.assert_close(parts, figures["frame"][name], rtol=1e-5, atol=1e-8)


def test_an_error_counts_in_its_region_only():
    alpha = torch.zeros(1, 1, 2, 48, 64)
    alpha[..., 32:] = 1
    pred = alpha.clone()
    pred[..., 60:] = 0.5
    meter = AlphaMeter()
    meter.update(pred, alpha)
    figures = meter.means()
    assert figures["edge"]["alpha_mad"] == 0 and figures["edge"]["alpha_psnr"] == math.inf
    assert figures["opaque"]["alpha_mad"].item() == pytest.approx(1e3 * 0.5 * 4 / 32)
    assert figures["frame"]["alpha_mad"].item() == pytest.approx(1e3 * 0.5 * 4 / 64)
    assert all(value.isnan().all() for value in figures["semi_transparent"].values()), "no such pixel is there"


def test_a_trimap_of_a_step():
    step = torch.zeros(1, 12, 40)
    step[..., 20:] = 1
    assert trimap(step, radius=3)[0, 5].tolist() == [0] * 17 + [1] * 6 + [2] * 17
    assert (edge_radius(480, 832), edge_radius(64, 64), edge_radius(16, 16)) == (10, 1, 1)


def test_identical_clips_are_ideal(clips):
    _, _, rgb, alpha = clips
    for of_region in measured((rgb, alpha, rgb, alpha), 5).means().values():
        figures = of_region["alpha"], *of_region["composite"].values()
        assert all(quality["psnr"] == math.inf and quality["ssim"] == 1 for quality in figures)
        assert all(value == 0 for value in of_region["mean"].values())


def test_lpips_is_what_the_given_network_says(clips):
    pred_rgb, pred_alpha, rgb, alpha = clips

    def distance(pred, target):
        assert pred.shape == (5, 3, *rgb.shape[-2:]) and pred.min() < -0.5 and pred.max() > 0.5
        return (pred - target).abs().mean(dim=(1, 2, 3), keepdim=True)

    quality = composite_quality(pred_rgb, pred_alpha, rgb, alpha, ("white",), distance)["white"]
    seen = [color * matte + (1 - matte) for color, matte in ((pred_rgb, pred_alpha), (rgb, alpha))]
    assert quality.lpips == pytest.approx(2 * (seen[0] - seen[1]).abs().mean().item(), rel=1e-5)
    figures = measured(clips, 5, distance=distance).means()
    assert figures["frame"]["composite"]["white"]["lpips"].item() == pytest.approx(quality.lpips)
    assert "lpips" not in figures["edge"]["composite"]["white"]


def test_nothing_is_kept_of_the_pixels():
    """What a meter holds after many frames is a few numbers a frame, in blocks, and one frame of errors."""
    meter = AlphaMeter()
    frame_bytes, generator = 40 * 40 * 4, torch.Generator().manual_seed(0)
    for _ in range(3):
        meter.update(*torch.rand(2, 1, 1, 4, 40, 40, generator=generator))
    assert meter._last_error.untyped_storage().nbytes() == frame_bytes
    rows = [rows for sums in (meter._errors, meter._similarity) for rows in (sums._totals, sums._counts)]
    assert [len(one) for one in rows] == [12] * 4
    numbers = 4 * (6 + 1 + 2)
    assert sum(one._block.numel() for one in rows) == numbers * FIRST_CAPACITY


def test_rows_of_frames_grow():
    rows = FrameRows()
    parts = [torch.rand(2, length, dtype=torch.float64) for length in (1, 300, 2, 700)]
    for part in parts:
        rows.append(part)
    assert len(rows) == 1003 and torch.equal(rows.values, torch.cat(parts, dim=-1))


def test_what_does_not_fit_is_refused(clips):
    pred_rgb, pred_alpha, rgb, alpha = clips
    meter = ReferenceMeter()
    with pytest.raises(DataError, match="cannot compare clips"):
        meter.update(pred_rgb, pred_alpha, rgb[..., 1:], alpha[..., 1:])
    with pytest.raises(DataError, match="at least 11x11 pixels, got 10x12"):
        meter.update(*(clip[..., :12, :10] for clip in clips))
