"""Adapters from every dialect to every other: the program that reads the result computes what the source's computed."""

import json

import pytest
import torch
from adapter_files import LAYERS, STRENGTHS, WRITERS, make_layers, save
from miniature_wan import make_dit
from other_programs import comfyui_weights, diffusers_name, diffusers_weights, read, released_weights, trained_weights
from peft import LoKrConfig, PeftModel, get_peft_model
from safetensors.torch import save_file

from wan_alpha.cli.adapters import convert_adapter
from wan_alpha.cli.main import main
from wan_alpha.errors import CheckpointError, ConfigError
from wan_alpha.models.adapters import merge_adapter
from wan_alpha.models.wan import predict_velocity
from wan_alpha.training.config import load_recipe
from wan_alpha.training.recipes import ConvertAdapterRecipe
from wan_alpha.weights.adapter_keys import DIALECTS
from wan_alpha.weights.adapters import read_adapter
from wan_alpha.weights.recognise.folder import recognise
from wan_alpha.weights.recognise.serves import services

TOLERANCE, EFFECT = 1e-5, 1e-3
READERS = {
    "wan-alpha": released_weights, "diffusers": diffusers_weights, "comfyui": comfyui_weights,
    "trained here": trained_weights,
}  # fmt: skip
LAYER = "blocks.0.self_attn.q"


@pytest.fixture(scope="module")
def base():
    return make_dit().state_dict()


@pytest.fixture(scope="module")
def base_file(base, tmp_path_factory):
    return save(base, tmp_path_factory.mktemp("base") / "dit.safetensors")


@pytest.fixture(scope="module")
def velocity():
    generator = torch.Generator().manual_seed(5)
    latents, context = torch.randn(1, 16, 2, 4, 4, generator=generator), torch.randn(1, 12, 24, generator=generator)

    @torch.no_grad()
    def compute(dit):
        return predict_velocity(dit, latents, torch.tensor([500.0]), context)

    return compute


@pytest.fixture(scope="module")
def output(base, velocity):
    """What a dialect's own program computes with a file on the base model."""

    def compute(dialect, path):
        dit = make_dit()
        if dialect == "peft":
            return velocity(PeftModel.from_pretrained(dit, path).base_model.model)
        dit.load_state_dict(READERS[dialect](base, path))
        return velocity(dit)

    return compute


def convert(source, target, to, **options):
    """Convert as the command does; returns the output's path."""
    overrides = {"source": source, "output": target, "to": to} | options
    convert_adapter(load_recipe(ConvertAdapterRecipe, overrides=overrides))
    return target


def target_of(folder, dialect):
    return folder / ("out" if dialect == "peft" else "out.safetensors")


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("source", WRITERS)
def test_every_dialect_becomes_every_other(source, strength, kind, base, base_file, velocity, output, tmp_path):
    path = WRITERS[source](make_layers(base, kind, strength), tmp_path, kind)
    expected = output("trained here" if source == "wan-alpha" else source, path)
    assert (expected - velocity(make_dit())).abs().max() > EFFECT, "the adapter does nothing: the test proves nothing"
    for dialect in WRITERS:
        options = (
            {"base": str(base_file), "dora_norm": "base"} if kind == "dora" and "comfyui" in (source, dialect) else {}
        )
        target = convert(path, target_of(tmp_path / f"to_{dialect}", dialect), dialect, **options)
        assert (output(dialect, target) - expected).abs().max() <= TOLERANCE, dialect
        # Our own reading of the result, as generate and merge do it.
        dit = make_dit()
        dit.load_state_dict(merge_adapter(base, target))
        assert (velocity(dit) - expected).abs().max() <= TOLERANCE, dialect


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("source", WRITERS)
def test_there_and_back_is_the_same_file(source, kind, base, tmp_path):
    """To the last bit: ranks and alphas of single layers, magnitudes, all. What goes through the released form has its
    factor in B, exactly where it is a power of two."""
    path = WRITERS[source](make_layers(base, kind, "uneven"), tmp_path, kind)
    first = read_adapter(path)
    for dialect in WRITERS:
        # A norm that is computed anew would round; LyCORIS's meaning keeps a comfyui file's numbers.
        options = {"dora_norm": "adapted"} if kind == "dora" and "comfyui" in (source, dialect) else {}
        there = convert(path, target_of(tmp_path / f"{dialect}1", dialect), dialect, **options)
        back = read_adapter(convert(there, target_of(tmp_path / f"{dialect}2", source), source, **options))
        assert back.modules.keys() == first.modules.keys() and back.kind == kind
        for layer, module in first.modules.items():
            found = back.modules[layer]
            assert torch.equal(found.down, module.down)
            if "wan-alpha" in (source, dialect):
                assert found.scale == 1.0
                exact = {} if module.scale == 1 / 3 else {"rtol": 0, "atol": 0}
                torch.testing.assert_close(found.up, module.scale * module.up, **exact)
            else:
                assert torch.equal(found.up, module.up) and found.scale == pytest.approx(module.scale, rel=1e-12)
            assert module.magnitude is None or torch.equal(found.magnitude, module.magnitude)


@pytest.mark.parametrize("dialect", ["wan-alpha", "peft", "diffusers"])
@pytest.mark.parametrize("source", WRITERS)
def test_ranks_and_alphas_of_single_layers_stay_patterns(source, dialect, base, tmp_path):
    """Not padded to one rank, not folded into the matrices: what the program's own configuration says of them. The
    released program has no configuration: there alpha is the rank."""
    layers = make_layers(base, "lora", "uneven")
    target = convert(WRITERS[source](layers, tmp_path, "lora"), target_of(tmp_path / "to", dialect), dialect)
    if dialect == "peft":
        said = json.loads((target / "adapter_config.json").read_text())
        rank, alpha = said["r"], said["lora_alpha"]
    else:
        metadata = read(target)[1]
        packed = json.loads(metadata["lora_adapter_metadata"]) if dialect == "diffusers" else metadata
        said = {key.removeprefix("transformer."): value for key, value in packed.items()}
        said |= {key: json.loads(said[key]) for key in ("rank_pattern", "alpha_pattern") if isinstance(said[key], str)}
        rank, alpha = (float(said.get(key, said.get(other))) for key, other in (("r", "rank"), ("lora_alpha", "alpha")))
    for name, layer in layers.items():
        own = diffusers_name(name) if dialect == "diffusers" else name
        pairs = (
            (said["rank_pattern"].get(own, rank), layer.rank),
            (said["alpha_pattern"].get(own, alpha), layer.rank if dialect == "wan-alpha" else layer.alpha),
        )
        assert all(float(found) == expected for found, expected in pairs), name


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("dialect", WRITERS)
def test_inspect_tells_what_a_dialects_own_file_is(dialect, strength, kind, base, tmp_path):
    path = WRITERS[dialect](make_layers(base, kind, strength), tmp_path, kind)
    found = recognise(path)
    (one,) = found.components
    ranks, alphas = (sorted(set(values)) for values in zip(*STRENGTHS[strength], strict=True))
    assert (one.kind, one.naming, one.details["kind"]) == ("adapter", dialect, kind) and not found.problems
    assert (one.details["ranks"], one.details["alpha"]) == (ranks, alphas)
    assert set(one.details["targets"]) == {name.split(".", 2)[2] for name in LAYERS}
    given = services(found)["generate"].gives["model.adapter"]
    assert read_adapter(given).modules.keys() == set(LAYERS)


def test_every_dialect_and_strength_is_in_the_table():
    assert set(WRITERS) == set(DIALECTS) and any("_attn" in name for name in LAYERS) and any("ffn" in n for n in LAYERS)
    pairs = {rank == alpha for strength in STRENGTHS.values() for rank, alpha in strength}
    assert pairs == {True, False}


def test_dtypes_stay_unless_asked(base, tmp_path):
    path = WRITERS["wan-alpha"](make_layers(base, "dora", "uneven"), tmp_path, "dora")
    half = convert(path, tmp_path / "half.safetensors", "diffusers", dtype="bf16")
    assert {tensor.dtype for tensor in read(half)[0].values()} == {torch.bfloat16}
    again = read(convert(half, tmp_path / "again.safetensors", "wan-alpha"))[0]
    # A third of B is no number of bf16's: B of block 1 alone is kept in float32.
    assert {name for name, tensor in again.items() if tensor.dtype == torch.float32} == {
        name for name in again if name.startswith("blocks.1.") and ".lora_B." in name
    }
    again = read(convert(half, tmp_path / "asked.safetensors", "wan-alpha", dtype="bf16"))[0]
    assert {tensor.dtype for tensor in again.values()} == {torch.bfloat16}
    comfyui = read(convert(half, tmp_path / "comfyui.safetensors", "comfyui", dora_norm="adapted"))[0]
    assert {tensor.dtype for name, tensor in comfyui.items() if name.endswith(".alpha")} == {torch.float32}


KOHYA = {
    "plain": "lora_unet_blocks_{}_self_attn_q", "double": "lora_unet__blocks_{}_self_attn_q",
    "diffusers' names": "lora_unet_blocks_{}_attn1_to_q",
}  # fmt: skip


@pytest.mark.parametrize("naming", KOHYA)
def test_kohyas_names_are_read(naming, base, velocity, output, tmp_path):
    layers = make_layers(base, "lora", "alpha_is_not")
    tensors, plain = {}, {}
    for block in (0, 1):
        layer = layers[f"blocks.{block}.self_attn.q"]
        for stem, found in (
            (KOHYA[naming].format(block), tensors),
            (f"diffusion_model.blocks.{block}.self_attn.q", plain),
        ):
            found |= {f"{stem}.lora_down.weight": layer.down, f"{stem}.lora_up.weight": layer.up}
            found[f"{stem}.alpha"] = torch.tensor(layer.alpha)
    expected = output("comfyui", save(plain, tmp_path / "plain.safetensors"))
    path = save(tensors, tmp_path / "kohya.safetensors", {"ss_network_dim": "4"})
    for dialect in WRITERS:
        target = convert(path, target_of(tmp_path / dialect, dialect), dialect)
        assert (output(dialect, target) - expected).abs().max() <= TOLERANCE
    # What another program said of the file stays with it.
    assert read(tmp_path / "diffusers" / "out.safetensors")[1]["ss_network_dim"] == "4"


def test_biases_travel_as_pefts_lora_bias(base, output, tmp_path):
    tensors, _ = read(WRITERS["comfyui"](make_layers(base, "lora", "alpha_is_not"), tmp_path, "lora"))
    tensors[f"diffusion_model.{LAYER}.diff_b"] = torch.randn(48)
    path = save(tensors, tmp_path / "biased.safetensors")
    expected = output("comfyui", path)
    for dialect in ("peft", "diffusers", "comfyui"):
        target = convert(path, target_of(tmp_path / dialect, dialect), dialect)
        assert (output(dialect, target) - expected).abs().max() <= TOLERANCE, dialect
        back = convert(target, target_of(tmp_path / f"{dialect}_back", "comfyui"), "comfyui")
        assert (output("comfyui", back) - expected).abs().max() <= TOLERANCE, dialect


def test_differences_stay_with_comfyui(base, velocity, output, tmp_path):
    """A step-distillation file as LightX2V writes it: norms, biases, diff_m under the name that ComfyUI asks for."""
    tensors, _ = read(WRITERS["comfyui"](make_layers(base, "lora", "alpha_is_rank"), tmp_path, "lora"))
    differences = {"norm3.diff": 48, "norm3.diff_b": 48, "self_attn.q.diff_b": 48, "cross_attn.norm_q.diff": 48}
    tensors |= {f"diffusion_model.blocks.0.{name}": 0.1 * torch.randn(size) for name, size in differences.items()}
    tensors["diffusion_model.blocks.1.diff_m"] = 0.1 * torch.randn(1, 6, 48)
    tensors["diffusion_model.head.diff_m"] = 0.1 * torch.randn(1, 2, 48)
    path = save(tensors, tmp_path / "distilled.safetensors")
    dit = make_dit()
    dit.load_state_dict(merge_adapter(base, path))
    written = convert(path, tmp_path / "out.safetensors", "comfyui")
    assert {"diffusion_model.blocks.1.modulation.diff", "diffusion_model.head.modulation.diff"} <= set(read(written)[0])
    assert (output("comfyui", written) - velocity(dit)).abs().max() <= TOLERANCE
    again = read_adapter(written)
    assert again.differences.keys() == read_adapter(path).differences.keys()


@pytest.mark.parametrize("rank", [3, 40])
def test_lokr_goes_between_comfyui_and_peft(rank, base, velocity, output, tmp_path):
    """Rank 3: the second factor is of low rank; 40: it is whole, as PEFT's rule has it."""
    config = LoKrConfig(r=rank, alpha=5, decompose_factor=4, target_modules=["q", "ffn.0"], init_weights=False)
    torch.manual_seed(0)
    model = get_peft_model(make_dit(), config)
    expected = velocity(model.base_model.model)
    assert (expected - velocity(make_dit())).abs().max() > EFFECT
    model.save_pretrained(tmp_path / "peft")
    assert read_adapter(tmp_path / "peft").kind == "lokr"
    dit = make_dit()
    dit.load_state_dict(merge_adapter(base, tmp_path / "peft"))
    assert (velocity(dit) - expected).abs().max() <= TOLERANCE
    comfyui = convert(tmp_path / "peft", tmp_path / "comfyui.safetensors", "comfyui")
    assert (output("comfyui", comfyui) - expected).abs().max() <= TOLERANCE
    assert (output("peft", convert(comfyui, tmp_path / "again", "peft")) - expected).abs().max() <= TOLERANCE
    for dialect in ("diffusers", "wan-alpha"):
        with pytest.raises(CheckpointError, match=f"a LoKr, which {dialect} files do not hold"):
            convert(comfyui, tmp_path / "no.safetensors", dialect)


def test_a_lokr_of_other_shapes_is_no_pefts(tmp_path):
    stem = f"diffusion_model.{LAYER}"
    path = save(
        {f"{stem}.lokr_w1": torch.randn(4, 6), f"{stem}.lokr_w2": torch.randn(12, 8)}, tmp_path / "x.safetensors"
    )
    with pytest.raises(CheckpointError, match=rf"{LAYER}: its factors are \(4, 6\) and \(12, 8\)"):
        convert(path, tmp_path / "out", "peft")


def test_rslora_and_patterns_of_peft(base, velocity, tmp_path):
    from peft import LoraConfig

    config = LoraConfig(
        r=4, lora_alpha=6, use_rslora=True, target_modules=["q", "ffn.2"], rank_pattern={"ffn.2": 2},
        alpha_pattern={r"^blocks\.1\.ffn\.2": 3}, init_lora_weights=False,
    )  # fmt: skip
    torch.manual_seed(0)
    model = get_peft_model(make_dit(), config)
    expected = velocity(model.base_model.model)
    model.save_pretrained(tmp_path / "peft")
    for path in (tmp_path / "peft", convert(tmp_path / "peft", tmp_path / "ours.safetensors", "wan-alpha")):
        dit = make_dit()
        dit.load_state_dict(merge_adapter(base, path))
        assert (velocity(dit) - expected).abs().max() <= TOLERANCE


def test_a_dora_for_comfyui_needs_the_base(base, tmp_path):
    path = WRITERS["peft"](make_layers(base, "dora", "uneven"), tmp_path, "dora")
    with pytest.raises(CheckpointError, match="ComfyUI divides a DoRA's magnitudes by the base's row norms.*--base"):
        convert(path, tmp_path / "no.safetensors", "comfyui")
    plain = convert(path, tmp_path / "as_lycoris.safetensors", "comfyui", dora_norm="adapted")
    for layer, module in read_adapter(path).modules.items():
        assert torch.equal(read(plain)[0][f"diffusion_model.{layer}.dora_scale"].flatten(), module.magnitude)
    assert read_adapter(plain).dora_norm == "adapted"


def test_what_was_written_for_comfyui_says_so(base, base_file, tmp_path):
    path = WRITERS["peft"](make_layers(base, "dora", "uneven"), tmp_path, "dora")
    comfyui = convert(path, tmp_path / "x.safetensors", "comfyui", base=str(base_file))
    assert read_adapter(comfyui).dora_norm == "base"
    with pytest.raises(CheckpointError, match="--base"):
        convert(comfyui, tmp_path / "no.safetensors", "wan-alpha")
    back = read_adapter(convert(comfyui, tmp_path / "back.safetensors", "wan-alpha", base=str(base_file)))
    for layer, module in read_adapter(path).modules.items():
        torch.testing.assert_close(back.modules[layer].magnitude, module.magnitude, atol=1e-6, rtol=1e-5)
    with pytest.raises(CheckpointError, match="for another base model"):
        small = {name: tensor[:8] if name == f"{LAYER}.weight" else tensor for name, tensor in base.items()}
        convert(comfyui, tmp_path / "no.safetensors", "peft", base=str(save(small, tmp_path / "small.safetensors")))


EXPERTS = {"high_noise": ("transformer", "uneven", 3), "low_noise": ("transformer_2", ((2, 7), (5, 3)), 4)}


@pytest.fixture(scope="module")
def of_both(base, output, tmp_path_factory):
    """(a diffusers file of two experts with a configuration for each, expert -> what it should compute)."""
    folder, tensors, config, expected = tmp_path_factory.mktemp("both"), {}, {}, {}
    for expert, (transformer, strength, seed) in EXPERTS.items():
        path = WRITERS["diffusers"](make_layers(base, "lora", strength, seed), folder, "lora")
        expected[expert], (own, metadata) = output("diffusers", path), read(path)
        said = json.loads(metadata["lora_adapter_metadata"])
        tensors |= {name.replace("transformer.", f"{transformer}."): tensor for name, tensor in own.items()}
        config |= {name.replace("transformer.", f"{transformer}."): value for name, value in said.items()}
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(config)}
    return save(tensors, folder / "both.safetensors", metadata), expected


def test_two_experts_become_two_files(of_both, output, tmp_path):
    both, expected = of_both
    with pytest.raises(CheckpointError, match="belongs to a second expert.*--expert high_noise"):
        convert(both, tmp_path / "no.safetensors", "comfyui")
    for expert, velocity in expected.items():
        target = convert(both, tmp_path / f"{expert}.safetensors", "comfyui", expert=expert)
        assert (output("comfyui", target) - velocity).abs().max() <= TOLERANCE
        assert read(target)[1]["expert"] == expert, "as training says it: generate puts it where it belongs"


def test_inspect_names_rank_and_alpha_of_either_expert(of_both, capsys):
    (one,) = recognise(of_both[0]).components
    assert one.title == "LoRA, rank 2, 3, 4, 5, of 12 layers, for each of two experts" and not one.problems
    assert one.details["experts"] == {
        "high_noise": {"ranks": [3, 4], "alpha": [1.0, 8.0]}, "low_noise": {"ranks": [2, 5], "alpha": [3.0, 7.0]},
    }  # fmt: skip
    assert main(["inspect", str(of_both[0])]) == 0
    assert "experts = high_noise: ranks 3, 4, alpha 1.0, 8.0; low_noise: ranks 2, 5" in capsys.readouterr().out


def test_one_experts_configuration_is_not_taken_for_the_others(of_both, tmp_path):
    """Its alpha would be as good as any other number."""
    tensors, metadata = read(of_both[0])
    config = json.loads(metadata["lora_adapter_metadata"])
    config = {name: value for name, value in config.items() if name.startswith("transformer.")}
    path = save(tensors, tmp_path / "x.safetensors", metadata | {"lora_adapter_metadata": json.dumps(config)})
    assert read_adapter(path, "high_noise").modules[LAYER].scale == 2.0
    with pytest.raises(CheckpointError, match="x.safetensors: .*rank and alpha of transformer_2.*of transformer alone"):
        read_adapter(path, "low_noise")
    (one,) = recognise(path).components
    assert one.details["experts"]["low_noise"]["alpha"] == []


def with_difference(tensors):
    tensors["diffusion_model.blocks.0.norm3.diff"] = torch.ones(48)


def with_strange_layer(tensors):
    stem = "diffusion_model.vace_blocks.0.proj"
    tensors |= {f"{stem}.lora_down.weight": torch.ones(2, 4), f"{stem}.lora_up.weight": torch.ones(4, 2)}


def with_loha(tensors):
    tensors[f"diffusion_model.{LAYER}.hada_w1_a"] = torch.ones(4, 2)


def with_columns(tensors):
    tensors[f"diffusion_model.{LAYER}.dora_scale"] = torch.ones(1, 48)


def without_up(tensors):
    del tensors[f"diffusion_model.{LAYER}.lora_up.weight"]


def with_a_flat_stranger(tensors):
    tensors["lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight"] = torch.ones(2, 4)


REFUSED = {
    "a difference of a norm": (with_difference, "peft", "blocks.0.norm3.weight is a difference.*peft files hold none"),
    "a difference, ours": (with_difference, "wan-alpha", "blocks.0.norm3.weight is a difference.*convert to comfyui"),
    "a layer diffusers lacks": (
        with_strange_layer,
        "diffusers",
        "vace_blocks.0.proj: diffusers' Wan transformer has no",
    ),
    "LoHa": (with_loha, "peft", "hada_w1_a is no adapter key; it belongs to LoHa"),
    "magnitudes a column": (with_columns, "peft", r"dora_scale: shape \(1, 48\) is a magnitude an input"),
    "A without B": (without_up, "diffusers", f"{LAYER} has alpha, down but no up matrix; the file is incomplete"),
    "another model's": (
        with_a_flat_stranger,
        "peft",
        "names no layer of a Wan DiT; is it an adapter for another model",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_held_is_refused_with_the_reason(case, base, tmp_path):
    change, dialect, message = REFUSED[case]
    tensors, _ = read(WRITERS["comfyui"](make_layers(base, "lora", "alpha_is_rank"), tmp_path, "lora"))
    change(tensors)
    path = save(tensors, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=message) as caught:
        convert(path, target_of(tmp_path / "to", dialect), dialect)
    assert str(path) in str(caught.value) and not (tmp_path / "to").exists()


def test_a_truncated_file_is_refused(base, tmp_path):
    path = WRITERS["comfyui"](make_layers(base, "lora", "alpha_is_rank"), tmp_path, "lora")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"comfyui.safetensors: (not a readable safetensors file|truncated)"):
        convert(path, tmp_path / "no.safetensors", "diffusers")


PEFT_CONFIGS = {
    "modules_to_save": ({"modules_to_save": ["head"]}, "modules_to_save = .* is not supported"),
    "another rank": ({"r": 5}, "expected rank 5, found tensors of rank 4"),
    "another method": ({"peft_type": "BOFT"}, "expected an adapter of the kind LORA or LOKR, found BOFT"),
    "an expression": ({"rank_pattern": {"(a+)+$": 4}}, "expected names of layers, found the expression"),
    "no alpha": ({"lora_alpha": None}, "expected PEFT's lora_alpha, r and patterns"),
}


@pytest.mark.parametrize("case", PEFT_CONFIGS)
def test_what_peft_says_otherwise_is_refused(case, base, tmp_path):
    changes, message = PEFT_CONFIGS[case]
    folder = WRITERS["peft"](make_layers(base, "lora", "alpha_is_rank"), tmp_path, "lora")
    config = json.loads((folder / "adapter_config.json").read_text()) | changes
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        convert(folder, tmp_path / "no.safetensors", "comfyui")


def test_outputs_and_options_that_make_no_sense(base, tmp_path):
    path = WRITERS["wan-alpha"](make_layers(base, "lora", "alpha_is_rank"), tmp_path, "lora")
    cases = [
        (tmp_path / "x.safetensors", "peft", {}, "PEFT keeps an adapter in a folder"),
        (path, "comfyui", {}, "is the adapter itself"),
        (tmp_path / "x.safetensors", "comfyui", {"dora_norm": "base"}, "dora_norm = base has no effect"),
    ]
    for target, dialect, options, message in cases:
        with pytest.raises(ConfigError, match=message):
            convert(path, target, dialect, **options)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="expected an adapter there"):
        convert(tmp_path / "empty", tmp_path / "x.safetensors", "comfyui")
    save_file({"merge.conv.weight": torch.ones(1)}, tmp_path / "vae.safetensors")
    with pytest.raises(CheckpointError, match="merge.conv.weight is no adapter key; it belongs to an RGBA VAE"):
        convert(tmp_path / "vae.safetensors", tmp_path / "x.safetensors", "comfyui")
