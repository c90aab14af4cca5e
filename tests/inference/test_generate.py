"""From prompts to files, on a miniature Wan: what is written, that seeds reproduce it, and what is refused."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from miniature_wan import write_wan_folder
from PIL import Image
from safetensors.torch import save_file

from wan_alpha.alpha.ranges import rgba_frames
from wan_alpha.errors import ConfigError
from wan_alpha.inference.generate import clip_folder, generate, read_prompts
from wan_alpha.media import read as media_read
from wan_alpha.media.alpha_source import AlphaSource
from wan_alpha.media.convert import convert_clip
from wan_alpha.media.embedded import read_texts
from wan_alpha.media.formats import find_format
from wan_alpha.media.outputs import read_manifest
from wan_alpha.models import block_offload
from wan_alpha.models.adapters import add_adapter, save_adapter
from wan_alpha.models.rgba_vae import RGBAlphaVAE
from wan_alpha.models.wan import load_wan
from wan_alpha.training.config import load_recipe
from wan_alpha.training.performance_file import read_performance
from wan_alpha.training.recipes import GenerateRecipe
from wan_alpha.weights.io import file_sha256

SIZE = {"num_frames": 9, "height": 32, "width": 48}


@pytest.fixture(scope="module")
def wan_folder(tmp_path_factory, reference_dir):
    return write_wan_folder(tmp_path_factory.mktemp("wan"), reference_dir / "base_vae.safetensors")


@pytest.fixture
def make_recipe(wan_folder, reference_dir, tmp_path):
    def make(**changes):
        options = {
            "output_dir": tmp_path / "out",
            "prompt": "a red ball on transparent background",
            "model.wan": str(wan_folder),
            "model.base_vae": wan_folder / "Wan2.1_VAE.pth",
            "model.rgba_weights": reference_dir / "rgba_vae_checkpoint.bin",
            "num_steps": 2, "guidance": 2.0, "device": "cpu", "seed": 4, **SIZE,
        }  # fmt: skip
        options.update(changes)
        return load_recipe(GenerateRecipe, None, {key: value for key, value in options.items() if value is not None})

    return make


def stored_frames(folder):
    paths = sorted((folder / "frames").glob("*.png"))
    assert [path.name for path in paths] == [f"{i:05d}.png" for i in range(len(paths))]
    return np.stack([np.asarray(Image.open(path)) for path in paths])


def test_a_clip_is_written_in_every_form(make_recipe):
    recipe = make_recipe()
    (clip,) = generate(recipe, progress=False)
    assert clip.folder == recipe.output_dir / "000_a_red_ball_on_transparent_background"
    files = {"frames", "preview.mp4", "alpha.mp4", "video.webm"}
    manifests = {f"{name}.manifest.json" for name in files}
    assert {path.name for path in clip.folder.iterdir()} == files | manifests | {"settings.json"}
    frames = stored_frames(clip.folder)
    assert frames.shape == (9, 32, 48, 4)
    for name, has_alpha in (("video.webm", True), ("preview.mp4", False), ("alpha.mp4", False)):
        info = media_read.probe(clip.folder / name)
        assert (info.height, info.width, info.has_alpha) == (32, 48, has_alpha), name
    shares = clip.coverage
    assert shares.clear + shares.semi_transparent + shares.opaque == pytest.approx(1)
    assert shares.opaque == pytest.approx((frames[..., 3] >= 251).mean(), abs=1e-6)
    errors = {one.output_format.name: one.alpha_error for one in clip.outputs}
    assert errors["png"].max_error == 0 and errors["webm"].psnr > 25 and errors["preview"] is None
    stages = read_performance(recipe.output_dir)["stages"]
    units = {"encode": "captions", "sample": "steps", "decode": "frames", "export": "frames"}
    assert {name: one["unit"] for name, one in stages.items() if not name.startswith("load")} == units
    assert stages["decode"]["count"] == 9 and stages["sample"]["count"] == recipe.num_steps
    assert {name for name in stages if name.startswith("load: ")} == {
        "load: text encoder", "load: DiT", "load: RGBA VAE"
    }  # fmt: skip


def test_formats_are_chosen_and_described(make_recipe, reference_dir):
    recipe = make_recipe(formats="png16,webp,prores,preview", guidance=1.0, num_steps=1, background="#00ff00")
    (clip,) = generate(recipe, progress=False)
    names = {"frames16", "video.webp", "video.mov", "preview.mp4"}
    settings = json.loads((clip.folder / "settings.json").read_text())
    assert settings["models"]["rgba_weights"]["sha256"] == file_sha256(reference_dir / "rgba_vae_checkpoint.bin")
    assert {"dit", "text_encoder", "base_vae"} <= {part.split(".")[0] for part in settings["models"]}
    assert [one["format"] for one in settings["outputs"]] == list(recipe.formats)
    assert all(
        one["width"] == 48 and one["num_frames"] == 9 and len(one["sha256"]) == 64 for one in settings["outputs"]
    )
    for name in ("frames16", "video.webp"):
        texts = read_texts(clip.folder / name)
        assert texts["prompt"] == recipe.prompt and json.loads(texts["settings"])["seed"] == 4
    for name in names:
        described = read_manifest(clip.folder / name)
        assert (described["prompt"], described["seed"]) == (recipe.prompt, 4), name
        assert described["models"] == settings["models"] and described["settings"] == settings["recipe"]
    copy = convert_clip(AlphaSource(clip.folder / "video.mov"), clip.folder / "copy.apng", find_format("apng"))
    carried = read_manifest(copy.written.path)
    assert carried["models"] == settings["models"] and carried["settings"]["num_steps"] == 1
    wide = media_read.read_rgba(clip.folder / "frames16", depth=16)
    assert wide.dtype == np.uint16 and (wide % 257).any()  # more than eight bits


def test_a_placeholder_changes_the_clip_and_is_recorded(make_recipe, tmp_path, monkeypatch):
    path = tmp_path / "thing.safetensors"
    save_file({"<thing>": 3 * torch.randn(2, 24, generator=torch.Generator().manual_seed(0))}, path)
    options = {"prompt": "a red <thing>", "formats": "png", "guidance": 1.0}
    (plain,) = generate(make_recipe(**options, output_dir=tmp_path / "plain"), progress=False)
    (learned,) = generate(make_recipe(**options, **{"model.embeddings": str(path)}), progress=False)
    assert (stored_frames(plain.folder) != stored_frames(learned.folder)).any()
    settings = json.loads((learned.folder / "settings.json").read_text())
    assert settings["models"]["embeddings"]["sha256"] == file_sha256(path)
    again = tmp_path / "again.safetensors"
    save_file({"<thing>": torch.ones(1, 24)}, again)
    with monkeypatch.context() as patched:
        patched.setattr("wan_alpha.models.wan.load_wan", None)  # would be called to load
        with pytest.raises(ConfigError, match="again.safetensors: <thing> is learned in .*thing.safetensors too"):
            generate(make_recipe(**options, **{"model.embeddings": f"{path},{again}"}), progress=False)
        save_file({"red": torch.ones(1, 24)}, again)
        with pytest.raises(ConfigError, match="again.safetensors: .*the tokenizer knows 'red' already"):
            generate(make_recipe(**options, **{"model.embeddings": f"{again}"}), progress=False)
    with pytest.raises(ConfigError, match="thing.safetensors: no prompt names what it holds; write <thing>"):
        generate(make_recipe(**options | {"prompt": "a red ball"}, **{"model.embeddings": str(path)}), progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"background": "plaid"}, "neither checkerboard"), ({"formats": "gif", "premultiplied": True}, "no effect")],
)
def test_what_writing_would_refuse_is_refused_first(make_recipe, options, message, monkeypatch):
    monkeypatch.setattr("wan_alpha.models.wan.load_wan", None)
    if "background" in options:
        options |= {"formats": "preview"}
    with pytest.raises(ConfigError, match=message):
        generate(make_recipe(**options), progress=False)


def test_settings_make_the_same_clip_again(make_recipe, tmp_path):
    (clip,) = generate(make_recipe(), progress=False)
    settings = json.loads((clip.folder / "settings.json").read_text())
    assert settings["num_frames"] == 9 and settings["recipe"]["seed"] == clip.seed == 4
    recipe = GenerateRecipe.model_validate(settings["recipe"] | {"output_dir": tmp_path / "again"})
    (again,) = generate(recipe, progress=False)
    assert np.array_equal(stored_frames(clip.folder), stored_frames(again.folder))


def test_prompts_have_their_own_seeds_and_chunks_change_nothing(make_recipe, tmp_path):
    (tmp_path / "prompts.txt").write_text("a red ball\n\n  a red ball  \n")
    both = generate(make_recipe(prompt=None, prompts_file=tmp_path / "prompts.txt", guidance=1.0), progress=False)
    assert [clip.seed for clip in both] == [4, 5] and len({clip.folder for clip in both}) == 2
    frames = [stored_frames(clip.folder).astype(int) for clip in both]
    assert np.abs(frames[0] - frames[1]).max() > 2
    recipe = make_recipe(prompt="a red ball", guidance=1.0, seed=5, chunk_size="none", output_dir=tmp_path / "whole")
    (whole,) = generate(recipe, progress=False)
    assert np.abs(frames[1] - stored_frames(whole.folder)).max() <= 1


def test_files_are_what_the_vae_decodes(make_recipe, reference_dir, wan_folder):
    from wan_alpha.inference.sampler import sample_latents
    from wan_alpha.models.wan import encode_prompts

    recipe = make_recipe(guidance=1.0, solver="euler")
    (clip,) = generate(recipe, progress=False)
    pipe = load_wan(wan_folder)
    latents = sample_latents(
        pipe.dit, encode_prompts(pipe, [recipe.prompt]), (1, 16, 3, 4, 6), num_steps=2, solver="euler", seed=4
    )
    vae = RGBAlphaVAE.from_pretrained(reference_dir / "base_vae.safetensors", reference_dir / "rgba_vae_checkpoint.bin")
    with torch.no_grad():
        expected = rgba_frames(*vae.decode(latents))
    assert np.abs(stored_frames(clip.folder).astype(int) - expected).max() <= 1


def test_adapter_and_mask_reach_the_sample(make_recipe, wan_folder, tmp_path, monkeypatch):
    lent, copy_to = [], block_offload.copy_to
    monkeypatch.setattr(block_offload, "copy_to", lambda weight, device: lent.append(1) or copy_to(weight, device))
    dit = load_wan(wan_folder, components=("dit",)).dit
    with torch.no_grad():
        for parameter in add_adapter(dit, rank=2, alpha=2):
            parameter += 0.3
    path = tmp_path / "adapter.safetensors"
    save_adapter(dit, path, kind="dora", rank=2, alpha=2, base_sha256="ab")
    mask = {"mask": "ellipse:0.5,0.5,0.2,0.2", "noise_shift": 2.0}
    off = {"model.adapter": path, "model.adapter_scale": 0}
    away = {"model.adapter": path, "offload_blocks": True}
    changes = {"plain": {}, "adapted": {"model.adapter": path}, "masked": mask, "off": off, "away": away}
    frames = {}
    for name, options in changes.items():
        (clip,) = generate(make_recipe(output_dir=tmp_path / name, num_frames=5, **options), progress=False)
        frames[name] = stored_frames(clip.folder).astype(int)
    for name in ("adapted", "masked"):
        assert np.abs(frames[name] - frames["plain"]).max() > 2, name
    assert np.array_equal(frames["off"], frames["plain"])
    assert np.array_equal(frames["away"], frames["adapted"]) and lent, "blocks may wait in host memory"
    settings = json.loads((tmp_path / "adapted" / clip.folder.name / "settings.json").read_text())
    assert settings["adapter"] == {"kind": "dora", "rank": "2", "alpha": "2", "base_sha256": "ab"}


def test_models_are_never_there_together(make_recipe, monkeypatch):
    import gc

    from diffsynth.models.wan_video_dit import WanModel
    from diffsynth.models.wan_video_text_encoder import WanTextEncoder

    before = {id(one) for one in gc.get_objects() if isinstance(one, (WanModel, WanTextEncoder))}
    alive = []

    def watch(function):
        def watched(*args, **options):
            gc.collect()
            models = [one for one in gc.get_objects() if isinstance(one, (WanModel, WanTextEncoder))]
            alive.append({type(one).__name__ for one in models if id(one) not in before})
            return function(*args, **options)

        return watched

    import wan_alpha.inference.clip_files
    import wan_alpha.inference.sampler

    steps = ((wan_alpha.inference.sampler, "sample_latents"), (wan_alpha.inference.clip_files, "write_clip"))
    for module, name in steps:
        monkeypatch.setattr(module, name, watch(getattr(module, name)))
    generate(make_recipe(guidance=1.0), progress=False)
    assert alive == [{"WanModel"}, set()]


def test_folder_names_are_safe():
    assert clip_folder("out", 7, "a red ball").name == "007_a_red_ball"
    assert clip_folder("out", 7, "A Red/Blue  BALL!?").name == "007_a_red_blue_ball_63e249d7"
    assert re.fullmatch("000_clip_[0-9a-f]{8}", clip_folder("out", 0, "???").name)
    assert len(clip_folder("out", 0, "word " * 50).name) <= 53


def test_prompts_that_begin_alike_have_folders_of_their_own():
    opening = "The background is transparent. Photograph, medium shot. "
    prompts = [opening + end for end in ("A red balloon rises.", "A blue balloon rises.", "a red balloon rises", "")]
    prompts += ["a red ball", "A red ball", "a red ball.", "a red_ball", "?", "!"]
    assert len({clip_folder("out", 0, prompt) for prompt in prompts}) == len(prompts)


def test_prompts_files_without_prompts_are_refused(make_recipe, tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    cases = (("empty", "expected a prompt, found none"), ("binary", "cannot be read"), ("gone", "cannot be read"))
    for name, message in cases:
        with pytest.raises(ConfigError, match=message):
            read_prompts(make_recipe(prompt=None, prompts_file=tmp_path / f"{name}.txt"))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"num_frames": 10}, "9 or 13 would be valid"), ({"height": 40}, "32 or 48 would be valid")],
)
def test_sizes_off_the_grid_name_the_nearest(make_recipe, options, message):
    with pytest.raises(ConfigError, match=message):
        make_recipe(**options)


def load_example():
    path = Path(__file__).parents[2] / "examples" / "inference_rgba.py"
    spec = importlib.util.spec_from_file_location("inference_rgba", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_generates_and_reports_mistakes(wan_folder, reference_dir, tmp_path, capsys):
    example = load_example()
    arguments = [
        "--wan", str(wan_folder), "--feature_merge_checkpoint", str(reference_dir / "rgba_vae_checkpoint.bin"),
        "--prompt", "a blue ball", "--num_frames", "5", "--height", "32", "--width", "32", "--num_steps", "1",
        "--guidance", "1", "--seed", "2", "--device", "cpu", "--output_path", str(tmp_path / "out"),
    ]  # fmt: skip
    assert example.main(arguments) == 0
    assert stored_frames(tmp_path / "out" / "000_a_blue_ball").shape == (5, 32, 32, 4)
    assert example.main([*arguments, "--height", "33"]) == 2
    assert "32 or 48 would be valid" in capsys.readouterr().err
