import json

import pytest
import torch
from safetensors.torch import load_file

from wan_alpha.alpha.composite import BACKGROUND_COLORS
from wan_alpha.alpha.ranges import model_to_unit
from wan_alpha.errors import ConfigError
from wan_alpha.losses.reconstruction import RGBAReconstructionLoss

BACKGROUNDS = {"hard_background": (1.0, 1.0, 1.0), "soft_background": (1.0, -1.0, -1.0)}


@pytest.fixture
def reconstruction(reference_dir):
    tensors = load_file(reference_dir / "rgba_vae_io.safetensors")
    alpha = model_to_unit(tensors["alpha"][:, :1])
    return tensors["recon_rgb"], tensors["recon_alpha"], tensors["rgb"], alpha


@pytest.fixture
def reference_losses(reference_dir):
    losses = json.loads((reference_dir / "losses.json").read_text())
    hard, soft = losses.pop("hard_color"), losses.pop("soft_color")
    return losses, {"hard_background": BACKGROUND_COLORS[hard], "soft_background": BACKGROUND_COLORS[soft]}


@pytest.fixture
def vgg_path(reference_dir):
    return reference_dir / "vgg16_relu2_2_random.safetensors"


def small_clips(num_samples=1, dtype=torch.float32):
    generator = torch.Generator().manual_seed(3)
    shape = (num_samples, 3, 2, 8, 8)
    pred_rgb, pred_alpha, rgb = (torch.rand(shape, generator=generator, dtype=dtype) * 2 - 1 for _ in range(3))
    return pred_rgb, pred_alpha, rgb, torch.rand(num_samples, 1, 2, 8, 8, generator=generator, dtype=dtype)


@pytest.mark.parametrize("as_floats", [True, False])
def test_terms_equal_the_reference(reconstruction, reference_losses, vgg_path, as_floats):
    expected, colors = reference_losses
    if as_floats:
        colors = {key: tuple(color.tolist()) for key, color in colors.items()}
    else:
        colors = {key: color[None] for key, color in colors.items()}
    terms = RGBAReconstructionLoss(perceptual_weights=vgg_path)(*reconstruction, **colors)
    assert list(terms) == list(expected)
    assert {key: value.item() for key, value in terms.items()} == pytest.approx(expected, rel=1e-4)


def test_without_perceptual_its_terms_are_absent_and_not_in_the_total(reconstruction, reference_losses):
    expected, colors = reference_losses
    terms = RGBAReconstructionLoss(perceptual="none")(*reconstruction, **colors)
    kept = {key: value for key, value in expected.items() if not key.startswith("perceptual") and key != "total"}
    assert set(terms) == {*kept, "total"}
    assert terms["total"].item() == pytest.approx(sum(kept.values()), rel=1e-4)


def test_a_perfect_reconstruction_costs_nothing(vgg_path):
    _, _, rgb, alpha = small_clips()
    weights = {"temporal_rgb": 1.0, "temporal_alpha": 1.0}
    loss = RGBAReconstructionLoss(perceptual_weights=vgg_path, weights=weights)
    terms = loss(rgb, (2 * alpha - 1).expand_as(rgb), rgb, alpha, **BACKGROUNDS)
    assert all(value.item() < 1e-6 for value in terms.values())


def test_weights_scale_the_total_and_leave_the_terms():
    clips = small_clips()
    plain = RGBAReconstructionLoss(perceptual="none")(*clips, **BACKGROUNDS)
    weighted = RGBAReconstructionLoss(perceptual="none", weights={"l1_alpha": 3.0, "edge_rgb_soft": 0.0})(
        *clips, **BACKGROUNDS
    )
    assert weighted["l1_alpha"] == plain["l1_alpha"]
    expected = plain["total"] + 2 * plain["l1_alpha"] - plain["edge_rgb_soft"]
    torch.testing.assert_close(weighted["total"], expected)


def test_temporal_terms_come_with_their_weights():
    clips = small_clips()
    without = RGBAReconstructionLoss(perceptual="none")(*clips, **BACKGROUNDS)
    assert not any(key.startswith("temporal") for key in without)
    terms = RGBAReconstructionLoss(perceptual="none", weights={"temporal_alpha": 0.5})(*clips, **BACKGROUNDS)
    assert "temporal_rgb" not in terms
    _, pred_alpha, _, alpha = clips
    change = (pred_alpha.diff(dim=2) - (2 * alpha - 1).diff(dim=2)).abs().mean()
    torch.testing.assert_close(terms["temporal_alpha"], change)
    others = sum(value for key, value in terms.items() if key not in ("total", "temporal_alpha"))
    torch.testing.assert_close(terms["total"], others + 0.5 * change)


def test_gradients_are_right():
    pred_rgb, pred_alpha, rgb, alpha = small_clips(dtype=torch.float64)
    weights = {"temporal_rgb": 1.0, "temporal_alpha": 1.0}
    loss = RGBAReconstructionLoss(perceptual="none", weights=weights)
    inputs = (pred_rgb[..., :3, :3].clone().requires_grad_(), pred_alpha[..., :3, :3].clone().requires_grad_())

    def total(pred_rgb, pred_alpha):
        return loss(pred_rgb, pred_alpha, rgb[..., :3, :3], alpha[..., :3, :3], **BACKGROUNDS)["total"]

    assert torch.autograd.gradcheck(total, inputs)


def test_gradients_reach_predictions_through_vgg_and_stop_at_it(vgg_path):
    pred_rgb, pred_alpha, rgb, alpha = small_clips()
    pred_rgb.requires_grad_(), pred_alpha.requires_grad_()
    loss = RGBAReconstructionLoss(perceptual_weights=vgg_path)
    terms = loss(pred_rgb, pred_alpha, rgb, alpha, **BACKGROUNDS)
    for stream in ("rgb_hard", "rgb_soft", "alpha"):
        inputs = (pred_alpha,) if stream == "alpha" else (pred_rgb,)
        (gradient,) = torch.autograd.grad(terms[f"perceptual_{stream}"], inputs, retain_graph=True)
        assert gradient.isfinite().all() and gradient.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in loss.parameters())


def test_autocast_changes_nothing_and_half_inputs_are_summed_in_float32(vgg_path):
    clips = small_clips()
    loss = RGBAReconstructionLoss(perceptual_weights=vgg_path)
    expected = loss(*clips, **BACKGROUNDS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = loss(*clips, **BACKGROUNDS)
    assert {key: value.item() for key, value in terms.items()} == {key: value.item() for key, value in expected.items()}
    halves = [clip.bfloat16() for clip in clips]
    from_half = loss(*halves, **BACKGROUNDS)
    from_float = loss(*(clip.float() for clip in halves), **BACKGROUNDS)
    assert all(value.dtype == torch.float32 and value == from_float[key] for key, value in from_half.items())


def test_per_sample_backgrounds_are_the_mean_of_single_samples():
    clips = small_clips(num_samples=2)
    loss = RGBAReconstructionLoss(perceptual="none")
    hard, soft = BACKGROUND_COLORS[[1, 6]], BACKGROUND_COLORS[[3, 0]]
    both = loss(*clips, hard_background=hard, soft_background=soft)
    single = [
        loss(*(clip[i : i + 1] for clip in clips), hard_background=hard[i], soft_background=soft[i]) for i in range(2)
    ]
    for key, value in both.items():
        torch.testing.assert_close(value, (single[0][key] + single[1][key]) / 2)


def test_hard_threshold_clears_a_noisy_matte():
    _, _, rgb, _ = small_clips()
    noise = torch.full((1, 1, 2, 8, 8), 2 / 255)
    clear = torch.full_like(rgb, -1.0)
    strict, lenient = (
        RGBAReconstructionLoss(perceptual="none", hard_threshold=threshold)(rgb, clear, rgb, noise, **BACKGROUNDS)
        for threshold in (0.0, 3 / 255)
    )
    assert strict["l1_rgb_hard"] > 0.1 and lenient["l1_rgb_hard"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": {"l1_colour": 1.0}, "perceptual": "none"}, "loss weights name l1_colour.*l1_rgb_hard"),
        ({"weights": {"perceptual_alpha": 1.0}, "perceptual": "none"}, "loss weights name perceptual_alpha"),
        ({"perceptual": "resnet"}, "'resnet' is unknown: choose one of vgg16, lpips, none"),
        ({"perceptual": "none", "edge_kernel": "prewitt"}, "'prewitt' is unknown: choose one of central, sobel"),
    ],
)
def test_options_that_cannot_work_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        RGBAReconstructionLoss(**options)


def test_one_channel_prediction_is_refused():
    pred_rgb, pred_alpha, rgb, alpha = small_clips()
    with pytest.raises(ConfigError, match="differ: expected"):
        RGBAReconstructionLoss(perceptual="none")(pred_rgb, pred_alpha[:, :1], rgb, alpha, **BACKGROUNDS)
