import json

import pytest
import torch
from safetensors.torch import load_file

from wan_alpha.errors import DataError
from wan_alpha.metrics import matting


@pytest.fixture
def clips(reference_dir):
    tensors = load_file(reference_dir / "metrics_io.safetensors")
    mattes = [tensors[name][None, None] for name in ("pred_alpha", "alpha")]
    return *mattes, *(tensors[name].permute(3, 0, 1, 2)[None] for name in ("pred_foreground", "foreground"))


def test_every_frame_equals_the_reference(reference_dir, clips):
    expected = json.loads((reference_dir / "metrics.json").read_text())
    values = matting.matting_metrics(*clips)
    assert set(values) == {*expected["per_frame"], "alpha_sad", "alpha_messddt"}
    for name in expected["per_frame"]:
        per_frame = values[name]
        assert per_frame.shape == (1, 5)
        assert per_frame[0].tolist() == pytest.approx(expected["per_frame"][name], rel=1e-4)
        assert per_frame.mean().item() == pytest.approx(expected["mean"][name], rel=1e-4)


def test_samples_and_frames_do_not_mix(clips):
    double = [torch.cat([clip, clip.flip(2)]) for clip in clips]
    both, single, flipped = (
        matting.matting_metrics(*inputs) for inputs in (double, clips, [clip.flip(2) for clip in clips])
    )
    for name, values in both.items():
        torch.testing.assert_close(values, torch.cat([single[name], flipped[name]]))


def test_equal_clips_score_zero(clips):
    _, alpha, _, foreground = clips
    assert all((values == 0).all() for values in matting.matting_metrics(alpha, alpha, foreground, foreground).values())


def test_errors_by_hand():
    alpha = torch.zeros(1, 1, 2, 4, 4)
    pred = alpha.clone()
    pred[:, :, 1, :2] = 0.5
    assert matting.alpha_mad(pred, alpha).tolist() == [[0, 250]]
    assert matting.alpha_mse(pred, alpha).tolist() == [[0, 125]]
    assert matting.alpha_sad(pred, alpha).flatten().tolist() == pytest.approx([0, 4 / 1000])
    assert matting.alpha_dtssd(pred, alpha).flatten().tolist() == pytest.approx([0, 100 * 0.125**0.5])
    assert matting.alpha_messddt(pred, alpha).flatten().tolist() == pytest.approx([0, 125])


def test_an_error_that_stays_does_not_change():
    """dtSSD sees an error that changes its sign; MESSDdt sees its size alone."""
    alpha = torch.full((1, 1, 3, 4, 4), 0.5)
    steady, swinging = alpha + 0.1, alpha + 0.1 * torch.tensor([1.0, -1.0, 1.0]).view(3, 1, 1)
    for metric in (matting.alpha_dtssd, matting.alpha_messddt):
        assert metric(steady, alpha).abs().max() < 1e-4
    assert matting.alpha_dtssd(swinging, alpha).flatten().tolist() == pytest.approx([0, 20, 20], rel=1e-5)
    assert matting.alpha_messddt(swinging, alpha).abs().max() < 1e-4


def test_foreground_counts_where_alpha_is_above_zero():
    foreground, alpha = torch.zeros(1, 3, 2, 2, 2), torch.zeros(1, 1, 2, 2, 2)
    alpha[:, :, 0, 0, 0] = 0.1
    pred = torch.full_like(foreground, 0.9)
    pred[:, :, 0, 0, 0] = 0.2
    assert matting.foreground_mad(pred, foreground, alpha).flatten().tolist() == pytest.approx([200, 0])
    assert matting.foreground_mse(pred, foreground, alpha).flatten().tolist() == pytest.approx([40, 0])


def test_gradient_error_ignores_a_constant_frame_and_sees_a_blurred_edge():
    step = torch.zeros(1, 1, 1, 16, 16)
    step[..., 8:] = 1
    blurred = step.clone()
    blurred[..., 6:10] = torch.tensor([0.2, 0.4, 0.6, 0.8])
    assert matting.alpha_grad(torch.full_like(step, 0.3), torch.full_like(step, 0.6)) == 0
    assert matting.alpha_grad(blurred, step).item() > 0.001


def test_connectivity_error_counts_a_stray_island():
    alpha = torch.zeros(1, 1, 1, 16, 16)
    alpha[..., 2:10, 2:10] = 1
    stray = alpha.clone()
    stray[..., 13:15, 13:15] = 1
    assert matting.alpha_conn(stray, alpha).item() == pytest.approx(4 / 1000)
    diagonal = alpha.clone()
    diagonal[..., 10, 10] = 1
    assert matting.alpha_conn(diagonal, diagonal) == 0
    # A corner does not connect: with the pixel in both mattes it is unconnected in both; in one it is an error.
    assert matting.alpha_conn(diagonal, alpha).item() == pytest.approx(1 / 1000)


@pytest.mark.parametrize(
    ("pred_shape", "shape"),
    [((1, 1, 2, 4, 4), (1, 1, 2, 4, 5)), ((1, 3, 2, 4, 4), (1, 3, 2, 4, 4)), ((2, 4, 4), (2, 4, 4))],
)
def test_shapes_that_do_not_fit_are_refused(pred_shape, shape):
    with pytest.raises(DataError, match=r"cannot compare clips of shape.*\(B, 1, T, H, W\) twice"):
        matting.alpha_mad(torch.zeros(pred_shape), torch.zeros(shape))


def test_foreground_needs_its_alpha():
    colors = torch.zeros(1, 3, 2, 4, 4)
    with pytest.raises(DataError, match="does not fit a foreground"):
        matting.foreground_mad(colors, colors, torch.zeros(1, 1, 3, 4, 4))
