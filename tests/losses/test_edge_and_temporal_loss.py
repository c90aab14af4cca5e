import pytest
import torch

from wan_alpha.errors import ConfigError
from wan_alpha.losses.edge import EdgeLoss, edge_loss, gradient_magnitude
from wan_alpha.losses.temporal import TemporalConsistencyLoss, temporal_consistency_loss


def ramp(horizontal: float, vertical: float):
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    return (horizontal * x + vertical * y).expand(1, 3, 1, 8, 8)


@pytest.mark.parametrize("kernel", ["central", "sobel"])
def test_gradient_of_a_ramp(kernel):
    luma_gain = (65.738 + 129.057 + 25.064) / 256
    magnitude = gradient_magnitude(ramp(0.03, 0.04), kernel)[0, 0, 1:-1, 1:-1]
    torch.testing.assert_close(magnitude, torch.full((6, 6), (0.01 * luma_gain**2 + 1e-6) ** 0.5))


def test_sobel_smooths_across_the_edge_and_central_does_not():
    dot = torch.zeros(1, 3, 1, 5, 5)
    dot[..., 2, 2] = 1
    central, sobel = (gradient_magnitude(dot, kernel)[0, 0] for kernel in ("central", "sobel"))
    assert (central > 0.01).sum() == 4 and (sobel > 0.01).sum() == 8


def test_frames_and_samples_do_not_mix():
    generator = torch.Generator().manual_seed(0)
    pred, target = torch.rand(2, 2, 3, 3, 6, 6, generator=generator)
    single = [edge_loss(p[None, :, [t]], q[None, :, [t]]) for p, q in zip(pred, target, strict=True) for t in range(3)]
    torch.testing.assert_close(EdgeLoss()(pred, target), torch.stack(single).mean())


@pytest.mark.parametrize("kernel", ["central", "sobel"])
def test_edge_gradients_are_right_on_flat_frames_too(kernel):
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(1, 3, 2, 4, 4, generator=generator, dtype=torch.float64)
    pred = torch.rand(1, 3, 2, 4, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda clip: edge_loss(clip, target, kernel), pred)
    flat = torch.zeros(1, 3, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    edge_loss(flat, target, kernel).backward()
    assert flat.grad.isfinite().all()


def test_unknown_kernel():
    with pytest.raises(ConfigError, match="choose one of central, sobel"):
        EdgeLoss("roberts")


def test_temporal_loss_sees_changes_only():
    still = torch.rand(1, 3, 1, 4, 4).expand(1, 3, 5, 4, 4)
    assert temporal_consistency_loss(still + 0.7, still) == 0
    flicker = still.clone()
    flicker[:, :, 1::2] += 0.5
    torch.testing.assert_close(TemporalConsistencyLoss()(flicker, still), torch.tensor(0.5))


def test_temporal_loss_of_a_still_is_zero_and_keeps_the_graph():
    pred = torch.rand(1, 3, 1, 4, 4, requires_grad=True)
    loss = temporal_consistency_loss(pred, torch.rand(1, 3, 1, 4, 4))
    loss.backward()
    assert loss == 0 and (pred.grad == 0).all()


def test_temporal_gradients_are_right():
    target = torch.rand(1, 1, 4, 2, 2, dtype=torch.float64)
    pred = torch.rand(1, 1, 4, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda clip: temporal_consistency_loss(clip, target), pred)
