"""Where files are found, and the sizes that their shapes give; nothing but headers is read."""

import json

import pytest
import torch
from safetensors.torch import save_file

from wan_alpha.errors import CheckpointError, ConfigError
from wan_alpha.weights.wan_layout import (
    find_wan_files,
    infer_dit_sizes,
    infer_text_encoder_sizes,
    vae_file,
    weight_shapes,
)

# What tells each part, and no more.
DIT = {"patch_embedding.weight": torch.zeros(2, 2, 1, 1, 1)}
DIT |= {name: torch.zeros(2, 2) for name in ("head.head.weight", "text_embedding.0.weight")}
TEXT = {name: torch.zeros(2, 2) for name in ("token_embedding.weight", "blocks.0.attn.q.weight")}
TEXT |= {"norm.weight": torch.zeros(2)}
VAE = {f"{name}.weight": torch.zeros(16, 2, 1, 1, 1) for name in ("encoder.conv1", "decoder.conv1", "conv2")}


def download(folder, *, experts=False, shards=1, tokenizer=True):
    """A folder laid out as Wan's own repositories, one small tensor a file."""
    for sub in ("high_noise_model", "low_noise_model") if experts else (".",):
        (folder / sub).mkdir(parents=True, exist_ok=True)
        if shards == 1:
            save_file(DIT, folder / sub / "diffusion_pytorch_model.safetensors")
            continue
        names = [f"diffusion_pytorch_model-{i:05d}-of-{shards:05d}.safetensors" for i in range(1, shards + 1)]
        index = {"weight_map": {}}
        for i, name in enumerate(names):
            part = DIT if i == 0 else {f"blocks.{i}.w": torch.zeros(1)}
            save_file(part, folder / sub / name)
            index["weight_map"] |= dict.fromkeys(part, name)
        (folder / sub / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    torch.save(TEXT, folder / "models_t5_umt5-xxl-enc-bf16.pth")
    torch.save(VAE, folder / "Wan2.1_VAE.pth")
    if tokenizer:
        (folder / "google" / "umt5-xxl").mkdir(parents=True)
    return folder


def names(paths):
    return [path.name for path in paths]


def test_folder_of_one_model(tmp_path):
    files = find_wan_files(download(tmp_path, shards=3))
    assert names(files.dit) == [f"diffusion_pytorch_model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    assert names(files.text_encoder) == ["models_t5_umt5-xxl-enc-bf16.pth"] and names(files.vae) == ["Wan2.1_VAE.pth"]
    assert files.dit_low_noise == [] and files.tokenizer == tmp_path / "google" / "umt5-xxl"


def test_folder_of_two_experts(tmp_path):
    files = find_wan_files(str(download(tmp_path, experts=True)))
    assert [path.parent.name for path in files.dit + files.dit_low_noise] == ["high_noise_model", "low_noise_model"]


@pytest.mark.parametrize("as_json", [False, True])
def test_list_of_files_in_any_order(tmp_path, as_json):
    download(tmp_path, shards=2)
    shards = sorted(str(path) for path in tmp_path.glob("diffusion*.safetensors"))
    source = [str(tmp_path / "Wan2.1_VAE.pth"), shards, str(tmp_path / "models_t5_umt5-xxl-enc-bf16.pth")]
    files = find_wan_files(json.dumps(source) if as_json else source)
    assert [str(path) for path in files.dit] == shards
    assert names(files.text_encoder + files.vae) == ["models_t5_umt5-xxl-enc-bf16.pth", "Wan2.1_VAE.pth"]
    assert files.tokenizer == tmp_path / "google" / "umt5-xxl"


def test_tokenizer_folder_may_be_named(tmp_path):
    download(tmp_path, tokenizer=False)
    (tmp_path / "elsewhere").mkdir()
    assert find_wan_files(tmp_path).tokenizer is None
    assert find_wan_files(tmp_path, tmp_path / "elsewhere").tokenizer == tmp_path / "elsewhere"
    with pytest.raises(CheckpointError, match="no such tokenizer folder"):
        find_wan_files(tmp_path, tmp_path / "nowhere")


def test_a_second_dit_is_the_low_noise_expert_and_a_third_is_too_many(tmp_path):
    paths = [str(tmp_path / f"{i}.safetensors") for i in range(3)]
    for path in paths:
        save_file(DIT, path)
    files = find_wan_files(paths[:2])
    assert (names(files.dit), names(files.dit_low_noise)) == (["0.safetensors"], ["1.safetensors"])
    with pytest.raises(CheckpointError, match="a second dit_low_noise"):
        find_wan_files(paths)


def test_wrong_sources_are_refused(tmp_path):
    stranger = tmp_path / "stranger.safetensors"
    save_file({"a.weight": torch.zeros(1)}, stranger)
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"nothing")
    gap = download(tmp_path / "gap", shards=2)
    (gap / "diffusion_pytorch_model-00002-of-00002.safetensors").unlink()
    (tmp_path / "diffusers").mkdir()
    (tmp_path / "diffusers" / "model_index.json").write_text("{}")
    cases = [
        (str(tmp_path / "nowhere"), CheckpointError, "no such folder"),
        ([str(stranger)], CheckpointError, "found a.weight"),
        ([str(broken)], CheckpointError, "not a readable safetensors file"),
        ([str(tmp_path / "gone.safetensors")], CheckpointError, "no such weight file"),
        ("[not json", ConfigError, "not valid JSON"),
        ([], ConfigError, "expected a list of paths"),
        (gap, CheckpointError, "diffusion_pytorch_model-00002-of-00002.safetensors missing"),
        (tmp_path / "diffusers", CheckpointError, "model_index.json is there, but no weights are"),
    ]
    for source, error, message in cases:
        with pytest.raises(error, match=message):
            find_wan_files(source)


def test_model_ids_work_from_local_files_and_say_so_when_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFSYNTH_MODEL_BASE_PATH", str(tmp_path))
    monkeypatch.setattr("diffsynth.core.ModelConfig.download", offline)
    download(tmp_path / "Wan-AI" / "Wan2.1-T2V-1.3B", shards=2)
    model = "Wan-AI/Wan2.1-T2V-1.3B"
    files = find_wan_files(f"{model}:diffusion_pytorch_model*.safetensors,{model}:models_t5_umt5-xxl-enc-bf16.pth")
    assert len(files.dit) == 2 and len(files.text_encoder) == 1 and files.tokenizer.name == "umt5-xxl"
    with pytest.raises(CheckpointError, match=r"cannot be downloaded \(ConnectionError: no network\) and is not under"):
        find_wan_files("Wan-AI/Wan2.1-T2V-14B:diffusion_pytorch_model*.safetensors")


def offline(self):
    raise ConnectionError("no network")


def dit_shapes(dim, ffn, layers, channels=16):
    shapes = {
        "patch_embedding.weight": (dim, channels, 1, 2, 2),
        "text_embedding.0.weight": (dim, 4096),
        "time_embedding.0.weight": (dim, 256),
        "head.head.weight": (channels * 4, dim),
    }
    return shapes | {f"blocks.{i}.ffn.0.weight": (ffn, dim) for i in range(layers)}


@pytest.mark.parametrize(
    ("dim", "ffn", "layers", "heads", "channels"),
    [(1536, 8960, 30, 12, 16), (5120, 13824, 40, 40, 16), (3072, 14336, 30, 24, 48)],
    ids=["1.3B", "14B", "TI2V-5B"],
)
def test_sizes_of_the_released_models(dim, ffn, layers, heads, channels, tmp_path):
    save_file(DIT, tmp_path / "dit.safetensors")
    sizes = infer_dit_sizes(dit_shapes(dim, ffn, layers, channels), [tmp_path / "dit.safetensors"])
    assert sizes == {
        "dim": dim, "in_dim": channels, "ffn_dim": ffn, "out_dim": channels, "text_dim": 4096, "freq_dim": 256,
        "eps": 1e-6, "patch_size": (1, 2, 2), "num_heads": heads, "num_layers": layers, "has_image_input": False,
        "has_image_pos_emb": False, "has_ref_conv": False,
    }  # fmt: skip


def test_head_count_of_other_sizes_comes_from_config_or_metadata(tmp_path):
    path = tmp_path / "dit.safetensors"
    save_file(DIT, path)
    with pytest.raises(CheckpointError, match="expected num_heads in config.json"):
        infer_dit_sizes(dit_shapes(128, 512, 2), [path])
    save_file(DIT, path, {"num_heads": "4"})
    assert infer_dit_sizes(dit_shapes(128, 512, 2), [path])["num_heads"] == 4
    for stated, result in ((8, 8), (7, "expected an even head size"), ("many", "whole number of heads")):
        (tmp_path / "config.json").write_text(json.dumps({"num_heads": stated}))
        if isinstance(result, int):
            assert infer_dit_sizes(dit_shapes(128, 512, 2), [path])["num_heads"] == result
        else:
            with pytest.raises(CheckpointError, match=result):
                infer_dit_sizes(dit_shapes(128, 512, 2), [path])


def test_sizes_of_the_text_encoder(tmp_path):
    shapes = {
        "token_embedding.weight": (256384, 4096),
        "blocks.0.pos_embedding.embedding.weight": (32, 64),
        "blocks.0.attn.q.weight": (4096, 4096),
        "blocks.0.ffn.fc1.weight": (10240, 4096),
        "blocks.23.norm1.weight": (4096,),
    }
    assert infer_text_encoder_sizes(shapes, ["t5.pth"]) == {
        "vocab": 256384, "dim": 4096, "dim_attn": 4096, "dim_ffn": 10240, "num_heads": 64, "num_layers": 24,
        "num_buckets": 32, "shared_pos": False,
    }  # fmt: skip
    with pytest.raises(CheckpointError, match=r"expected blocks.0.attn.q.weight .* found no such tensor"):
        infer_text_encoder_sizes({k: v for k, v in shapes.items() if ".q." not in k}, ["t5.pth"])


def test_shards_must_not_overlap(tmp_path):
    for name in ("a.safetensors", "b.safetensors"):
        save_file(DIT, tmp_path / name)
    with pytest.raises(CheckpointError, match="is in another shard too"):
        weight_shapes([tmp_path / "a.safetensors", tmp_path / "b.safetensors"])


def test_a_folder_stands_for_its_vae(tmp_path):
    folder = download(tmp_path / "wan")
    assert vae_file(folder) == folder / "Wan2.1_VAE.pth" == vae_file(str(folder / "Wan2.1_VAE.pth"))
    (folder / "Wan2.1_VAE.pth").unlink()
    with pytest.raises(CheckpointError, match="no Wan vae in this folder; see `wan-alpha inspect"):
        vae_file(folder)


def test_the_id_of_a_known_model_is_enough(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFSYNTH_MODEL_BASE_PATH", str(tmp_path))
    monkeypatch.setattr("diffsynth.core.ModelConfig.download", offline)
    download(tmp_path / "Wan-AI" / "Wan2.1-T2V-1.3B", shards=2)
    files = find_wan_files("Wan-AI/Wan2.1-T2V-1.3B")
    assert len(files.dit) == 2 and files.vae and files.text_encoder and files.tokenizer.name == "umt5-xxl"
    with pytest.raises(CheckpointError, match="ConnectionError: no network.*put the files there, or name local files"):
        find_wan_files("Wan-AI/Wan2.2-TI2V-5B")
