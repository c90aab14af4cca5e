"""Every mode on every family of Wan: a training step, the resume of it, and a sample of what was trained."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_wan_files import write_dataset, write_dit, write_experts, write_wan, write_wan22

from wan_alpha.cli.main import main
from wan_alpha.media.read import read_rgba
from wan_alpha.models.rgba_vae import RGBAlphaVAE
from wan_alpha.weights.io import load_state_dict

PLACEHOLDER = "<thing>"
MODES = {
    "full": ("--adapter.kind", "full"),
    "lora": ("--adapter.kind", "lora"),
    "dora": ("--adapter.kind", "dora"),
    "word": ("--adapter.kind", "none", "--textual_inversion.placeholder", PLACEHOLDER),
    "word and lora": ("--adapter.kind", "lora", "--textual_inversion.placeholder", PLACEHOLDER),
}
# Family -> (which of its DiTs are trained, pixels of a side: two of its tokens).
FAMILIES = {
    "1.3B": (None, 32),
    "14B": (None, 32),
    "A14B, both": ("both", 32),
    "A14B, high noise": ("high_noise", 32),
    "TI2V-5B": (None, 64),
}
# The 14B is the 1.3B with other sizes; its heads are as wide as that one's.
LARGER = {"dim": 36, "num_heads": 3, "num_layers": 3, "ffn_dim": 40}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Name of a family -> its folder; the experts' under "A14B"."""
    top = tmp_path_factory.mktemp("families")
    return {
        "1.3B": write_wan(top / "Wan2.1-T2V-1.3B"),
        "14B": write_wan(top / "Wan2.1-T2V-14B", **LARGER),
        "A14B": write_experts(top / "Wan2.2-T2V-A14B"),
        "TI2V-5B": write_wan22(top / "Wan2.2-TI2V-5B"),
    }


@pytest.fixture(scope="module")
def make_family(folders, tmp_path_factory, reference_dir):
    """make_family(name) -> its folder, the options that name its VAE, and a cache made with them."""
    top, made = tmp_path_factory.mktemp("caches"), {}

    def cached(has_wan22_vae, size):
        if has_wan22_vae not in made:
            base, weights = reference_dir / "base_vae.safetensors", reference_dir / "rgba_vae_checkpoint.bin"
            if has_wan22_vae:
                base, weights = folders["TI2V-5B"] / "Wan2.2_VAE.pth", top / "rgba_vae.safetensors"
                RGBAlphaVAE.from_pretrained(base, lora_rank=2).save(weights)
            vae = ["--model.base_vae", base, "--model.rgba_weights", weights]
            clips = write_dataset(top / f"clips {size}", num_clips=1, size=size, subject=PLACEHOLDER)
            data = ["--data.base_path", clips, "--data.num_frames", 5, "--data.height", size, "--data.width", size]
            wan = folders["TI2V-5B" if has_wan22_vae else "1.3B"]
            run("cache", *vae, *data, "--model.wan", wan, "--output_dir", top / f"cache {size}")
            made[has_wan22_vae] = vae, top / f"cache {size}"
        return made[has_wan22_vae]

    def make(name):
        expert, size = FAMILIES[name]
        vae, cache = cached(name == "TI2V-5B", size)
        return SimpleNamespace(folder=folders[name.partition(",")[0]], vae=vae, cache=cache, expert=expert, size=size)

    return make


def run(command, *options, code=0):
    device = "--device" if command in ("cache", "generate") else "--training.device"
    assert main([command, *map(str, options), device, "cpu"]) == code


def train(family, mode, output_dir, max_steps):
    """Run `train-dit`; returns file name -> tensors of what it wrote."""
    options = ["--model.wan", family.folder, "--cache", family.cache, "--output_dir", output_dir]
    options += [*MODES[mode], "--training.max_steps", max_steps, "--training.learning_rate", 0.01]
    if "lora" in mode or mode == "dora":
        options += ["--adapter.rank", 2, "--adapter.alpha", 2]
    if "word" in mode:
        options += ["--textual_inversion.initializer", "o"]
    if family.expert is not None:
        options += ["--model.expert", family.expert]
    run("train-dit", *options)
    return {path.name: load_state_dict(path) for path in sorted(output_dir.glob("*.safetensors"))}


def sample(family, output_dir, run_dir=None):
    """`generate`, with all that a run wrote if one is given; returns the frames (5, H, W, 4)."""
    wan, options = family.folder, []
    if run_dir is not None:
        names = {path.name for path in run_dir.glob("*.safetensors")}
        adapters = sorted(name for name in names if name.startswith("adapter"))
        for option, name in zip(("--model.adapter", "--model.adapter_low_noise"), adapters, strict=False):
            options += [option, run_dir / name]
        if "embeddings.safetensors" in names:
            options += ["--model.embeddings", run_dir / "embeddings.safetensors"]
        wan = with_trained_dits(family, run_dir)
    size = ["--num_frames", 5, "--height", family.size // 2, "--width", family.size]
    options += ["--num_steps", 2, "--guidance", 1, "--formats", "png", "--prompt", f"a red {PLACEHOLDER}"]
    run("generate", "--model.wan", wan, *family.vae, *size, *options, "--output_dir", output_dir)
    (frames,) = output_dir.glob("*/frames")
    return read_rgba(frames)


def with_trained_dits(family, run_dir):
    """The model as a list of files: its own DiTs, or in their place those that a full training wrote."""
    if not list(run_dir.glob("dit*.safetensors")):
        return family.folder
    files = {
        path.parent.name.removesuffix("_model"): path for path in sorted(family.folder.rglob("diffusion*.safetensors"))
    }
    for name in files:
        expert = f"_{name}" if family.expert else ""
        trained = run_dir / f"dit{expert}.safetensors"
        files[name] = trained if trained.is_file() else files[name]
    # The tokenizer stands beside the text encoder.
    listed = [*files.values(), family.folder / "models_t5_umt5-xxl-enc-bf16.pth"]
    return "[" + ", ".join(f'"{path}"' for path in listed) + "]"


def expected_files(family, mode):
    """Names of what a mode writes for a family."""
    experts = {"both": ("_high_noise", "_low_noise"), None: ("",)}.get(family.expert, (f"_{family.expert}",))
    of_dit = {"full": "dit", "word": None}.get(mode, "adapter")
    names = {f"{of_dit}{expert}.safetensors" for expert in experts} if of_dit else set()
    return names | ({"embeddings.safetensors"} if "word" in mode else set())


@pytest.fixture(scope="module")
def untrained(make_family, tmp_path_factory):
    """Folder of a model -> the sample of it as it is."""
    made = {}

    def make(family):
        if family.folder not in made:
            made[family.folder] = sample(family, tmp_path_factory.mktemp("untrained"))
        return made[family.folder]

    return make


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FAMILIES)
def test_it_trains_a_step_resumes_and_is_sampled(make_family, untrained, tmp_path, name, mode):
    family = make_family(name)
    first = train(family, mode, tmp_path / "resumed", max_steps=1)
    assert first.keys() == expected_files(family, mode)
    resumed = train(family, mode, tmp_path / "resumed", max_steps=2)
    straight = train(family, mode, tmp_path / "straight", max_steps=2)
    assert resumed.keys() == straight.keys() == first.keys()
    for file, tensors in straight.items():
        assert all(torch.equal(resumed[file][key], tensor) for key, tensor in tensors.items()), file
        if family.expert != "both":  # of both a step trains the one whose timestep is drawn
            assert any((first[file][key] != tensor).any() for key, tensor in tensors.items()), file
    assert np.any(sample(family, tmp_path / "out", tmp_path / "resumed") != untrained(family))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("A14B", ["--adapter.kind", "lora"], "holds two experts: say which is trained"),
        ("1.3B", ["--model.expert", "both"], "model.expert = both: there is one DiT"),
        ("TI2V-5B", ["--model.expert", "both"], "model.expert = both: there is one DiT"),
        ("1.3B", ["--adapter.kind", "none"], "trains nothing: give textual_inversion.placeholder"),
        ("1.3B", ["--adapter.kind", "full", "--adapter.rank", "4"], "adapter.rank has no effect with kind = 'full'"),
        ("I2V", ["--adapter.kind", "lora"], "an image-to-video model is recognised and loaded only"),
        ("no text encoder", [*MODES["word"], "--textual_inversion.initializer", "o"], "text encoder"),
        ("1.3B", [*MODES["word"], "--textual_inversion.initializer", ""], "initializer: missing"),
        ("1.3B with the other's cache", ["--adapter.kind", "lora"], "latent"),
    ],
)
def test_what_a_model_cannot_do_is_refused_with_the_reason(
    make_family, folders, tmp_path, capsys, name, options, message
):
    family = make_family("TI2V-5B" if "other" in name or name == "TI2V-5B" else "1.3B")
    wan = folders.get(name, folders["1.3B"])
    if name == "I2V":
        write_dit(tmp_path / "wan", in_dim=36, has_image_input=True)
        wan = tmp_path / "wan"
    if name == "no text encoder":
        wan = folders["1.3B"] / "diffusion_pytorch_model.safetensors"
    given = ["--model.wan", wan, "--cache", family.cache, "--output_dir", tmp_path / "run", "--training.max_steps", 1]
    run("train-dit", *given, *options, code=2)
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("run/*.safetensors"))
