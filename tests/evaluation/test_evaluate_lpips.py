"""LPIPS in an evaluation, with weights in the form in which torchvision publishes its AlexNet's."""

import csv
import json
import math
from collections import OrderedDict

import lpips
import numpy as np
import pytest
import torch

from wan_alpha.alpha.composite import background_color, over
from wan_alpha.cli.main import main
from wan_alpha.losses.backbone_weights import TORCHVISION_FILES
from wan_alpha.media.write import LosslessWriter

SIZE, FRAMES = 48, 2


@pytest.fixture(scope="module")
def alexnet():
    """All 16 entries of torchvision's AlexNet, random; the classifier, which nothing here uses, one number an entry."""
    from torchvision.models import alexnet

    with torch.device("meta"):
        shapes = {name: value.shape for name, value in alexnet(weights=None).state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    state = OrderedDict()
    for name, shape in shapes.items():
        if name.startswith("classifier"):
            value = torch.zeros(1).expand(shape)
        else:
            value = torch.randn(shape, generator=generator) / math.sqrt(math.prod(shape[1:]) or 1)
        state[name] = torch.nn.Parameter(value, requires_grad=False)
    return state


@pytest.fixture
def clips(tmp_path):
    """(predicted, true) frames, and their files."""
    generator = np.random.default_rng(0)
    clips = generator.integers(0, 256, (2, FRAMES, SIZE, SIZE, 4), np.uint8)
    paths = tmp_path / "pred.mkv", tmp_path / "ref.mkv"
    for path, frames in zip(paths, clips, strict=True):
        with LosslessWriter(path, 16) as writer:
            writer.write(frames)
    return clips, paths


@pytest.fixture(scope="module")
def packages_own(alexnet):
    """The network as the lpips package itself builds it, its own linear heads on the same backbone."""
    network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    for name, parameter in network.net.named_parameters():
        parameter.data.copy_(alexnet["features." + name.split(".", 1)[1]])
    return network


def distances(network, clips, background):
    """Every frame's."""
    color = tuple((value + 1) / 2 for value in background_color(background))
    pictures = []
    for frames in clips:
        clip = torch.from_numpy(frames).permute(3, 0, 1, 2)[None] / 255
        pictures.append(over(clip[:, :3], clip[:, 3:], color)[0].transpose(0, 1) * 2 - 1)
    with torch.no_grad():
        return network(*pictures).flatten()


@pytest.mark.filterwarnings("ignore:.*pretrained.*:UserWarning", "ignore:Arguments other:UserWarning")
@pytest.mark.parametrize("is_zip", [True, False])
def test_lpips_with_torchvisions_alexnet_is_the_packages_own(
    tmp_path, alexnet, packages_own, clips, is_zip, monkeypatch, capsys
):
    """Both of torch's file formats; given by name, and found in torchvision's cache."""
    (pred, true), paths = clips
    weights = tmp_path / "checkpoints" / TORCHVISION_FILES["alex"]
    weights.parent.mkdir()
    torch.save(alexnet, weights, _use_new_zipfile_serialization=is_zip)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path if not is_zip else tmp_path / "empty"))
    out = tmp_path / "out"
    command = ["evaluate", *map(str, paths), "--out", str(out), "--device", "cpu"]
    named = ["--lpips_weights", str(weights)] if is_zip else []
    assert main([*command, *named, "--fail-over", "composite_lpips=1e-9"]) == 1
    assert "missed: composite_lpips <= 1e-09" in capsys.readouterr().out
    written = json.loads((out / "evaluation.json").read_text())
    with open(out / "evaluation.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for background in ("black", "magenta", "grey"):
        expected = distances(packages_own, (pred, true), background)
        assert expected.min() > 1e-3
        assert written["composite"][background]["lpips"] == pytest.approx(expected.mean().item(), rel=1e-4)
        found = [float(row[f"composite_{background}_lpips"]) for row in rows[1:]]
        assert found == pytest.approx(expected.tolist(), rel=1e-4)
    assert main(["evaluate", str(paths[1]), str(paths[1]), "--out", str(out), "--device", "cpu", *named]) == 0
    assert json.loads((out / "evaluation.json").read_text())["composite"]["grey"]["lpips"] == 0


def test_another_networks_weights_are_refused_before_anything_is_measured(tmp_path, alexnet, clips, capsys):
    weights = tmp_path / "alex.pth"
    torch.save({name: value for name, value in alexnet.items() if name != "features.6.weight"}, weights)
    out = tmp_path / "out"
    command = ["evaluate", *map(str, clips[1]), "--out", str(out), "--device", "cpu", "--lpips_weights", str(weights)]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "alex.pth holds no alex: expected features.6.weight" in error and not out.exists()
