"""A pipeline from files of any size, and velocities equal to diffsynth's own."""

import json

import pytest
import torch
from forbid_wide import ForbidWide
from miniature_wan import DIT_SIZES, NUM_TOKENS, TEXT_SIZES, make_dit, write_tokenizer, write_wan_folder
from safetensors.torch import load_file, save_file

from wan_alpha.errors import CheckpointError, ConfigError
from wan_alpha.models.adapters import add_adapter
from wan_alpha.models.wan import (
    encode_prompts,
    load_dit,
    load_tokenizer,
    load_wan,
    predict_velocity,
)
from wan_alpha.weights.wan_layout import infer_dit_sizes, infer_text_encoder_sizes

TOLERANCE = {"same_arithmetic": 1e-6, "real_arithmetic": 1e-5, "bfloat16": 3e-2}


@pytest.fixture(scope="module")
def wan_folder(tmp_path_factory):
    return write_wan_folder(tmp_path_factory.mktemp("wan"))


@pytest.fixture(scope="module")
def pipe(wan_folder):
    return load_wan(wan_folder)


def velocity_input(batch=1, seed=3):
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(batch, 16, 3, 4, 6, generator=generator)
    context = torch.randn(batch, NUM_TOKENS, DIT_SIZES["text_dim"], generator=generator)
    return latents, torch.rand(batch, generator=generator) * 1000, context


def test_folder_loads_whole(pipe):
    expected = make_dit().state_dict()
    found = pipe.dit.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    for module in (pipe.dit, pipe.text_encoder):
        assert not module.training and not any(p.requires_grad or p.is_meta for p in module.parameters())
    assert not any(table.is_meta for table in pipe.dit.freqs)
    assert pipe.dit.blocks[0].self_attn.num_heads == DIT_SIZES["num_heads"] and pipe.dit2 is None


def test_only_the_components_asked_for_are_read(wan_folder, tmp_path):
    pipe = load_wan(wan_folder, components=("dit",), dtype=torch.bfloat16)
    assert pipe.text_encoder is None and pipe.tokenizer is None
    assert {parameter.dtype for parameter in pipe.dit.parameters()} == {torch.bfloat16}
    with pytest.raises(ConfigError, match="choose of dit, text_encoder, tokenizer"):
        load_wan(wan_folder, components=("audio",))
    write_tokenizer(tmp_path / "google" / "umt5-xxl")
    with pytest.raises(CheckpointError, match="expected a DiT there, found none"):
        load_wan(tmp_path)
    pipe = load_wan(tmp_path, components=("tokenizer",))
    assert pipe.tokenizer.seq_len == NUM_TOKENS


def test_model_paths_load_the_same(wan_folder, pipe):
    shards = sorted(str(path) for path in wan_folder.glob("*.safetensors"))
    source = [shards, str(wan_folder / "models_t5_umt5-xxl-enc-bf16.pth")]
    for form in (source, json.dumps(source)):
        other = load_wan(form)
        prompts = ["a red ball"]
        assert torch.equal(encode_prompts(other, prompts), encode_prompts(pipe, prompts))
        velocities = [predict_velocity(one.dit, *velocity_input()) for one in (other, pipe)]
        assert torch.equal(*velocities)


def test_two_experts_load_as_dit_and_dit2(tmp_path):
    for seed, folder in enumerate(("high_noise_model", "low_noise_model")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text(json.dumps({"num_heads": 4}))
        save_file(make_dit(seed).state_dict(), tmp_path / folder / "diffusion_pytorch_model.safetensors")
    pipe = load_wan(tmp_path, components=("dit",))
    for seed, dit in enumerate((pipe.dit, pipe.dit2)):
        assert torch.equal(dit.head.head.weight, make_dit(seed).head.head.weight)


def test_weights_that_do_not_fit_are_refused(wan_folder, tmp_path):
    tensors = {k: v for path in wan_folder.glob("*.safetensors") for k, v in load_file(path).items()}
    (tmp_path / "config.json").write_text(json.dumps({"num_heads": 4}))
    path = tmp_path / "dit.safetensors"
    cases = {
        "1 missing: blocks.1.norm3.bias": {k: v for k, v in tensors.items() if k != "blocks.1.norm3.bias"},
        "1 left over: blocks.0.extra": {**tensors, "blocks.0.extra": torch.ones(1)},
        r"blocks.1.cross_attn.k.weight: expected shape \(48, 48\), found \(48, 40\)": {
            k: v[:, :40].contiguous() if k == "blocks.1.cross_attn.k.weight" else v for k, v in tensors.items()
        },
    }
    for message, changed in cases.items():
        save_file(changed, path)
        with pytest.raises(CheckpointError, match=message):
            load_dit([path])
    (tmp_path / "google" / "umt5-xxl").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="not a tokenizer folder"):
        load_wan(tmp_path, components=("tokenizer",))


@pytest.mark.parametrize(
    ("sizes", "num_parameters"),
    [
        ({"dim": 1536, "ffn_dim": 8960, "num_heads": 12, "num_layers": 30}, 1.42e9),
        ({"dim": 5120, "ffn_dim": 13824, "num_heads": 40, "num_layers": 40}, 14.29e9),
    ],
    ids=["1.3B", "14B"],
)
def test_real_sizes_are_inferred_from_their_shapes(sizes, num_parameters, tmp_path):
    from diffsynth.models.wan_video_dit import WanModel

    with torch.device("meta"):
        model = WanModel(**{**DIT_SIZES, "text_dim": 4096, "freq_dim": 256, **sizes})
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert sum(tensor.numel() for tensor in model.parameters()) == pytest.approx(num_parameters, rel=1e-2)
    path = tmp_path / "header.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with torch.device("meta"):
        inferred = WanModel(**infer_dit_sizes(shapes, [path]))
    assert {name: tuple(tensor.shape) for name, tensor in inferred.state_dict().items()} == shapes
    assert inferred.blocks[0].self_attn.num_heads == sizes["num_heads"]


def test_real_text_encoder_is_inferred_from_its_shapes():
    from diffsynth.models.wan_video_text_encoder import WanTextEncoder

    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in WanTextEncoder().state_dict().items()}
        inferred = WanTextEncoder(**infer_text_encoder_sizes(shapes, ["models_t5.pth"]))
    assert {name: tuple(tensor.shape) for name, tensor in inferred.state_dict().items()} == shapes


def test_prompts_are_encoded_as_diffsynth_does_and_each_for_itself(pipe):
    from diffsynth.pipelines.wan_video import WanVideoUnit_PromptEmbedder

    prompts = ["a red ball on transparent background", "a ball", ""]
    context = encode_prompts(pipe, prompts)
    assert context.shape == (3, NUM_TOKENS, TEXT_SIZES["dim"])
    for index, prompt in enumerate(prompts):
        with torch.no_grad():
            expected = WanVideoUnit_PromptEmbedder().encode_prompt(pipe, prompt)
        assert torch.allclose(context[index : index + 1], expected, atol=1e-5), prompt
    assert context[1, 3:].abs().max() == 0 and context[1, 2].abs().max() > 0


def test_velocity_equals_diffsynths(pipe):
    from diffsynth.pipelines.wan_video import model_fn_wan_video

    latents, timesteps, context = velocity_input()
    expected = model_fn_wan_video(pipe.dit, latents=latents, timestep=timesteps, context=context)
    found = predict_velocity(pipe.dit, latents, timesteps, context)
    assert found.shape == latents.shape
    assert (found - expected).abs().max() <= TOLERANCE["same_arithmetic"]


def test_a_batch_is_its_samples(pipe):
    latents, timesteps, context = velocity_input(batch=3)
    together = predict_velocity(pipe.dit, latents, timesteps, context)
    for i in range(3):
        alone = predict_velocity(pipe.dit, latents[i : i + 1], timesteps[i : i + 1], context[i : i + 1])
        assert (together[i] - alone[0]).abs().max() <= TOLERANCE["real_arithmetic"]


def test_gradient_checkpointing_changes_no_gradient():
    gradients = []
    for checkpointing in (False, True):
        dit = make_dit().train()
        parameters = add_adapter(dit, rank=2, alpha=2)
        with torch.no_grad():
            for parameter in parameters:
                parameter += 0.05
        predict_velocity(dit, *velocity_input(batch=2), gradient_checkpointing=checkpointing).pow(2).mean().backward()
        gradients.append([parameter.grad for parameter in parameters])
    assert all(torch.allclose(plain, again, atol=1e-7) for plain, again in zip(*gradients, strict=True))


def test_offloaded_activations_are_the_blocks_own_inputs_and_change_no_gradient(monkeypatch):
    """What all blocks share, text and rotary table, is not copied to host memory once for each."""
    moved, gradients = [], []

    class Watched(torch.autograd.graph.save_on_cpu):
        def __init__(self):
            super().__init__()
            pack = self.pack_hook
            self.pack_hook = lambda tensor: moved.append(tuple(tensor.shape)) or pack(tensor)

    monkeypatch.setattr(torch.autograd.graph, "save_on_cpu", Watched)
    for offload in (False, True):
        dit = make_dit().train()
        parameters = add_adapter(dit, rank=2, alpha=2)
        velocity = predict_velocity(
            dit, *velocity_input(batch=2), gradient_checkpointing=True, offload_activations=offload
        )
        velocity.pow(2).mean().backward()
        gradients.append([parameter.grad for parameter in parameters])
        assert moved == offload * DIT_SIZES["num_layers"] * [(2, 3 * 2 * 3, DIT_SIZES["dim"])]
    assert all(torch.equal(plain, again) for plain, again in zip(*gradients, strict=True))


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_weights_keep_float32_timesteps_apart(autocast):
    dit = make_dit()
    latents, _, context = velocity_input(batch=2)
    latents, context = latents[:1].repeat(2, 1, 1, 1, 1), context[:1].repeat(2, 1, 1)
    timesteps = torch.tensor([700.0, 701.0])
    assert timesteps.bfloat16().unique().numel() == 1, "bf16 would not tell these apart"
    expected = predict_velocity(dit, latents, timesteps, context)
    dit.bfloat16()
    if autocast:
        add_adapter(dit, rank=2, alpha=2)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = predict_velocity(dit, latents, timesteps, context)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() <= TOLERANCE["bfloat16"] * expected.abs().max()
    assert not torch.equal(found[0], found[1])


def test_real_arithmetic_gives_the_same_without_float64_or_complex():
    from wan_alpha.models.real_arithmetic import use_real_rotary

    plain, real = make_dit(), make_dit()
    parameters = add_adapter(real, rank=2, alpha=2)
    use_real_rotary(real)
    use_real_rotary(real)
    assert {id(p) for p in parameters} == {id(p) for p in real.parameters() if p.requires_grad}
    inputs = velocity_input(batch=2)
    expected = predict_velocity(plain, *inputs)
    with pytest.raises(AssertionError, match="made torch"), ForbidWide():
        predict_velocity(plain, *inputs)
    with ForbidWide():
        found = predict_velocity(real, *inputs)
        found.pow(2).mean().backward()
    assert (found - expected).abs().max() <= TOLERANCE["real_arithmetic"]
    assert all(p.grad is not None for p in parameters)


def test_real_timestep_embedding_is_exact():
    from diffsynth.models.wan_video_dit import sinusoidal_embedding_1d

    from wan_alpha.models.real_arithmetic import sinusoidal_embedding_real

    timesteps = torch.linspace(0, 1000, 777)
    difference = sinusoidal_embedding_real(256, timesteps) - sinusoidal_embedding_1d(256, timesteps)
    assert difference.abs().max() <= TOLERANCE["same_arithmetic"]


def test_code_in_a_tokenizer_folder_is_never_run(tmp_path, monkeypatch):
    folder, trace = tmp_path / "google" / "umt5-xxl", tmp_path / "trace"
    write_tokenizer(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": [None, "own.OwnTokenizer"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(
        f"open({str(trace)!r}, 'w')\nfrom transformers import PreTrainedTokenizerFast as OwnTokenizer\n"
    )
    asked = []
    monkeypatch.setattr("builtins.input", lambda question: asked.append(question) or "y")
    with pytest.raises(CheckpointError, match="not a tokenizer folder"):
        load_tokenizer(folder)
    assert not asked and not trace.exists()
