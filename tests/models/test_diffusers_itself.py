"""diffusers itself, where it is installed: its Wan transformer with our files gives the source program's output."""

import pytest
import torch
from adapter_files import STRENGTHS, WRITERS, make_layers
from miniature_wan import DIT_SIZES, make_dit
from other_programs import diffusers_name

from wan_alpha.models.adapters import merge_adapter
from wan_alpha.models.wan import predict_velocity
from wan_alpha.weights.adapter_dialects import write_dialect
from wan_alpha.weights.adapters import read_adapter
from wan_alpha.weights.dit_names import parameter_from_diffusers

pytest.importorskip("diffusers", reason="needs diffusers: pip install diffusers")
TOLERANCE, EFFECT = 1e-5, 1e-3


def make_transformer(base):
    from diffusers import WanTransformer3DModel

    sizes = {name: DIT_SIZES[name] for name in ("ffn_dim", "text_dim", "freq_dim", "num_layers", "eps", "patch_size")}
    transformer = WanTransformer3DModel(
        **sizes, num_attention_heads=DIT_SIZES["num_heads"], in_channels=16, out_channels=16,
        attention_head_dim=DIT_SIZES["dim"] // DIT_SIZES["num_heads"],
    ).eval()  # fmt: skip
    transformer.load_state_dict({diffusers_name(name): tensor for name, tensor in base.items()})
    return transformer


@pytest.fixture(scope="module")
def base():
    return make_dit().state_dict()


@pytest.fixture(scope="module")
def question():
    generator = torch.Generator().manual_seed(5)
    return torch.randn(1, 16, 2, 4, 4, generator=generator), torch.randn(1, 12, 24, generator=generator)


@torch.no_grad()
def theirs(transformer, question):
    latents, context = question
    timestep = torch.tensor([500.0])
    return transformer(latents, timestep=timestep, encoder_hidden_states=context, return_dict=False)[0]


def test_its_names_are_the_ones_we_map(base):
    names = make_transformer(base).state_dict()
    assert {parameter_from_diffusers(name) for name in names} == set(base)


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("source", ["wan-alpha", "peft", "diffusers"])
@torch.no_grad()
def test_diffusers_computes_what_the_source_does(source, strength, kind, base, question, tmp_path):
    from diffusers.loaders.lora_pipeline import WanLoraLoaderMixin

    adapter = read_adapter(WRITERS[source](make_layers(base, kind, strength), tmp_path, kind))
    path = write_dialect(adapter, tmp_path / "out", "diffusers")[0]
    tensors, metadata = WanLoraLoaderMixin.lora_state_dict(
        path.parent, weight_name=path.name, return_lora_metadata=True, local_files_only=True
    )
    transformer = make_transformer(base)
    transformer.load_lora_adapter(tensors, metadata=metadata)
    dit = make_dit()
    before = theirs(make_transformer(base), question)
    torch.testing.assert_close(before, predict_velocity(dit, question[0], torch.tensor([500.0]), question[1]))
    dit.load_state_dict(merge_adapter(base, adapter.path))
    expected = predict_velocity(dit, question[0], torch.tensor([500.0]), question[1])
    assert (expected - before).abs().max() > EFFECT
    assert (theirs(transformer, question) - expected).abs().max() <= TOLERANCE


@torch.no_grad()
def test_a_comfyui_lora_that_diffusers_reads_itself(base, question, tmp_path):
    """Its own conversion of ComfyUI's names and ours of the same file: the same output."""
    from diffusers.loaders.lora_pipeline import WanLoraLoaderMixin

    path = WRITERS["comfyui"](make_layers(base, "lora", "alpha_is_not"), tmp_path, "lora")
    ours = write_dialect(read_adapter(path), tmp_path / "ours.safetensors", "diffusers")[0]
    outputs = []
    for file in (path, ours):
        tensors, metadata = WanLoraLoaderMixin.lora_state_dict(
            file.parent, weight_name=file.name, return_lora_metadata=True, local_files_only=True
        )
        transformer = make_transformer(base)
        transformer.load_lora_adapter(tensors, metadata=metadata)
        outputs.append(theirs(transformer, question))
    assert (outputs[0] - outputs[1]).abs().max() <= TOLERANCE
