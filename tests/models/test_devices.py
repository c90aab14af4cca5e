"""What is computed where, in which type and how, on CUDA, ROCm, MPS and CPU, with stand-ins for what is absent."""

import subprocess
import sys

import pytest
import torch
from diffsynth.models import wan_video_dit
from forbid_wide import ForbidWide
from miniature_wan import NUM_TOKENS, TEXT_SIZES, make_dit, write_wan_folder
from safetensors.torch import load_file

from wan_alpha.errors import ConfigError
from wan_alpha.inference.sampler import sample_latents
from wan_alpha.models import devices
from wan_alpha.models.devices import announce, choose_attention, choose_compute, choose_device, choose_dtype
from wan_alpha.models.load import load_wan
from wan_alpha.models.real_arithmetic import use_real_rotary
from wan_alpha.models.rgba_vae import RGBAlphaVAE
from wan_alpha.models.wan import encode_prompts
from wan_alpha.training.device import autocast

FILTER = devices.warnings.filterwarnings


@pytest.fixture(autouse=True)
def no_trace(monkeypatch):
    monkeypatch.setattr(torch, "set_warn_always", lambda _: None)
    monkeypatch.setattr(devices.warnings, "filterwarnings", lambda *_, **__: None)
    for switch in devices._SWITCHES.values():
        monkeypatch.setattr(wan_video_dit, switch, getattr(wan_video_dit, switch))
    monkeypatch.delenv("WAN_ALPHA_ATTENTION", raising=False)


def pretend(monkeypatch, kind, *, hip=None, bf16=True, installed=()):
    """A machine of one kind: what torch and diffsynth would say on it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: kind == "cuda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: kind == "mps")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda emulated=True: bf16 or emulated)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Stand-in 9000")
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(devices, "_INSTALLED", {name: name in installed for name in ("flash3", "flash2", "sage")})


# machine, what is asked for -> type of device, dtype, attention, words of the line that is printed
CHOICES = [
    ({"kind": "cpu"}, {}, ("cpu", torch.float32, "torch", "CPU with")),
    ({"kind": "cuda"}, {}, ("cuda", torch.bfloat16, "torch", "Stand-in 9000 (cuda) in bfloat16, attention: torch")),
    ({"kind": "cuda", "installed": ["flash2", "sage"]}, {}, ("cuda", torch.bfloat16, "flash2", "attention: flash2")),
    ({"kind": "cuda", "installed": ["flash2", "flash3"]}, {}, ("cuda", torch.bfloat16, "flash3", "flash3")),
    ({"kind": "cuda", "installed": ["flash2"]}, {"precision": "fp32"}, ("cuda", torch.float32, "torch", "float32")),
    ({"kind": "cuda", "bf16": False}, {}, ("cuda", torch.float32, "torch", "note: this card has no bf16 of its own")),
    ({"kind": "cuda", "bf16": False}, {"precision": "bf16"}, ("cuda", torch.bfloat16, "torch", "bfloat16")),
    ({"kind": "cuda", "hip": "6.4"}, {}, ("cuda", torch.bfloat16, "torch", "Stand-in 9000 through ROCm 6.4")),
    ({"kind": "cuda", "hip": "6.4", "installed": ["flash2"]}, {}, ("cuda", torch.bfloat16, "flash2", "ROCm")),
    ({"kind": "mps"}, {}, ("mps", torch.float32, "torch", "MPS has no float64")),
    ({"kind": "mps", "installed": ["flash2"]}, {"precision": "bf16"}, ("mps", torch.bfloat16, "torch", "Apple GPU")),
    ({"kind": "cuda", "installed": ["sage"]}, {"attention": "sage"}, ("cuda", torch.bfloat16, "sage", "8 bits")),
    ({"kind": "cuda", "installed": ["flash2"]}, {"attention": "torch"}, ("cuda", torch.bfloat16, "torch", "torch")),
    ({"kind": "cuda"}, {"device": "cpu"}, ("cpu", torch.float32, "torch", "CPU with")),
    ({"kind": "cuda"}, {"device": "cuda:1"}, ("cuda", torch.bfloat16, "torch", "(cuda:1)")),
]


@pytest.mark.parametrize(("machine", "asked", "expected"), CHOICES)
def test_what_a_machine_can_do_decides_unless_told(monkeypatch, capsys, machine, asked, expected):
    pretend(monkeypatch, **machine)
    compute = announce(choose_compute(**asked))
    kind, dtype, attention, words = expected
    assert (compute.device.type, compute.dtype, compute.attention) == (kind, dtype, attention)
    assert words in capsys.readouterr().err
    assert {name: getattr(wan_video_dit, switch) for name, switch in devices._SWITCHES.items()} == {
        name: name == attention for name in devices._SWITCHES
    }


def test_what_cannot_be_is_refused(monkeypatch):
    pretend(monkeypatch, "cpu", installed=["flash2"])
    for asked, message in (
        ({"attention": "flash3"}, "needs the package flash_attn_interface: install it, or choose auto or torch"),
        ({"attention": "flash2"}, "runs on CUDA in bf16 alone, not on cpu in torch.float32: choose torch"),
        ({"attention": "fast"}, "choose one of auto, torch, flash3, flash2, sage"),
        ({"device": "cuda"}, "not available here: choose auto or cpu"),
        ({"device": "rocm"}, r"choose auto, cuda, mps, cpu \(ROCm is called cuda\)"),
        ({"precision": "fp16"}, "choose auto, fp32, bf16"),
    ):
        with pytest.raises(ConfigError, match=message):
            choose_compute(**asked)
    monkeypatch.setenv("WAN_ALPHA_ATTENTION", "flash3")
    with pytest.raises(ConfigError, match="flash_attn_interface"):
        choose_compute()
    assert choose_compute(attention="torch").attention == "torch"
    assert choose_attention("cuda", torch.float32) == "torch" and choose_dtype("mps") == torch.float32
    assert choose_device("cpu").type == "cpu"


def test_only_the_first_process_prints(monkeypatch, capsys):
    pretend(monkeypatch, "cpu")
    monkeypatch.setenv("LOCAL_RANK", "1")
    announce(choose_compute())
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("given", "expected"), [(None, "1"), ("0", "0")])
def test_what_mps_lacks_falls_back_unless_told_otherwise(given, expected):
    """torch reads the variable when it is loaded: it must be there by then."""
    import os

    environment = {name: value for name, value in os.environ.items() if name != "PYTORCH_ENABLE_MPS_FALLBACK"}
    environment |= {} if given is None else {"PYTORCH_ENABLE_MPS_FALLBACK": given}
    script = (
        "import sys, os\nimport wan_alpha.cli.main\n"
        "print('torch' in sys.modules, os.environ['PYTORCH_ENABLE_MPS_FALLBACK'])"
    )
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", expected]


def test_the_note_says_what_becomes_of_an_operation_that_mps_lacks(monkeypatch, capsys):
    pretend(monkeypatch, "mps")
    monkeypatch.setenv("PYTORCH_ENABLE_MPS_FALLBACK", "1")
    assert "runs on the CPU instead; a warning names each once" in choose_compute().describe()
    for value in ("0", None):
        monkeypatch.setenv("PYTORCH_ENABLE_MPS_FALLBACK", "0")
        if value is None:
            monkeypatch.delenv("PYTORCH_ENABLE_MPS_FALLBACK")
        assert "start with PYTORCH_ENABLE_MPS_FALLBACK=1, or import wan_alpha before torch" in announced(capsys)


def announced(capsys):
    announce(choose_compute())
    return capsys.readouterr().err


def test_after_torch_the_switch_is_left_alone():
    """It would do nothing, and the note would claim that it does."""
    import os

    environment = {name: value for name, value in os.environ.items() if name != "PYTORCH_ENABLE_MPS_FALLBACK"}
    script = "import sys, os\nsys.modules['torch'] = None\nimport wan_alpha\n"
    script += "print(os.environ.get('PYTORCH_ENABLE_MPS_FALLBACK'))"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"


def test_each_operation_that_falls_back_is_named_once(monkeypatch):
    """PyTorch's own warning, whose words are recorded here, stops after the first operation unless told otherwise."""
    import warnings

    pretend(monkeypatch, "mps")
    asked = []
    monkeypatch.setattr(torch, "set_warn_always", asked.append)
    said = (
        "The operator '{}' is not currently supported on the MPS backend and will fall back to run on the CPU. This may"
    )
    with warnings.catch_warnings(record=True) as shown:
        monkeypatch.setattr(devices.warnings, "filterwarnings", FILTER)
        choose_compute()
        for name in ("aten::nonzero", "aten::linalg_svd", "aten::nonzero"):
            warnings.warn(said.format(name), stacklevel=1)
            warnings.warn(said.format(name), stacklevel=1)
    names = [str(one.message).split("'")[1] for one in shown]
    assert asked == [True] and names == ["aten::nonzero", "aten::linalg_svd"]


def test_text_sampling_and_the_rgba_vae_need_no_float64_and_no_complex_numbers(tmp_path, reference_dir):
    """The whole path from prompt to frames; the DiT as it is on MPS. Without that, the mode does object."""
    pipe = load_wan(write_wan_folder(tmp_path), components=("text_encoder", "tokenizer"))
    vae = RGBAlphaVAE.from_pretrained(reference_dir / "base_vae.safetensors", reference_dir / "rgba_vae_checkpoint.bin")
    plain, real = make_dit(), make_dit()
    use_real_rotary(real)
    options = {"num_steps": 3, "guidance": 2.0, "negative_context": torch.zeros(1, NUM_TOKENS, TEXT_SIZES["dim"])}
    shape, generator = (1, 16, 2, 4, 4), torch.Generator().manual_seed(1)
    rgb, alpha = torch.rand(1, 3, 5, 32, 32, generator=generator) * 2 - 1, torch.rand(1, 1, 5, 32, 32)
    expected = sample_latents(plain, encode_prompts(pipe, ["a ball"]), shape, **options)
    for solver in ("unipc", "euler"):
        with ForbidWide():
            context = encode_prompts(pipe, ["a ball"])
            latents = sample_latents(real, context, shape, solver=solver, **options)
            frames = vae.decode(latents)
            again = vae.encode(rgb, alpha)
        assert all(tensor.isfinite().all() for tensor in (latents, again, *frames))
        if solver == "unipc":
            assert (latents - expected).abs().max() <= 1e-4
    with pytest.raises(AssertionError, match="made torch"), ForbidWide():
        sample_latents(plain, context, shape, **options)


def test_training_steps_need_no_float64_and_no_complex_numbers(reference_dir):
    from wan_alpha.models.adapters import add_adapter
    from wan_alpha.models.wan import predict_velocity

    dit = make_dit().train()
    parameters = add_adapter(dit, rank=2, alpha=2)
    use_real_rotary(dit)
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    base = load_file(reference_dir / "base_vae.safetensors")
    assert not any(tensor.dtype == torch.float64 for tensor in base.values())
    with ForbidWide():
        velocity = predict_velocity(dit, torch.randn(2, 16, 2, 4, 4), torch.rand(2) * 1000, torch.randn(2, 5, 24))
        velocity.square().mean().backward()
        optimizer.step()
    assert all(parameter.grad.isfinite().all() for parameter in parameters)


@pytest.mark.parametrize(("machine", "asked", "expected"), CHOICES)
def test_training_computes_in_the_type_that_is_printed(monkeypatch, machine, asked, expected):
    """Training, validation, previews and the cache: the same choice decides for autocast."""
    pretend(monkeypatch, **machine)
    compute = choose_compute(**asked)
    with autocast(compute.device, asked.get("precision", "auto")):
        enabled = torch.is_autocast_enabled(compute.device.type)
    assert enabled == (expected[1] == torch.bfloat16)
