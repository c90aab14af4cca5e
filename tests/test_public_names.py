"""The public names as the documentation calls them: their signatures, and one call of each on reference files."""

import inspect
import json
import subprocess
import sys
from importlib import import_module

import pytest
import torch
from safetensors.torch import load_file

TOLERANCE = 1e-4

# Name -> the module that it is documented in (None: the package itself), and the parameters that callers may name.
PUBLIC = {
    "LoadRGBAVideoPair": (None, ["base_path", "num_frames", "height", "width"]),
    "HardRenderRGBA": (None, []),
    "SoftRenderRGBA": (None, []),
    "FeatureMergeBlock": (None, []),
    "RGBAlphaVAE": (None, []),
    "RGBAReconstructionLoss": (None, ["perceptual_weights", "perceptual"]),
    "WanAlphaTrainingModule": (None, []),
    "load_decoder_lora": (None, ["vae", "path"]),
    "over": ("wan_alpha.alpha.composite", ["rgb", "alpha", "background"]),
    "hard_render": ("wan_alpha.alpha.composite", ["rgb", "alpha", "background", "threshold"]),
    "soft_render": ("wan_alpha.alpha.composite", ["rgb", "alpha", "background"]),
    "merge_adapter": ("wan_alpha.models.adapters", ["base_state_dict", "adapter_path", "scale"]),
}
DEFAULTS = {
    "hard_render": {"threshold": 0.0},
    "merge_adapter": {"scale": 1.0},
    "RGBAReconstructionLoss": {"perceptual_weights": None, "perceptual": "vgg16"},
}


def close(tensor, expected):
    torch.testing.assert_close(tensor, expected, atol=TOLERANCE, rtol=0)


@pytest.fixture(scope="module")
def io(reference_dir):
    return load_file(reference_dir / "rgba_vae_io.safetensors")


@pytest.fixture(scope="module")
def alpha(io):
    return (io["alpha"][:, :1] + 1) / 2


@pytest.fixture(scope="module")
def vae(reference_dir):
    from wan_alpha import RGBAlphaVAE

    return RGBAlphaVAE.from_pretrained(
        base_vae=reference_dir / "base_vae.safetensors", rgba_weights=reference_dir / "rgba_vae_checkpoint.bin",
        decoder_lora=None, dtype=torch.float32, device="cpu",
    )  # fmt: skip


@pytest.mark.parametrize("name", PUBLIC)
def test_names_and_parameters(name):
    module, parameters = PUBLIC[name]
    found = inspect.signature(getattr(import_module(module or "wan_alpha"), name)).parameters
    assert list(found)[: len(parameters)] == parameters
    assert {key: found[key].default for key in DEFAULTS.get(name, {})} == DEFAULTS.get(name, {})


def test_the_package_lists_its_names():
    import wan_alpha

    expected = {name for name, (module, _) in PUBLIC.items() if module is None}
    assert expected < set(wan_alpha.__all__) and set(dir(wan_alpha)) == set(wan_alpha.__all__)
    with pytest.raises(AttributeError, match="NoSuchName"):
        wan_alpha.NoSuchName  # noqa: B018


def test_importing_the_package_does_not_import_torch():
    script = "import sys, wan_alpha; print('torch' in sys.modules, 'diffsynth' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"]


def test_the_eight_backgrounds():
    """Black, blue, green, cyan, red, magenta, yellow, white."""
    from wan_alpha.alpha.composite import BACKGROUND_COLORS

    bits = [[red, green, blue] for red in (-1, 1) for green in (-1, 1) for blue in (-1, 1)]
    assert BACKGROUND_COLORS.tolist() == bits


def test_renders_take_three_floats(io, alpha):
    from wan_alpha.alpha.composite import hard_render, over, soft_render

    white, green = (1.0, 1.0, 1.0), [-1.0, 1.0, -1.0]
    close(hard_render(io["rgb"], alpha, white, threshold=0.0), io["hard"])
    close(soft_render(io["rgb"], alpha, green), io["soft"])
    close(over(io["rgb"], alpha, green), io["soft"])
    assert not torch.equal(hard_render(io["rgb"], alpha, white, 0.5), io["hard"])


def test_from_pretrained_signature():
    from wan_alpha import RGBAlphaVAE

    parameters = inspect.signature(RGBAlphaVAE.from_pretrained).parameters
    positional = {name: one.default for name, one in list(parameters.items())[:5]}
    empty = inspect.Parameter.empty
    assert positional == {
        "base_vae": empty, "rgba_weights": None, "decoder_lora": None, "dtype": torch.float32, "device": "cpu",
    }  # fmt: skip
    assert all(one.default is not empty for one in list(parameters.values())[1:])


@torch.no_grad()
def test_encode_and_decode(vae, io, alpha):
    close(vae.encode_features(io["hard"]), io["features_rgb"])
    close(vae.encode_raw(io["hard"], alpha), io["latents"])
    latents = vae.encode(io["hard"], alpha)
    close(latents, io["latents_normalized"])
    rgb, decoded_alpha = vae.decode(latents)
    assert rgb.shape == io["rgb"].shape and decoded_alpha.shape == alpha.shape
    assert rgb.min() >= -1 and rgb.max() <= 1 and decoded_alpha.min() >= 0 and decoded_alpha.max() <= 1
    close(rgb, io["recon_rgb"].clamp(-1, 1))
    close(decoded_alpha, (io["recon_alpha"].clamp(-1, 1).mean(dim=1, keepdim=True) + 1) / 2)
    raw_rgb, raw_alpha = vae.decode_raw(io["latents"])
    close(raw_rgb, io["recon_rgb"])
    close(raw_alpha, io["recon_alpha"])


@torch.no_grad()
def test_decoder_lora_given_late_or_early(reference_dir, io):
    from wan_alpha import RGBAlphaVAE, load_decoder_lora

    late = RGBAlphaVAE.from_pretrained(reference_dir / "base_vae.safetensors")
    load_decoder_lora(late, reference_dir / "decoder.bin")
    early = RGBAlphaVAE.from_pretrained(reference_dir / "base_vae.safetensors", None, reference_dir / "decoder.bin")
    for vae in (late, early):
        raw_rgb, raw_alpha = vae.decode_raw(io["latents"])
        close(raw_rgb, io["recon_rgb"])
        close(raw_alpha, io["recon_alpha"])


def test_reconstruction_loss(reference_dir, io, alpha):
    from wan_alpha import RGBAReconstructionLoss
    from wan_alpha.alpha.composite import BACKGROUND_COLORS

    expected = json.loads((reference_dir / "losses.json").read_text())
    c1, c2 = (BACKGROUND_COLORS[expected.pop(name)].tolist() for name in ("hard_color", "soft_color"))
    loss = RGBAReconstructionLoss(perceptual_weights=reference_dir / "vgg16_relu2_2_random.safetensors")
    recon_rgb, recon_alpha = io["recon_rgb"], io["recon_alpha"]
    terms = loss(recon_rgb, recon_alpha, io["rgb"], alpha, hard_background=c1, soft_background=c2)
    assert {name: float(value) for name, value in terms.items()} == pytest.approx(expected, rel=TOLERANCE)


@pytest.mark.parametrize("as_text", [False, True])
def test_merge_adapter(reference_dir, as_text):
    from wan_alpha.models.adapters import merge_adapter

    tensors = load_file(reference_dir / "dora_io.safetensors")
    base, merged = ({k.removeprefix(p): v for k, v in tensors.items() if k.startswith(p)} for p in ("base.", "merged."))
    path = reference_dir / "dora_adapter.safetensors"
    found = merge_adapter(base, str(path) if as_text else path, scale=1.0)
    assert found.keys() == merged.keys()
    for name, expected in merged.items():
        close(found[name], expected)


def test_operators_chain_and_the_training_module_extends_diffsynth(tmp_path):
    from diffsynth.core.data.operators import DataProcessingOperator
    from diffsynth.diffusion import DiffusionTrainingModule

    from wan_alpha import HardRenderRGBA, LoadRGBAVideoPair, SoftRenderRGBA, WanAlphaTrainingModule

    chain = LoadRGBAVideoPair(tmp_path, num_frames=5, height=32, width=32) >> HardRenderRGBA() >> SoftRenderRGBA()
    assert [type(operator) for operator in chain.operators] == [LoadRGBAVideoPair, HardRenderRGBA, SoftRenderRGBA]
    assert all(isinstance(operator, DataProcessingOperator) for operator in chain.operators)
    assert issubclass(WanAlphaTrainingModule, DiffusionTrainingModule)
