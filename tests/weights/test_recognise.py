"""What files and folders are, from headers alone: every layout, the six families at their real sizes, and strangers."""

import json
import math

import pytest
import torch
from real_size_headers import FAMILIES, write_family, write_sparse
from safetensors.torch import save_file
from wan_layouts import LAYOUTS, dit_to_diffusers, states, write_diffusers, write_original

from wan_alpha.errors import CheckpointError
from wan_alpha.models.tiny import tiny_wan_folder
from wan_alpha.weights.memory import MODES, PHASES, mode_peaks, num_adapter_parameters, phase_peaks
from wan_alpha.weights.recognise.adapters import describe_adapter
from wan_alpha.weights.recognise.configs import plan_configs, write_configs
from wan_alpha.weights.recognise.folder import recognise
from wan_alpha.weights.recognise.serves import service_for, services
from wan_alpha.weights.registry import families_of, known_model, known_models
from wan_alpha.weights.tensor_info import TensorInfo

MEGABYTE = 10**6
# Billions of parameters of each DiT, as their makers count.
BILLIONS = {
    "Wan2.1-T2V-1.3B": 1.42, "Wan2.1-T2V-14B": 14.3, "Wan2.2-T2V-A14B": 14.3, "Wan2.2-TI2V-5B": 5.0,
    "Wan2.1-I2V-14B": 16.4,
}  # fmt: skip


@pytest.mark.parametrize("family", [*FAMILIES, "tiny"])
def test_the_six_families_at_their_real_sizes_from_a_few_kilobytes(tmp_path, family):
    folder = tiny_wan_folder() if family == "tiny" else write_family(tmp_path, family)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    found = recognise(folder)
    assert found.families[0] == family and found.layout == "original"
    assert not found.problems and not found.missing
    assert found.num_bytes_read < 2 * MEGABYTE and (family == "tiny" or size > 8e9)
    kinds = [one.kind for one in found.components]
    model = known_model(family)
    assert kinds.count("dit") == 1 and kinds.count("dit_low_noise") == model.num_experts - 1
    assert {"text_encoder", "vae", "tokenizer"} < set(kinds) and ("image_encoder" in kinds) == ("-I2V" in family)
    assert found.boundary == model.boundary
    if family != "tiny":
        dit = found.part("dit")
        assert dit.num_parameters == pytest.approx(BILLIONS[family] * 1e9, rel=0.02) and set(dit.dtypes) == {"BF16"}
        vae = found.part("vae")
        assert vae.sizes["latent_channels"] == (48 if "5B" in family else 16)
        assert found.part("text_encoder").title == "UMT5-XXL encoder"


def test_28_gigabytes_in_diffusers_layout_from_a_few_kilobytes(tmp_path):
    from real_size_headers import dit_shapes, write_sparse_shards

    shapes = dit_to_diffusers(dit_shapes(FAMILIES["Wan2.2-T2V-A14B"][0]))
    for sub in ("transformer", "transformer_2"):
        (tmp_path / sub).mkdir()
        write_sparse_shards(tmp_path / sub, shapes, 12)
    (tmp_path / "model_index.json").write_text(json.dumps({"boundary_ratio": 0.8}))
    found = recognise(tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors")) > 57e9
    assert found.layout == "diffusers" and found.families == ("Wan2.2-T2V-A14B",) and found.boundary == 0.8
    assert found.num_bytes_read < 2 * MEGABYTE
    assert found.missing == {"text encoder": "text_encoder/", "tokenizer": "tokenizer/", "VAE": "vae/"}


@pytest.mark.parametrize("experts", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_recognised_part_by_part(tmp_path, layout, experts):
    if experts and layout in ("all in one", "pickles"):
        experts = False
    found = recognise(LAYOUTS[layout](tmp_path, experts=experts))
    kinds = {"dit", "text_encoder", "vae", "tokenizer"} | ({"dit_low_noise"} if experts else set())
    assert {one.kind for one in found.components} == kinds and not found.problems and not found.missing
    expected = {"all in one": "comfyui", "pickles": "original"}.get(layout, layout)
    assert found.layout == expected and found.families == ("tiny",)
    for kind in kinds - {"tokenizer"}:
        assert found.part(kind).num_parameters == sum(t.numel() for t in states()[kind].values())
    generate = service_for(found, "generate")
    assert generate.can and generate.gives["model.wan"] == str(tmp_path)
    assert "rgba_vae.safetensors" in generate.needs["model.rgba_weights"]
    assert service_for(found, "train-vae").gives == {"model.base_vae": str(found.part("vae").paths[0])}


def lora(layer_sizes, rank=8, form="{}.lora_A.weight|{}.lora_B.weight", prefix="", **more):
    """Shapes of an adapter's tensors: layer -> (out, in)."""
    tensors = {}
    for layer, (out, inner) in layer_sizes.items():
        down, up = (prefix + one.format(layer) for one in form.split("|"))
        tensors |= {down: (rank, inner), up: (out, rank)}
        for ending in more.get("magnitude", ()):
            tensors[f"{prefix}{layer}.{ending}"] = (out,)
        for ending in more.get("scalar", ()):
            tensors[f"{prefix}{layer}.{ending}"] = ()
    return {name: TensorInfo(shape, "BF16") for name, shape in tensors.items()}


def blocks(dim, ffn, count):
    layers = {}
    for number in range(count):
        layers |= {f"blocks.{number}.self_attn.{name}": (dim, dim) for name in "qkvo"}
        layers |= {f"blocks.{number}.ffn.0": (ffn, dim), f"blocks.{number}.ffn.2": (dim, ffn)}
    return layers


COMFYUI = "{}.lora_down.weight|{}.lora_up.weight"
ADAPTERS = {
    "LoRA of the 1.3B, PEFT": (
        lora(blocks(1536, 8960, 30), prefix="base_model.model."), "lora", "peft", ("Wan2.1-T2V-1.3B",),
    ),
    "DoRA of the 1.3B, ours": (
        lora(blocks(1536, 8960, 30), 32, "{}.lora_A.default.weight|{}.lora_B.default.weight",
             magnitude=["lora_magnitude_vector.default.weight"]), "dora", "wan-alpha", ("Wan2.1-T2V-1.3B",),
    ),
    "LoRA of the 5B, ComfyUI": (
        lora(blocks(3072, 14336, 30), 16, COMFYUI, "diffusion_model.", scalar=["alpha"]), "lora", "comfyui",
        ("Wan2.2-TI2V-5B",),
    ),
    "LoRA of the 14B, diffusers": (
        lora({"blocks.39.attn1.to_q": (5120, 5120), "blocks.0.ffn.net.0.proj": (13824, 5120)}, 4,
             prefix="transformer."),
        "lora", "diffusers",
        ("Wan2.1-T2V-14B", "Wan2.2-T2V-A14B", "Wan2.1-I2V-14B", "Wan2.2-I2V-A14B"),
    ),
    "LoRA of the I2V-14B": (
        lora({"blocks.3.cross_attn.k_img": (5120, 5120)}, 4, COMFYUI, "diffusion_model."), "lora", "comfyui",
        ("Wan2.1-I2V-14B",),
    ),
    "DoRA, ComfyUI": (
        lora(blocks(1536, 8960, 2), 4, COMFYUI, "diffusion_model.", magnitude=["dora_scale"]), "dora", "comfyui",
        ("Wan2.1-T2V-1.3B",),
    ),
    "LoKr": (
        {name: TensorInfo(shape, "F32") for name, shape in {
            "diffusion_model.blocks.0.self_attn.q.lokr_w1": (16, 16),
            "diffusion_model.blocks.0.self_attn.q.lokr_w2_a": (96, 8),
            "diffusion_model.blocks.0.self_attn.q.lokr_w2_b": (8, 96),
            "diffusion_model.blocks.0.self_attn.q.alpha": (),
        }.items()}, "lokr", "comfyui", ("Wan2.1-T2V-1.3B",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_says_its_kind_rank_targets_and_base(name):
    tensors, kind, dialect, families = ADAPTERS[name]
    found = describe_adapter(tensors, {})
    assert (found.details["kind"], found.naming, found.families) == (kind, dialect, families)
    assert not found.problems and len(found.details["ranks"]) == 1
    wan_names = {"q", "k", "v", "o", "0", "2", "k_img"}
    assert {target.split(".")[-1] for target in found.details["targets"]} <= wan_names


def test_an_adapter_file_with_its_alpha_and_its_card(tmp_path):
    tensors = {name: torch.zeros(info.shape) for name, info in lora(blocks(1536, 8960, 1), 4, COMFYUI).items()}
    tensors |= {f"{layer}.alpha": torch.tensor(16.0) for layer in blocks(1536, 8960, 1)}
    path = tmp_path / "style.safetensors"
    save_file(tensors, path, {"modelspec.title": "Glass", "trigger_words": '["glsx"]', "base_sha256": "ab" * 32})
    (found,) = recognise(path).components
    assert found.details["alpha"] == [16.0] and found.details["ranks"] == [4]
    assert found.details["modelspec.title"] == "Glass" and found.details["base_sha256"] == "ab" * 32
    offered = services(recognise(path))
    assert offered["generate"].gives == {"model.adapter": str(path)} and offered["generate"].can


def test_an_adapter_for_another_model_is_refused_by_name():
    found = describe_adapter(lora({"single_transformer_blocks.0.attn.to_q": (3072, 3072)}, prefix="transformer."), {})
    assert "for Flux" in found.title and "which no Wan DiT has" in found.problems[0]


STRANGERS = {
    "Flux": {"double_blocks.0.img_attn.qkv.weight": (9, 3), "single_blocks.0.linear1.weight": (9, 3)},
    "HunyuanVideo": {"double_blocks.0.img_attn_qkv.weight": (9, 3), "double_blocks.0.txt_attn_qkv.weight": (9, 3)},
    "LTX-Video": {"patchify_proj.weight": (4, 4), "transformer_blocks.0.scale_shift_table": (6, 4)},
    "CogVideoX (diffusers)": {
        "patch_embed.text_proj.weight": (4, 4), "transformer_blocks.0.norm1.linear.weight": (4, 4),
    },
    "Stable Diffusion XL": {"input_blocks.0.0.weight": (4, 4, 3, 3), "label_emb.0.0.weight": (4, 4)},
    "Stable Diffusion": {"model.diffusion_model.input_blocks.0.0.weight": (4, 4, 3, 3)},
    "Stable Diffusion 3": {"joint_blocks.0.x_block.attn.qkv.weight": (4, 4)},
    "Qwen-Image": {"transformer_blocks.0.img_mod.1.weight": (4, 4)},
    "2-D image VAE of Stable Diffusion (4 channels)": {"decoder.conv_in.weight": (8, 4, 3, 3)},
    "2-D image VAE of Flux or Stable Diffusion 3 (16 channels)": {
        "first_stage_model.decoder.conv_in.weight": (8, 16, 3, 3),
    },
    "weights of no known model (1 tensors)": {"something.weight": (3,)},
}  # fmt: skip


@pytest.mark.parametrize("title", STRANGERS)
def test_foreign_models_and_image_vaes_are_named_as_what_they_are(tmp_path, title):
    path = tmp_path / "stranger.safetensors"
    write_sparse(path, STRANGERS[title])
    found = recognise(path)
    assert found.components[0].title == title and str(path) in found.problems[0] and not services(found)
    assert service_for(found, "generate").refusal == found.problems[0]


def test_relatives_of_wan_are_not_taken_for_it(tmp_path):
    shapes = {name: tuple(tensor.shape) for name, tensor in states()["dit"].items()}
    write_sparse(tmp_path / "vace.safetensors", shapes | {"vace_blocks.0.before_proj.weight": (4, 4)})
    found = recognise(tmp_path / "vace.safetensors")
    assert "VACE" in found.components[0].title and found.part("dit") is None


def test_what_this_toolkit_and_the_release_write(tmp_path, reference_dir):
    cases = [
        ("decoder.bin", "decoder_lora", ["foreground decoder", "alpha decoder"]),
        ("rgba_vae_checkpoint.bin", "rgba_vae", ["merge block", "foreground decoder", "alpha decoder"]),
    ]
    for name, kind, parts in cases:
        (found,) = recognise(reference_dir / name).components
        assert (found.kind, found.naming, found.details["parts"]) == (kind, "released", parts)
        assert found.details["rank"] == 4 and found.details["version"] == "v1 or v2"
    torch.save(torch.zeros(21, 96, 170), tmp_path / "gauss_mask.pt")
    (mask,) = recognise(tmp_path / "gauss_mask.pt").components
    assert mask.kind == "gauss_mask" and mask.sizes["grid"] == [21, 96, 170]
    versions = {"{}": "v1 or v2", '{"loss": {"l1_weight": 1.0}}': "v1", '{"loss": {"diffusion_weight": 0.1}}': "v2"}
    for recipe, version in versions.items():
        path = tmp_path / f"{version.replace(' ', '')}.safetensors".replace("v1orv2", "plain")
        save_file({"merge.conv1.weight": torch.zeros(1)}, path, {"recipe": recipe})
        (tmp_path / "gauss_mask.pt").unlink(missing_ok=True)
        assert recognise(path).components[0].details["version"] == version
    released = tmp_path / "Wan-Alpha-v2.0" / "decoder.bin"
    released.parent.mkdir()
    released.write_bytes((reference_dir / "decoder.bin").read_bytes())
    assert recognise(released).components[0].details["version"] == "v2 by the names beside it"


PLACEHOLDERS = {
    "ours": ({"<cat>": (3, 4096)}, {"format": "wan_alpha.textual_inversion", "initializer": '{"<cat>": "cat"}',
                                    "modelspec.title": "My cat", "base_sha256": "ab" * 32}, ["<cat> (3 vectors)"]),
    "another word": ({"cat-toy": (1, 4096)}, {"format": "wan_alpha.textual_inversion"}, ["cat-toy (1 vectors)"]),
    "another program's": ({"emb_params": (2, 4096)}, {}, ["<learned> (2 vectors)"]),
    "one vector, flat": ({"<dog>": (4096,)}, {}, ["<dog> (1 vectors)"]),
}  # fmt: skip


@pytest.mark.parametrize("name", PLACEHOLDERS)
def test_textual_inversion_says_its_words_vectors_and_base(tmp_path, name):
    shapes, metadata, words = PLACEHOLDERS[name]
    path = tmp_path / "learned.safetensors"
    save_file({key: torch.zeros(shape) for key, shape in shapes.items()}, path, metadata)
    found = recognise(path)
    (component,) = found.components
    assert component.kind == "placeholders" and component.details["words"] == words and not found.problems
    assert "Wan2.1-T2V-1.3B" in found.families and "tiny" not in found.families
    assert {key: component.details[key] for key in metadata} == metadata
    assert services(found)["generate"].gives == {"model.embeddings": str(path)}
    save_file({"<a>": torch.zeros(1, 4), "<b>": torch.zeros(1, 5)}, path)
    assert f"{path}: expected placeholders" in recognise(path).problems[0]


def test_caches_checkpoints_and_runs(tmp_path):
    cache = tmp_path / "cache"
    (cache / "items").mkdir(parents=True)
    tensors = {"latents": torch.zeros(16, 2, 4, 4), "context": torch.zeros(3, 8), "ellipse": torch.zeros(2, 4, 4)}
    save_file(tensors, cache / "items" / "ab.safetensors", {"prompt": "a cat"})
    (cache / "cache.json").write_text(json.dumps({"keys": ["ab", "cd"], "context_length": 8}))
    found = recognise(cache)
    assert "2 clips" in found.components[0].title and "1 of 2 items missing, cd first" in found.problems[0]
    (item,) = recognise(cache / "items" / "ab.safetensors").components
    assert item.kind == "cache_item" and item.details["prompt"] == "a cat"
    (cache / "cache.json").write_text(json.dumps({"keys": ["ab"]}))
    assert services(recognise(cache))["train-dit"].gives == {"cache": str(cache)}
    (cache / "cache.json").write_text(json.dumps({"keys": ["../../etc/passwd"]}))
    with pytest.raises(CheckpointError, match="cache.json: expected the keys of a latent cache"):
        recognise(cache)
    step = tmp_path / "run" / "checkpoints" / "step_00000005"
    step.mkdir(parents=True)
    (step / "state.json").write_text(json.dumps({"step": 5, "format_version": 3}))
    assert "not written to its end" in recognise(step).problems[0]
    (step / "complete.json").write_text("{}")
    assert recognise(step).components[0].title == "checkpoint of step 5" and not recognise(step).problems
    (tmp_path / "run" / "recipe.json").write_text("{}")
    assert recognise(tmp_path / "run").components[0].title == "run with 1 checkpoints"


def test_what_a_single_file_lacks_is_named(tmp_path):
    folder = write_original(tmp_path)
    shard = folder / "diffusion_pytorch_model-00001-of-00002.safetensors"
    found = recognise(shard)
    assert len(found.part("dit").paths) == 2
    generate = service_for(found, "generate")
    assert not generate.can
    assert generate.lacks == {"text encoder": "models_t5_umt5-xxl-enc-bf16.pth", "tokenizer": "google/umt5-xxl/"}
    assert service_for(found, "train-dit").can


def test_a_damaged_file_among_good_ones_is_one_problem(tmp_path):
    folder = write_original(tmp_path)
    path = folder / "diffusion_pytorch_model-00002-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    found = recognise(folder)
    assert [one.kind for one in found.components if one.problems] == ["unknown"]
    assert "00002-of-00002.safetensors: truncated" in found.problems[0] and found.part("vae") is not None
    path.unlink()
    assert f"{path.name} missing; download again" in recognise(folder).problems[0]


@pytest.mark.parametrize("layout", ["original", "diffusers"])
def test_missing_and_wrong_configs_are_written_and_old_ones_kept(tmp_path, layout):
    folder = tmp_path
    if layout == "original":
        write_family(folder, "Wan2.1-T2V-1.3B")
        config, told = folder / "config.json", {"num_heads": 12, "dim": 1536, "num_layers": 30}
    else:
        write_diffusers(folder, experts=True)
        config, told = folder / "transformer_2" / "config.json", {"num_attention_heads": 4, "ffn_dim": 64}
        (folder / "model_index.json").unlink()
    wrong = json.dumps({**told, "num_layers": 7, "mine": 1})
    # Of a tiny model the shapes do not tell the heads: its config cannot be written anew.
    for content in (None, "not json", wrong) if layout == "original" else (wrong,):
        if content is not None:
            config.write_text(content)
        plans = plan_configs(recognise(folder))
        reasons = {plan.path.name: plan.reason for plan in plans if plan.path in (config, folder / "model_index.json")}
        assert {config.name} | ({"model_index.json"} if layout == "diffusers" else set()) == reasons.keys()
        written = write_configs(plans)
        assert plan_configs(recognise(folder)) == []
        after = json.loads(config.read_text())
        assert told.items() <= after.items()
        if content is not None and "mine" in content:
            assert "num_layers is 7, the weights say" in reasons[config.name] and after["mine"] == 1
            old = next(old for path, old in written if path == config)
            assert old.read_text() == content
    if layout == "diffusers":
        index = json.loads((folder / "model_index.json").read_text())
        assert (
            index["transformer_2"] == ["diffusers", "WanTransformer3DModel"] and index["_class_name"] == "WanPipeline"
        )


def test_the_registry_is_whole():
    for name, model in known_models().items():
        assert name in families_of(model.dit, model.num_experts)
        assert model.dit["dim"] // model.dit["num_heads"] in (32, 128) and model.num_frames % 4 == 1
        assert all(side % model.grid == 0 for size in model.sizes for side in size)
        assert (model.boundary is not None) == (model.num_experts == 2) == ("dit_low_noise" in model.components)
        assert set(model.memory) == set(PHASES)
        for mode, peaks in mode_peaks(model).items():
            assert all(peak.gib > 0 and math.isfinite(peak.gib) for peak in peaks)
            assert [peak.is_measured for peak in peaks] == [model.memory[peak.phase] is not None for peak in peaks]
            assert tuple(peak.phase for peak in peaks) == MODES[mode]
        assert set(model.commands) <= {"cache", "train-dit", "generate"}
        assert bool(model.commands) != model.facts["takes_image"]


@pytest.mark.parametrize("name", known_models())
def test_the_registry_counts_the_weights_of_each_part(name):
    """And an adapter's, by which memory is predicted where it was not measured."""
    from diffsynth.models.wan_video_dit import WanModel
    from diffsynth.models.wan_video_text_encoder import WanTextEncoder

    from wan_alpha.models.adapters import add_adapter
    from wan_alpha.models.base_vae import vae_kind_of_latents
    from wan_alpha.models.load import dit_shapes
    from wan_alpha.models.rgba_vae import RGBAlphaVAE

    model = known_model(name)
    with torch.device("meta"):
        text = WanTextEncoder(**model.text_encoder)
        build = vae_kind_of_latents(model.vae["latent_channels"]).build
        vae = build(model.vae["width"], model.vae["decoder_width"])
        found = {"text_encoder": count(text.parameters()), "vae": count(vae.parameters())}
        found["rgba_vae"] = count(RGBAlphaVAE(vae, init="random").trained_state().values())
    found["dit"] = sum(map(math.prod, dit_shapes(model.dit, model.text_encoder["dim"]).values()))
    assert model.parameters == found
    if name in ("tiny", "Wan2.1-T2V-1.3B"):
        sizes = {key: model.dit[key] for key in ("dim", "ffn_dim", "num_layers", "num_heads", "in_dim", "out_dim")}
        fixed = {"text_dim": 64, "freq_dim": 256, "eps": 1e-6, "patch_size": (1, 2, 2), "has_image_input": False}
        for kind in ("lora", "dora"):
            with torch.device("meta"):
                trained = add_adapter(WanModel(**sizes, **fixed), kind)
            assert num_adapter_parameters(model.dit, kind) == count(trained)


def count(tensors):
    return sum(tensor.numel() for tensor in tensors)


def test_what_was_not_measured_is_predicted_from_the_weights():
    peaks = phase_peaks(known_model("Wan2.1-T2V-14B"))
    assert not peaks["load"].is_measured and peaks["load"].gib == pytest.approx(2 * 14.288e9 / 2**30, rel=1e-3)
    assert "predicted from the weights in bf16 alone" in peaks["full"].describe()
    assert peaks["full"].gib == pytest.approx(8 * peaks["load"].gib)
    measured = phase_peaks(known_model("Wan2.1-T2V-1.3B"))["load"]
    assert measured.is_measured and "measured (CPU, bf16, 20" in measured.describe()
    # Two experts lie in memory at once only where both are used.
    experts = phase_peaks(known_model("Wan2.2-T2V-A14B"))
    assert experts["sampling"].gib == pytest.approx(2 * experts["load"].gib)
