"""The JSON files beside the weights: what is written is what the programs that read them make the same modules of."""

import json

import pytest
import torch
from real_size_headers import FAMILIES, write_family
from wan_layouts import states, text_to_transformers, write_diffusers

from wan_alpha.weights.recognise.config_contents import image_encoder_config, text_encoder_config, vae_config
from wan_alpha.weights.recognise.configs import plan_configs, write_configs
from wan_alpha.weights.recognise.folder import recognise
from wan_alpha.weights.registry import known_models

# What diffusers' own download of Wan2.1-T2V-14B says of its parts, and of TI2V-5B's VAE, as far as shapes matter.
TEXT = {"d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_heads": 64, "num_layers": 24, "vocab_size": 256384}
VAE = {"base_dim": 96, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2}
VAE_5B = {
    "base_dim": 160, "decoder_base_dim": 256, "z_dim": 48, "is_residual": True, "in_channels": 12, "out_channels": 12,
    "patch_size": 2, "scale_factor_spatial": 16,
}  # fmt: skip
IMAGE = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16,
    "image_size": 224, "patch_size": 14,
}  # fmt: skip


@pytest.mark.parametrize("family", ["Wan2.2-TI2V-5B", "Wan2.1-I2V-14B"])
def test_at_the_real_sizes_they_say_what_the_makers_say(tmp_path, family):
    assert family in FAMILIES
    found = recognise(write_family(tmp_path, family))
    assert TEXT.items() <= text_encoder_config(found.part("text_encoder").sizes).items()
    vae = vae_config(found.part("vae").sizes)
    assert (VAE_5B if "5B" in family else VAE).items() <= vae.items()
    assert len(vae["latents_mean"]) == len(vae["latents_std"]) == vae["z_dim"]
    if "-I2V" in family:
        assert IMAGE.items() <= image_encoder_config(found.part("image_encoder").sizes).items()


@pytest.mark.parametrize("kind", ["t2v", "ti2v", "i2v"])
def test_every_part_of_a_diffusers_folder_gets_its_own(tmp_path, kind):
    folder = write_diffusers(tmp_path, kind, experts=kind == "t2v")
    (folder / "model_index.json").unlink()
    plans = {plan.path.relative_to(folder).as_posix(): plan for plan in plan_configs(recognise(folder))}
    transformers = {"transformer/config.json"} | ({"transformer_2/config.json"} if kind == "t2v" else set())
    others = {"vae/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json", "model_index.json"}
    refused = {"image_encoder/config.json"} if kind == "i2v" else set()
    # The family of the miniature is the tiny one's, whose shift is known; its CLIP's heads are not.
    assert plans.keys() == transformers | others | refused
    assert {name for name, plan in plans.items() if plan.refusal} == refused
    written = write_configs(plans.values())
    assert {path.relative_to(folder).as_posix() for path, _ in written} == transformers | others
    assert {plan.path.parent.name for plan in plan_configs(recognise(folder))} == {
        name.split("/")[0] for name in refused
    }
    index = json.loads((folder / "model_index.json").read_text())
    named = {name for name, value in index.items() if isinstance(value, list)}
    assert named <= {path.name for path in folder.iterdir()}
    scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    assert scheduler["flow_shift"] == known_models()["tiny"].shift and scheduler["use_flow_sigmas"]


def test_a_wrong_one_is_corrected_and_what_shapes_do_not_tell_stays(tmp_path):
    folder = write_diffusers(tmp_path)
    write_configs(plan_configs(recognise(folder)))
    for name, change, reason in (
        ("vae", {"z_dim": 48, "dropout": 0.5}, "z_dim is 48, the weights say 16"),
        ("text_encoder", {"d_ff": 7, "dropout_rate": 0.0}, "d_ff is 7, the weights say 32"),
    ):
        path = folder / name / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        (plan,) = plan_configs(recognise(folder))
        assert (plan.path, plan.reason) == (path, reason)
        write_configs([plan])
        kept = json.loads(path.read_text()).items()
        assert not plan_configs(recognise(folder)) and list(change.items())[1] in kept


@torch.no_grad()
def test_transformers_makes_our_text_encoder_of_it(tmp_path):
    from transformers import UMT5EncoderModel

    folder = write_diffusers(tmp_path)
    write_configs(plan_configs(recognise(folder)))
    theirs = UMT5EncoderModel.from_pretrained(folder / "text_encoder").eval()
    state = text_to_transformers(states()["text_encoder"])
    assert all(torch.equal(tensor, state[name]) for name, tensor in theirs.state_dict().items())
    from wan_alpha.models.load import load_wan

    ours = load_wan(folder, components=("text_encoder",)).text_encoder
    ids, mask = torch.tensor([[3, 4, 6, 1, 0, 0]]), torch.tensor([[1, 1, 1, 1, 0, 0]])
    found = theirs(ids, attention_mask=mask).last_hidden_state[:, :4]
    assert (found - ours(ids, mask)[:, :4]).abs().max() <= 1e-4


@torch.no_grad()
@pytest.mark.parametrize("kind", ["t2v", "ti2v"])
def test_diffusers_makes_the_whole_pipeline_of_it(tmp_path, kind):
    diffusers = pytest.importorskip("diffusers", reason="needs diffusers: pip install diffusers")
    folder = write_diffusers(tmp_path, kind)
    (folder / "model_index.json").unlink()
    write_configs(plan_configs(recognise(folder)))
    # The miniature's tokenizer is of another class than UMT5's.
    pipe = diffusers.WanPipeline.from_pretrained(folder, tokenizer=None)
    assert pipe.scheduler.config.flow_shift == 5.0 and pipe.transformer.config.num_attention_heads == 4
    from wan_alpha.models.load import load_wan

    vae = load_wan(folder, components=("vae",)).vae
    assert pipe.vae.config.latents_mean == pytest.approx(vae.mean.tolist())
    latents = torch.randn(1, vae.model.z_dim, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    mean, std = (value.view(1, -1, 1, 1, 1) for value in (vae.mean, vae.std))
    theirs = pipe.vae.decode(latents * std + mean, return_dict=False)[0]
    assert (theirs - vae.single_decode(latents, "cpu")).abs().max() <= 1e-4
