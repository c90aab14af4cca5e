import pytest
import torch
from safetensors.torch import load_file

from wan_alpha.errors import ConfigError
from wan_alpha.losses.transparency_diffusion import TransparencyDiffusionLoss, transparency_diffusion_loss


def one_cell(error: float, sign: int, weight: float, variant: str) -> float:
    pred, mask = torch.full((1, 2, 1, 1, 1), error**0.5), torch.full((1, 1, 1, 1), sign, dtype=torch.int8)
    return transparency_diffusion_loss(pred, torch.zeros_like(pred), mask, weight, variant).item()


def test_released_variant_equals_the_reference(reference_dir):
    tensors = load_file(reference_dir / "diffusion.safetensors")
    inputs = (tensors["pred"], tensors["target"], tensors["mask"])
    for weight in (tensors["weight"], tensors["weight"].item()):
        loss = TransparencyDiffusionLoss()(*inputs, weight)
        assert loss.ndim == 0 and loss.item() == pytest.approx(tensors["loss"].item(), rel=1e-4)


@pytest.mark.parametrize(
    ("error", "sign", "weight", "released", "bidirectional"),
    [
        (0.5, 1, 0.6, 0.3, 0.3),
        (0.5, 0, 0.6, 0.0, 0.0),
        (0.5, -1, 0.6, 0.0, -0.3),
        (4.0, 1, 0.6, 1.0, 1.0),
        (4.0, -1, 0.6, 0.0, -1.0),
    ],
)
def test_both_variants_cell_by_cell(error, sign, weight, released, bidirectional):
    assert one_cell(error, sign, weight, "released") == pytest.approx(released)
    assert one_cell(error, sign, weight, "bidirectional") == pytest.approx(bidirectional)


def test_weights_are_taken_per_sample():
    pred, mask = torch.full((2, 4, 1, 2, 2), 0.5), torch.ones(2, 1, 2, 2)
    loss = transparency_diffusion_loss(pred, torch.zeros_like(pred), mask, torch.tensor([1.0, 3.0]))
    assert loss.item() == pytest.approx(0.25 * 2)


def test_only_bidirectional_pushes_transparent_cells_away():
    gradients = {}
    for variant in ("released", "bidirectional"):
        pred = torch.full((1, 1, 1, 1, 2), 0.5, requires_grad=True)
        mask = torch.tensor([1, -1]).view(1, 1, 1, 2)
        transparency_diffusion_loss(pred, torch.zeros(1, 1, 1, 1, 2), mask, 1.0, variant).backward()
        gradients[variant] = pred.grad.flatten().tolist()
    assert gradients == {"released": [0.5, 0.0], "bidirectional": [0.5, -0.5]}


@pytest.mark.parametrize("variant", ["released", "bidirectional"])
def test_gradients_are_right(variant):
    generator = torch.Generator().manual_seed(0)
    pred, target = torch.rand(2, 1, 2, 3, 2, 2, generator=generator, dtype=torch.float64)
    mask = torch.randint(-1, 2, (1, 3, 2, 2), generator=generator)
    check = lambda velocity: transparency_diffusion_loss(velocity, target, mask, 0.8, variant)  # noqa: E731
    assert torch.autograd.gradcheck(check, pred.requires_grad_())


def test_half_precision_is_computed_in_float32():
    pred, mask = torch.full((1, 2, 1, 2, 2), 0.5, dtype=torch.bfloat16), torch.ones(1, 1, 2, 2)
    assert transparency_diffusion_loss(pred, torch.zeros_like(pred), mask, 1.0).dtype == torch.float32


def test_what_cannot_work_is_refused():
    with pytest.raises(ConfigError, match="'both' is unknown: choose one of released, bidirectional"):
        TransparencyDiffusionLoss("both")
    latents = torch.zeros(1, 16, 3, 4, 5)
    with pytest.raises(ConfigError, match=r"expected \(B, n\+1, h, w\)"):
        transparency_diffusion_loss(latents, latents, torch.ones(1, 3, 4, 4), 1.0)
