import pytest
import torch

from wan_alpha.alpha import ranges

LEVELS = torch.arange(256).to(torch.uint8)


def test_all_256_levels_survive_both_round_trips():
    assert torch.equal(ranges.unit_to_uint8(ranges.uint8_to_unit(LEVELS)), LEVELS)
    assert torch.equal(ranges.model_to_uint8(ranges.uint8_to_model(LEVELS)), LEVELS)


def test_uint8_is_rounded_and_clamped():
    values = torch.tensor([-0.5, 0.49 / 255, 0.51 / 255, 254.51 / 255, 1.7])
    assert ranges.unit_to_uint8(values).tolist() == [0, 0, 1, 255, 255]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_scaled_in_float32(dtype):
    unit = torch.linspace(0, 1, 97).to(dtype)
    assert torch.equal(ranges.unit_to_uint8(unit), ranges.unit_to_uint8(unit.float()))


def test_unit_and_model_are_inverse():
    unit = torch.rand(2, 3, 4, dtype=torch.float64)
    assert ranges.unit_to_model(torch.tensor([0.0, 0.5, 1.0])).tolist() == [-1, 0, 1]
    torch.testing.assert_close(ranges.model_to_unit(ranges.unit_to_model(unit)), unit)


def test_alpha_survives_the_model_form():
    alpha = torch.rand(2, 1, 5, 4, 4)
    video = ranges.alpha_to_model(alpha)
    assert video.shape == (2, 3, 5, 4, 4)
    assert torch.equal(video[:, 0], video[:, 2]) and torch.equal(video[:, :1], 2 * alpha - 1)
    torch.testing.assert_close(ranges.model_to_alpha(video), alpha)


def test_raw_output_is_clamped_before_the_mean():
    raw = torch.tensor([3.0, -1.0, -1.0]).view(1, 3, 1, 1, 1)
    assert ranges.model_to_alpha(raw).item() == pytest.approx(1 / 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_frames_for_files_are_rounded(dtype):
    rgb = torch.tensor([-1.0, 0.0, 1.5]).view(1, 3, 1, 1, 1)
    frames = ranges.rgba_frames(rgb.to(dtype), torch.full((1, 1, 1, 1, 1), 0.498, dtype=dtype))
    assert frames.tolist() == [[[[0, 128, 255, 127]]]]


def test_frames_of_sixteen_bits_are_those_of_eight_seen_closer():
    levels = torch.arange(256, dtype=torch.float32).view(1, 1, 1, 16, 16)
    rgb, alpha = ranges.unit_to_model(levels / 255).expand(1, 3, 1, 16, 16), levels / 255
    wide = ranges.rgba_frames(rgb, alpha, depth=16)
    assert wide.dtype == "uint16" and (wide == ranges.rgba_frames(rgb, alpha).astype("uint16") * 257).all()
    assert ranges.rgba_frames(rgb, alpha / 255, depth=16)[..., 3].max() == 257


def test_premultiplied_round_trip_and_clear_pixels():
    rgb, alpha = torch.rand(1, 3, 2, 8, 8), torch.rand(1, 1, 2, 8, 8) * 0.9 + 0.1
    alpha[..., 0, :] = 0
    premultiplied = ranges.straight_to_premultiplied(rgb, alpha)
    straight = ranges.premultiplied_to_straight(premultiplied, alpha)
    torch.testing.assert_close(straight[..., 1:, :], rgb[..., 1:, :])
    assert (straight[..., 0, :] == 0).all()


def test_unpremultiplying_has_finite_gradients_at_alpha_zero():
    premultiplied = torch.full((1, 3, 1, 2, 2), 0.1, requires_grad=True)
    alpha = torch.tensor([[0.0, 0.5], [1.0, 0.0]]).view(1, 1, 1, 2, 2).requires_grad_()
    ranges.premultiplied_to_straight(premultiplied, alpha).sum().backward()
    assert premultiplied.grad.isfinite().all() and alpha.grad.isfinite().all()
    assert premultiplied.grad[0, 0, 0, 0, 1] == 2
