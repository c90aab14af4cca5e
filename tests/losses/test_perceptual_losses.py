import lpips
import pytest
import torch
from safetensors.torch import load_file, save_file

from wan_alpha.errors import CheckpointError, ConfigError
from wan_alpha.losses.lpips_loss import LPIPSLoss
from wan_alpha.losses.perceptual import VGGPerceptualLoss, perceptual_loss, vgg16_relu2_2
from wan_alpha.losses.reconstruction import RGBAReconstructionLoss


@pytest.fixture
def vgg_path(reference_dir):
    return reference_dir / "vgg16_relu2_2_random.safetensors"


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture
def squeeze_path(tmp_path):
    """Random weights in torchvision's naming of SqueezeNet, the smallest of the three backbones."""
    from torchvision.models import squeezenet1_1

    torch.manual_seed(0)
    path = tmp_path / "squeeze.safetensors"
    save_file(squeezenet1_1(weights=None).state_dict(), path)
    return path


def clips(size=16):
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(2, 3, 2, size, size, generator=generator) * 2 - 1 for _ in range(2)]


def test_perceptual_loss_is_the_mean_squared_feature_distance():
    pred, target = clips()
    value = perceptual_loss(pred, target, lambda frames: 2 * frames)
    torch.testing.assert_close(value, 4 * (pred - target).square().mean())


def test_features_stop_after_relu2_2(vgg_path):
    features = vgg16_relu2_2(vgg_path)(torch.rand(1, 3, 16, 12))
    assert features.shape == (1, 128, 8, 6) and features.min() == 0 and features.max() > 0


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_whole_torchvision_file_gives_the_same_loss(vgg_path, tmp_path, suffix):
    weights = {f"features.{key}": value for key, value in load_file(vgg_path).items()}
    weights["classifier.0.bias"] = torch.zeros(4)
    path = tmp_path / f"vgg16{suffix}"
    save_file(weights, path) if suffix == ".safetensors" else torch.save(weights, path)
    assert VGGPerceptualLoss(path)(*clips()) == VGGPerceptualLoss(vgg_path)(*clips())


def test_weights_are_found_in_torchvisions_cache(vgg_path, empty_cache):
    weights = {f"features.{key}": value for key, value in load_file(vgg_path).items()}
    torch.save(weights, empty_cache / "vgg16-397923af.pth")
    assert VGGPerceptualLoss()(*clips()) == VGGPerceptualLoss(vgg_path)(*clips())


@pytest.mark.parametrize(
    ("perceptual", "file", "others"),
    [
        ("vgg16", "vgg16-397923af.pth", '"lpips" | "none"'),
        ("lpips", "alexnet-owt-7be5be79.pth", '"vgg16" | "none"'),
    ],
)
def test_missing_weights_say_what_goes_where(empty_cache, monkeypatch, perceptual, file, others):
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_, **__: pytest.fail("tried to download"))
    with pytest.raises(ConfigError) as caught:
        RGBAReconstructionLoss(perceptual=perceptual)
    message = str(caught.value)
    assert str(empty_cache / file) in message and f"torchvision's {file}" in message
    assert message.endswith(f"choose perceptual = {others}")


def test_a_given_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match="nowhere.pth is not there"):
        VGGPerceptualLoss(tmp_path / "nowhere.pth")


def test_files_that_hold_another_network_are_refused(vgg_path, tmp_path, squeeze_path):
    with pytest.raises(CheckpointError, match="squeeze.safetensors holds no VGG16: expected 2.bias"):
        VGGPerceptualLoss(squeeze_path)
    with pytest.raises(CheckpointError, match="holds no squeeze: expected features.0.weight"):
        LPIPSLoss("squeeze", vgg_path)
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not a tensor file")
    with pytest.raises(CheckpointError, match="broken.safetensors"):
        VGGPerceptualLoss(broken)


@pytest.mark.filterwarnings("ignore:.*pretrained.*:UserWarning", "ignore:Arguments other:UserWarning")
def test_lpips_equals_the_package_on_the_same_weights(squeeze_path):
    pred, target = clips(size=33)
    ours = LPIPSLoss("squeeze", squeeze_path)
    theirs = lpips.LPIPS(net="squeeze", pnet_rand=True, verbose=False)
    backbone = load_file(squeeze_path)
    for name, parameter in theirs.net.named_parameters():
        parameter.data.copy_(backbone["features." + name.split(".", 1)[1]])
    frames = [clip.transpose(1, 2).flatten(0, 1) for clip in (pred, target)]
    torch.testing.assert_close(ours(pred, target), theirs(*frames).mean())
    assert ours(pred, pred) == 0 < ours(pred, target)


def test_lpips_is_differentiable_and_frozen(squeeze_path):
    pred, target = clips(size=33)
    loss = LPIPSLoss("squeeze", squeeze_path)
    assert not any(parameter.requires_grad for parameter in loss.parameters())
    loss(pred.requires_grad_(), target).backward()
    assert pred.grad.isfinite().all() and pred.grad.abs().sum() > 0


def test_lpips_measures_the_same_while_its_owner_trains(squeeze_path):
    pred, target = clips(size=33)
    loss = LPIPSLoss("squeeze", squeeze_path)
    expected = loss(pred, target)
    owner = torch.nn.ModuleList([loss]).train()
    assert loss.training and all(loss(pred, target) == expected for _ in range(3))
    assert not owner.eval()[0].training
