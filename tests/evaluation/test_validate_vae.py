"""Validation of one clip with the reference RGBA VAE."""

import json
import math

import pytest
import torch
from rgba_clips import write_clip

from wan_alpha.errors import ConfigError, DataError
from wan_alpha.evaluation import validate_vae as validate_module
from wan_alpha.evaluation.validate_vae import ValidationReport, reconstruct, validate_vae
from wan_alpha.media.probe import probe
from wan_alpha.media.read import read_matte, read_rgba
from wan_alpha.metrics.reconstruction import ReconstructionQuality, StreamQuality
from wan_alpha.models.rgba_vae import RGBAlphaVAE
from wan_alpha.training.config import load_recipe
from wan_alpha.training.recipes import ValidateVAERecipe

TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture
def make_recipe(tmp_path, reference_dir):
    def make(**changes):
        overrides = {
            "output_dir": tmp_path / "out", "model.base_vae": reference_dir / "base_vae.safetensors",
            "model.rgba_weights": reference_dir / "rgba_vae_checkpoint.bin", "device": "cpu",
        }  # fmt: skip
        return load_recipe(ValidateVAERecipe, overrides=overrides | changes)

    return make


def test_a_pair_gives_table_video_and_stills(tmp_path, make_recipe, capsys):
    rgb, alpha = write_clip(tmp_path, num_frames=6, size=40)
    report = validate_vae(make_recipe(rgb_video=rgb, alpha_video=alpha))
    names = sorted(path.name for path in report.files)
    frames = [f"validation_{kind}_{frame:05d}.png" for kind in ("comparison", "rgba", "input") for frame in (0, 2, 4)]
    assert names == sorted([*frames, "validation_comparison.mp4", "validation_metrics.json"])
    video = probe(tmp_path / "out" / "validation_comparison.mp4")
    assert (video.num_frames, video.height, video.width) == (5, 64, 64)  # 40 is cut to 32, two by two
    assert read_rgba(tmp_path / "out" / "validation_rgba_00004.png").shape == (1, 32, 32, 4)
    written = json.loads((tmp_path / "out" / "validation_metrics.json").read_text())
    assert written["mean"]["alpha_mad"] == pytest.approx(1e3 / 255 * written["alpha"]["mae"], rel=1e-4)
    assert written["regions"]["edge"]["alpha"]["psnr"] < 30 and len(written["composite"]) == 9
    assert written["alpha"]["mae"] == report.quality.alpha.mae and written["rgb_verdict"] == report.rgb_verdict
    printed = capsys.readouterr().out
    assert "the last 1 of 6 are left out" in printed
    assert f"{report.quality.alpha.mae:.2f}" in printed and report.alpha_verdict in printed
    assert not report.passed  # random decoders reconstruct nothing


def test_a_figure_without_bound_is_written_as_a_word(tmp_path, make_recipe, monkeypatch):
    """JSON knows no infinity: of a stream that came back exactly, the PSNR is "inf"."""
    rgb, alpha = write_clip(tmp_path, num_frames=5, size=32)
    monkeypatch.setattr(validate_module, "reconstruct", lambda vae, rgb, alpha, *_: [(rgb, alpha, rgb, alpha)])
    report = validate_vae(make_recipe(rgb_video=rgb, alpha_video=alpha))
    assert math.isinf(report.quality.alpha.psnr)

    def refuse(constant):
        pytest.fail(f"{constant} is not JSON")

    text = (tmp_path / "out" / "validation_metrics.json").read_text()
    written = json.loads(text, parse_constant=refuse)
    assert written["alpha"]["psnr"] == "inf" and written["alpha"]["mae"] == 0.0
    stills = [read_rgba(tmp_path / "out" / f"validation_{kind}_00004.png")[0] for kind in ("input", "rgba")]
    assert (stills[0] == stills[1]).all() and (stills[0][..., 3] == read_matte(alpha, 4, 1)[0]).all()


@pytest.mark.parametrize("chunk_size", ["1", "2"])
def test_chunks_give_the_whole_clips_figures(tmp_path, make_recipe, chunk_size):
    rgb, _ = write_clip(tmp_path, num_frames=9, size=16)
    whole = validate_vae(make_recipe(rgb_video=rgb, chunk_size="none")).quality
    chunked = validate_vae(make_recipe(rgb_video=rgb, chunk_size=chunk_size)).quality
    for stream in ("rgb", "alpha"):
        for figure in ("mae", "psnr", "ssim"):
            assert getattr(getattr(chunked, stream), figure) == pytest.approx(
                getattr(getattr(whole, stream), figure), rel=1e-4
            )


def test_reconstruction_is_the_vaes(reference_dir):
    vae = RGBAlphaVAE.from_pretrained(reference_dir / "base_vae.safetensors", reference_dir / "rgba_vae_checkpoint.bin")
    generator = torch.Generator().manual_seed(0)
    rgb = torch.rand(1, 3, 5, 16, 16, generator=generator) * 2 - 1
    alpha = torch.rand(1, 1, 5, 16, 16, generator=generator).round()
    parts = list(reconstruct(vae, rgb, alpha, (1.0, -1.0, 1.0), 0.0, 1))
    color = torch.tensor([1.0, -1.0, 1.0]).view(1, 3, 1, 1, 1)
    vae.chunk_size = None
    with torch.no_grad():
        expected = vae.decode(vae.encode(torch.where(alpha > 0, rgb, color), alpha))
    for index, target in enumerate((*expected, rgb, alpha)):
        torch.testing.assert_close(torch.cat([part[index] for part in parts], dim=2), target, **TOLERANCE)


def test_bad_input_is_named(tmp_path, make_recipe, reference_dir):
    with pytest.raises(ConfigError, match=r"model\.rgba_weights"):
        make_recipe(rgb_video="x.mp4", **{"model.rgba_weights": "none"})
    with pytest.raises(DataError, match=r"nowhere\.mp4"):
        validate_vae(make_recipe(rgb_video=tmp_path / "nowhere.mp4"))


@pytest.mark.parametrize(
    "verdicts, passed", [(("good", "excellent"), True), (("good", "poor"), False), (("poor", "good"), False)]
)
def test_passing_takes_both_streams(verdicts, passed):
    figures = StreamQuality(1.0, 40.0, 0.9)
    assert ValidationReport(ReconstructionQuality(figures, figures), *verdicts, []).passed == passed
