import csv
import json
from functools import partial
from pathlib import Path

import pytest
import torch
from processes import run_forked
from safetensors.torch import load_file, save_file
from tiny_wan_files import NUM_TOKENS, write_dataset

from wan_alpha.alpha.composite import background_color, hard_render
from wan_alpha.alpha.masks import gaussian_ellipse
from wan_alpha.data import digests
from wan_alpha.data.cached_samples import LatentCacheDataset
from wan_alpha.data.latent_cache import LatentCache, item_path, pad_context
from wan_alpha.data.operators import LoadRGBAVideoPair
from wan_alpha.errors import CheckpointError, DataError
from wan_alpha.models import block_offload, tiling
from wan_alpha.models.rgba_vae import RGBAlphaVAE
from wan_alpha.models.wan import encode_prompts, load_wan
from wan_alpha.stages.cache_latents import build_cache
from wan_alpha.stages.dit_data import open_fresh_cache
from wan_alpha.training.performance_file import read_performance

TOLERANCE = 1e-5
SCRIPT = Path(__file__).with_name("build_cache_process.py")


@pytest.fixture(scope="module")
def built(tmp_path_factory, make_cache_recipe):
    recipe = make_cache_recipe(tmp_path_factory.mktemp("cache"))
    return recipe, build_cache(recipe)


def counts(report):
    return report.built, report.reused, report.removed


def test_the_cache_holds_what_would_be_computed(built, dataset_folder):
    recipe, report = built
    assert counts(report) == (3, 0, 0)
    stages = read_performance(recipe.output_dir)["stages"]
    assert {name: one["count"] for name, one in stages.items() if one["unit"] != "times"} == {
        "encode: captions": 4, "encode: clips": 3
    }  # fmt: skip
    cache = LatentCache.open(recipe.output_dir)
    cache.verify()
    assert cache.index.context_length == NUM_TOKENS
    vae = RGBAlphaVAE.from_pretrained(recipe.model.base_vae, recipe.model.rgba_weights)
    pipe = load_wan(recipe.model.wan, components=("text_encoder", "tokenizer"))
    load = LoadRGBAVideoPair(dataset_folder, 5, 32, 32)
    for index in range(3):
        item = cache.read(index)
        clip = load(f"{index:03d}_rgb.mkv")
        rgb, alpha = clip["rgb"][None], clip["alpha"][None]
        with torch.no_grad():
            latents = vae.encode(hard_render(rgb, alpha, background_color(item.background)), alpha)[0]
        torch.testing.assert_close(item.latents, latents, atol=TOLERANCE, rtol=0)
        context = encode_prompts(pipe, [item.prompt])[0]
        torch.testing.assert_close(pad_context(item.context, NUM_TOKENS), context, atol=TOLERANCE, rtol=0)
        assert len(item.context) == len(item.prompt) + 1  # one token a byte, and the end
        torch.testing.assert_close(item.ellipse, gaussian_ellipse(alpha)[0], atol=TOLERANCE, rtol=0)
        assert [source.rsplit("_", 1)[1] for source in item.sources] == ["rgb.mkv", "alpha.mkv"]
    torch.testing.assert_close(cache.empty_context(), encode_prompts(pipe, [""])[0], atol=TOLERANCE, rtol=0)
    assert LatentCacheDataset(cache)[2]["prompt"] == "a green circle, moving"


def test_a_finished_cache_is_not_touched(built):
    recipe, _ = built
    before = {path: path.stat().st_mtime_ns for path in recipe.output_dir.rglob("*.safetensors")}
    assert counts(build_cache(recipe)) == (0, 3, 0)
    assert {path: path.stat().st_mtime_ns for path in recipe.output_dir.rglob("*.safetensors")} == before


def test_a_damaged_item_is_built_again_and_the_same(built):
    recipe, _ = built
    path = item_path(recipe.output_dir, LatentCache.open(recipe.output_dir).keys[1])
    before = {name: value.clone() for name, value in load_file(path).items()}  # else they are the file itself
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=path.name):
        LatentCache.open(recipe.output_dir).verify()
    assert counts(build_cache(recipe)) == (1, 2, 0)
    after = load_file(path)
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, atol=TOLERANCE, rtol=0)


def edit_caption(folder):
    text = (folder / "metadata.csv").read_text()
    (folder / "metadata.csv").write_text(text.replace("a blue circle", "one blue circle"))


def drop_row(folder):
    lines = (folder / "metadata.csv").read_text().splitlines()
    (folder / "metadata.csv").write_text("\n".join(lines[:-1]) + "\n")


def reverse_rows(folder):
    with open(folder / "metadata.csv", newline="") as file:
        header, *rows = csv.reader(file)
    with open(folder / "metadata.csv", "w", newline="") as file:
        csv.writer(file).writerows([header, *reversed(rows)])


def replace_clip(folder):
    (folder / "000_alpha.mkv").write_bytes((folder / "001_alpha.mkv").read_bytes())


@pytest.mark.parametrize(
    ("change", "expected"),
    [(edit_caption, (1, 2, 1)), (drop_row, (0, 2, 1)), (reverse_rows, (0, 3, 0)), (replace_clip, (1, 2, 1))],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_only_what_changed_is_built_again(tmp_path, make_cache_recipe, change, expected):
    folder = write_dataset(tmp_path / "dataset")
    recipe = make_cache_recipe(tmp_path / "cache", **{"data.base_path": folder})
    build_cache(recipe)
    change(folder)
    assert counts(build_cache(recipe)) == expected
    cache = LatentCache.open(tmp_path / "cache")
    cache.verify()
    assert {path.stem for path in (tmp_path / "cache" / "items").iterdir()} == set(cache.keys)


def test_other_settings_and_weights_make_other_items(tmp_path, make_cache_recipe, reference_dir):
    folder = tmp_path / "cache"
    build_cache(make_cache_recipe(folder))
    assert counts(build_cache(make_cache_recipe(folder, background="white"))) == (3, 0, 3)
    assert LatentCache.open(folder).read(0).background == "white"
    vae = RGBAlphaVAE.from_pretrained(reference_dir / "base_vae.safetensors", reference_dir / "rgba_vae_checkpoint.bin")
    with torch.no_grad():
        next(vae.merge.parameters()).mul_(1.01)
    vae.save(tmp_path / "retrained.safetensors")
    changed = {"background": "white", "model.rgba_weights": tmp_path / "retrained.safetensors"}
    assert counts(build_cache(make_cache_recipe(folder, **changed))) == (3, 0, 3)


def test_repeats_differ_in_colour_or_place(tmp_path, make_cache_recipe):
    recipe = make_cache_recipe(tmp_path, **{"data.repeat": 2, "data.augment": True})
    assert counts(build_cache(recipe)) == (6, 0, 0)
    cache = LatentCache.open(tmp_path)
    assert len(set(cache.keys)) == 6
    assert not torch.equal(cache.read(0).latents, cache.read(3).latents)


def test_bfloat16_comes_close_and_is_kept_apart(tmp_path, make_cache_recipe, built):
    exact = LatentCache.open(built[0].output_dir)
    build_cache(make_cache_recipe(tmp_path, precision="bf16"))
    rounded = LatentCache.open(tmp_path)
    assert not set(rounded.keys) & set(exact.keys)
    for index in range(3):
        ours, theirs = rounded.read(index), exact.read(index)
        torch.testing.assert_close(ours.latents, theirs.latents, atol=0.1, rtol=0.1)
        assert ours.context.dtype == torch.bfloat16
    assert LatentCacheDataset(rounded)[0]["context"].dtype == torch.float32


def test_a_cache_in_less_memory_is_the_same_but_for_tiles(tmp_path, make_cache_recipe, built, monkeypatch):
    exact, sizes = LatentCache.open(built[0].output_dir), []
    copy_to = block_offload.copy_to
    monkeypatch.setattr(block_offload, "copy_to", lambda weight, device: sizes.append(1) or copy_to(weight, device))
    monkeypatch.setattr(tiling, "Tiling", partial(tiling.Tiling, 16, 8))
    build_cache(make_cache_recipe(tmp_path / "away", offload_blocks=True))
    away = LatentCache.open(tmp_path / "away")
    assert away.keys == exact.keys and sizes, "where weights wait makes no other items"
    build_cache(make_cache_recipe(tmp_path / "tiled", tiled=True))
    in_tiles = LatentCache.open(tmp_path / "tiled")
    assert not set(in_tiles.keys) & set(exact.keys)
    for index in range(3):
        ours, theirs = in_tiles.read(index), exact.read(index)
        assert torch.equal(away.read(index).context, theirs.context) and torch.equal(ours.context, theirs.context)
        assert 0 < (ours.latents - theirs.latents).abs().mean() < 0.5 * theirs.latents.std()


def build_in_two_processes(folder, recipes):
    """Build recipes one after the other in two processes; returns (first, second) report of each."""
    files = [folder / f"recipe{number}.json" for number in range(len(recipes))]
    for file, recipe in zip(files, recipes, strict=True):
        file.write_text(json.dumps(recipe.as_dict()))
    run_forked(SCRIPT, folder, *files)
    return list(zip(*(json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)), strict=True))


def test_two_processes_share_the_work_and_meet(tmp_path, make_cache_recipe):
    """Three builds of one folder: from nothing, all anew beside the finished cache, and with a clip that fails."""
    whole, broken = write_dataset(tmp_path / "dataset"), write_dataset(tmp_path / "broken")
    (broken / "001_alpha.mkv").write_bytes(b"not a video")
    cache = tmp_path / "cache"
    recipe = make_cache_recipe(cache, **{"data.base_path": whole})
    changes = [{"data.base_path": whole, "force": True}, {"data.base_path": broken, "force": True}]
    builds = build_in_two_processes(tmp_path, [recipe, *(make_cache_recipe(cache, **change) for change in changes)])

    (first, second), (first_again, second_again), (survivor, failed) = builds
    assert (first["built"], second["built"], second["num_items"]) == (2, 1, 3)
    assert "models_t5_umt5-xxl-enc-bf16.pth" in first["hashed"] and second["hashed"] == []

    assert (first_again["built"], second_again["built"]) == (2, 1)
    assert first_again["hashed"] == second_again["hashed"] == []
    before, after = first["times"], first_again["times"]
    items = [name for name in before if name.endswith(".safetensors")]
    assert len(items) == 4 and before.keys() == after.keys()
    # Each is newer than the former index and no newer than this one: the first process waited for the second.
    assert all(before["cache.json"] < after[name] <= after["cache.json"] for name in items)

    assert failed["error"].startswith("row 2 (001_rgb.mkv)")
    assert survivor["error"] == f"process 1 failed: {failed['error']}"
    assert not (cache / "cache.json").exists()


def test_files_are_hashed_once(tmp_path, make_cache_recipe, monkeypatch):
    folder = write_dataset(tmp_path / "dataset")
    recipe = make_cache_recipe(tmp_path / "cache", **{"data.base_path": folder})
    build_cache(recipe)
    monkeypatch.setattr(digests, "file_sha256", lambda path: pytest.fail(f"{path} was read again"))
    assert counts(build_cache(recipe)) == (0, 3, 0)
    open_fresh_cache(tmp_path / "cache")


def test_a_bad_clip_stops_with_its_row_and_the_rest_is_kept(tmp_path, make_cache_recipe):
    folder = write_dataset(tmp_path / "dataset")
    whole = (folder / "002_alpha.mkv").read_bytes()
    (folder / "002_alpha.mkv").write_bytes(b"not a video")
    recipe = make_cache_recipe(tmp_path / "cache", **{"data.base_path": folder})
    with pytest.raises(DataError, match=r"row 3 \(002_rgb\.mkv\).*002_alpha"):
        build_cache(recipe)
    assert not (tmp_path / "cache" / "cache.json").exists()
    (folder / "002_alpha.mkv").write_bytes(whole)
    assert counts(build_cache(recipe)) == (1, 2, 0)


def test_a_model_without_text_encoder_is_refused(tmp_path, make_cache_recipe, wan_folder):
    source = [str(wan_folder / "diffusion_pytorch_model.safetensors")]
    with pytest.raises(CheckpointError, match="text encoder"):
        build_cache(make_cache_recipe(tmp_path, **{"model.wan": source}))


def test_another_text_encoder_makes_another_cache(tmp_path, make_cache_recipe, wan_folder):
    encoder = load_wan(str(wan_folder), components=("text_encoder",)).text_encoder.state_dict()
    encoder["norm.weight"] = encoder["norm.weight"] * 1.5
    folder = tmp_path / "wan"
    folder.mkdir()
    (folder / "google").symlink_to(wan_folder / "google")
    save_file(encoder, folder / "models_t5_umt5-xxl-enc-bf16.safetensors")
    build_cache(make_cache_recipe(tmp_path / "cache"))
    before = LatentCache.open(tmp_path / "cache")
    assert counts(build_cache(make_cache_recipe(tmp_path / "cache", **{"model.wan": str(folder)}))) == (3, 0, 3)
    after = LatentCache.open(tmp_path / "cache")
    assert after.index.text_fingerprint != before.index.text_fingerprint
    after.verify()
