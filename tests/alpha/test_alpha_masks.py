import pytest
import torch
from safetensors.torch import load_file

from wan_alpha.alpha.masks import average_to_latent_grid, gaussian_ellipse, shifted_noise, transparency_mask
from wan_alpha.alpha.ranges import model_to_unit
from wan_alpha.errors import ConfigError


@pytest.fixture
def masks(reference_dir):
    tensors = load_file(reference_dir / "masks.safetensors")
    return model_to_unit(tensors["alpha"][:, :1]), tensors


def test_transparency_mask_equals_the_reference(masks):
    alpha, expected = masks
    mask = transparency_mask(alpha)
    assert mask.dtype == torch.int8 and torch.equal(mask, expected["transparency_mask"])


def test_gaussian_ellipse_equals_the_reference(masks):
    alpha, expected = masks
    torch.testing.assert_close(gaussian_ellipse(alpha)[0], expected["gaussian_ellipse"], atol=1e-4, rtol=0)


def test_shifted_noise_equals_the_reference(reference_dir):
    tensors = load_file(reference_dir / "diffusion.safetensors")
    ellipse, noise, shift = tensors["gaussian_ellipse"], tensors["noise"], tensors["shift"].item()
    for form in (ellipse, ellipse[None]):
        torch.testing.assert_close(shifted_noise(noise, form, shift), tensors["shifted_noise"], atol=1e-4, rtol=0)


def test_shifted_noise_takes_one_ellipse_per_sample():
    noise, ellipse = torch.zeros(2, 4, 3, 2, 2), torch.stack([torch.zeros(3, 2, 2), torch.ones(3, 2, 2)])
    shifted = shifted_noise(noise, ellipse, 0.05)
    assert (shifted[0] == 0.05).all() and (shifted[1] == 0).all()


def test_latent_average_takes_the_first_frame_alone_then_four():
    alpha = torch.arange(9.0).view(1, 1, 9, 1, 1).expand(1, 1, 9, 8, 16)
    assert average_to_latent_grid(alpha).tolist() == [[[[0.0, 0.0]], [[2.5, 2.5]], [[6.5, 6.5]]]]


@pytest.mark.parametrize(
    ("cell", "first", "later"),
    [
        ([1.0, 1.0], 1, 1),
        ([0.0, 0.0], -1, -1),
        ([0.3, 0.7], -1, -1),
        ([0.0, 1.0], -1, 0),
        ([0.5, 1.0], -1, 0),
        ([0.0, 0.5], -1, 0),
    ],
)
def test_transparency_mask_rules(cell, first, later):
    alpha = torch.tensor(cell).repeat(4).expand(1, 1, 5, 8, 8)
    assert transparency_mask(alpha).flatten().tolist() == [first, later]


def test_transparency_mask_looks_at_all_four_frames():
    alpha = torch.ones(1, 1, 5, 8, 8)
    alpha[:, :, 3, 7, 7] = 0.5
    assert transparency_mask(alpha).flatten().tolist() == [1, 0]


def test_tolerance_forgives_a_noisy_matte():
    alpha = torch.full((1, 1, 5, 8, 8), 2 / 255)
    alpha[:, :, 2:] = 0
    assert transparency_mask(alpha).flatten().tolist() == [-1, 0]
    assert transparency_mask(alpha, tolerance=3 / 255).flatten().tolist() == [-1, -1]


def test_coarser_grid():
    alpha = torch.rand(1, 1, 9, 32, 64)
    assert transparency_mask(alpha, spatial_factor=16).shape == (1, 3, 2, 4)
    assert gaussian_ellipse(alpha, spatial_factor=16).shape == (1, 3, 2, 4)


def test_ellipse_is_highest_at_the_subject_and_empty_without_one():
    alpha = torch.zeros(2, 1, 5, 96, 128)
    alpha[0, :, :, 32:64, 80:112] = 1
    ellipse = gaussian_ellipse(alpha)
    assert ellipse.shape == (2, 2, 12, 16) and (ellipse[1] == 0).all()
    assert ellipse[0].amin() == 0 and ellipse[0].amax() == 1
    for frame in ellipse[0]:
        y, x = divmod(frame.argmax().item(), 16)
        assert y in (5, 6) and x in (11, 12)


def test_ellipse_moves_with_the_subject():
    alpha = torch.zeros(1, 1, 1, 96, 128)
    alpha[..., 16:48, 24:72] = 1
    moved = alpha.roll((24, 32), dims=(3, 4))
    # Away from the frame's border the shape is the same; only its stretch to [0, 1] sees the border.
    here, there = gaussian_ellipse(alpha)[0, 0, 1:8, 2:10], gaussian_ellipse(moved)[0, 0, 4:11, 6:14]
    torch.testing.assert_close(here, there, atol=5e-3, rtol=0)


@pytest.mark.parametrize("shape", [(1, 1, 4, 16, 16), (1, 1, 5, 20, 16), (1, 3, 5, 16, 16), (1, 5, 16, 16)])
def test_alpha_off_the_grid_is_refused(shape):
    for function in (transparency_mask, gaussian_ellipse, average_to_latent_grid):
        with pytest.raises(ConfigError, match=r"T = 4n\+1 and H, W multiples of 8"):
            function(torch.zeros(shape))


def test_ellipse_off_the_noise_grid_is_refused():
    with pytest.raises(ConfigError, match="does not lie on the latent grid of noise"):
        shifted_noise(torch.zeros(1, 16, 3, 4, 5), torch.zeros(3, 4, 4))
