"""Where a model computes, in which type and with which attention: chosen by what the machine can do, or as told."""

import os
import sys
import warnings
from dataclasses import dataclass

import psutil
import torch
from diffsynth.models import wan_video_dit

from wan_alpha.errors import ConfigError
from wan_alpha.models.precision import choose_dtype

# Name of an attention backend -> the switch that diffsynth set when it found the package.
_SWITCHES = {"flash3": "FLASH_ATTN_3_AVAILABLE", "flash2": "FLASH_ATTN_2_AVAILABLE", "sage": "SAGE_ATTN_AVAILABLE"}
_PACKAGES = {"flash3": "flash_attn_interface", "flash2": "flash_attn", "sage": "sageattention"}
_INSTALLED = {name: getattr(wan_video_dit, switch) for name, switch in _SWITCHES.items()}
ATTENTIONS = ("auto", "torch", *_SWITCHES)
_HALF = (torch.bfloat16, torch.float16)
_MPS_FALLBACK = "PYTORCH_ENABLE_MPS_FALLBACK"


@dataclass(frozen=True)
class Compute:
    """What was chosen.

    Attributes:
        device, dtype: as torch names them; attention: of ATTENTIONS, never "auto".
        name: the device as people call it; notes: what the choice means, one sentence each.
    """

    device: torch.device
    dtype: torch.dtype
    attention: str
    name: str
    notes: tuple[str, ...] = ()

    def describe(self):
        """One line, and one for each note."""
        line = f"computing on {self.name} ({self.device}) in {str(self.dtype).removeprefix('torch.')}, "
        return "\n".join([f"{line}attention: {self.attention}", *(f"note: {note}" for note in self.notes)])


def choose_compute(device="auto", precision="auto", attention="auto"):
    """Choose device, dtype and attention backend, and make diffsynth use that backend.

    Args:
        device: "auto", "cuda" (ROCm too, as torch names it), "mps", "cpu"; precision: "auto", "fp32", "bf16".
        attention: "auto", "torch", "flash2", "flash3", "sage"; the environment's WAN_ALPHA_ATTENTION stands in for
            "auto".

    Raises:
        ConfigError: something unknown, or that this machine cannot do.
    """
    device = choose_device(device)
    dtype = choose_dtype(device, precision)
    if attention == "auto":
        attention = os.environ.get("WAN_ALPHA_ATTENTION", "auto")
    backend = choose_attention(device, dtype, attention)
    use_attention(backend)
    if device.type == "mps":
        name_each_fallback()
    return Compute(device, dtype, backend, device_name(device), tuple(_notes(device, dtype, precision, backend)))


def name_each_fallback():
    """Have PyTorch name each operation that MPS lacks, once: by itself it warns of the first one and of no other."""
    torch.set_warn_always(True)
    warnings.filterwarnings("once", message=r"The operator '.*' is not currently supported on the MPS backend")


def announce(compute):
    """Print what was chosen to standard error, by the first process alone; returns it."""
    if is_first_process():
        print(compute.describe(), file=sys.stderr)
    return compute


def is_first_process():
    """Whether this is the process of a launch that speaks for all."""
    return int(os.environ.get("LOCAL_RANK", 0)) == 0


def choose_device(name="auto"):
    """The device to compute on: "auto" is CUDA (or ROCm), else Apple's MPS, else the CPU.

    Raises:
        ConfigError: an unknown name, or a device that this machine or this PyTorch has not.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, available in there.items() if available))
    kind = str(name).partition(":")[0]
    if kind not in there:
        raise ConfigError(f"device {name!r} is unknown: choose auto, {', '.join(there)} (ROCm is called cuda)")
    if not there[kind]:
        raise ConfigError(f"device {name!r} is not available here: choose auto or cpu")
    return torch.device(name)


def choose_attention(device, dtype, name="auto"):
    """The attention backend: "auto" is FlashAttention 3 or 2 where it is installed and can run, else PyTorch's own.

    Raises:
        ConfigError: an unknown backend, or one that is not installed or cannot run there.
    """
    if name not in ATTENTIONS:
        raise ConfigError(f"attention {name!r} is unknown: choose one of {', '.join(ATTENTIONS)}")
    can_run = torch.device(device).type == "cuda" and dtype in _HALF
    if name == "auto":
        # Not sage: it rounds to 8 bits.
        return next((one for one in ("flash3", "flash2") if can_run and _INSTALLED[one]), "torch")
    if name != "torch" and not _INSTALLED[name]:
        raise ConfigError(
            f"attention {name!r} needs the package {_PACKAGES[name]}: install it, or choose auto or torch"
        )
    if name != "torch" and not can_run:
        raise ConfigError(f"attention {name!r} runs on CUDA in bf16 alone, not on {device} in {dtype}: choose torch")
    return name


def use_attention(name):
    """Make diffsynth's Wan attend with one backend; name: as :func:`choose_attention` returns it."""
    for backend, switch in _SWITCHES.items():
        setattr(wan_video_dit, switch, backend == name)


def device_name(device):
    """What people call a device: the card's name, with ROCm where torch runs on it."""
    if device.type == "cuda":
        card = torch.cuda.get_device_name(device)
        return f"{card} through ROCm {torch.version.hip}" if torch.version.hip else card
    return {"mps": "Apple GPU", "cpu": f"CPU with {torch.get_num_threads()} threads"}[device.type]


def device_memory(device):
    """Bytes of memory of a device in all; of the CPU, and of a GPU that shares its memory, what may be used of that."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    return psutil.virtual_memory().total


def _notes(device, dtype, precision, attention):
    if device.type == "cuda" and precision == "auto" and dtype == torch.float32:
        yield "this card has no bf16 of its own: float32 takes twice the memory; precision = bf16 emulates it"
    if device.type == "mps":
        yield "rotary and time embeddings are computed in float32 real numbers: MPS has no float64 and no complex ones"
        if os.environ.get(_MPS_FALLBACK) == "1":
            yield "an operation that MPS lacks runs on the CPU instead; a warning names each once when it happens"
        else:
            yield (
                f"an operation that MPS lacks will stop the run: to have it on the CPU, start with {_MPS_FALLBACK}=1, "
                "or import wan_alpha before torch"
            )
    if attention == "sage":
        yield "sage attention rounds to 8 bits: results differ from PyTorch's"
