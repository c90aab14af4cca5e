"""The type that a model computes in: one choice for models, autocast and plans. Needs no diffsynth."""

import torch

from wan_alpha.errors import ConfigError


def choose_dtype(device, precision="auto"):
    """The dtype to compute in: "fp32", "bf16", or "auto": bf16 on CUDA devices that have it, float32 elsewhere.

    Raises:
        ConfigError: an unknown precision.
    """
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    dtypes["auto"] = torch.bfloat16 if _has_fast_bfloat16(torch.device(device)) else torch.float32
    if precision not in dtypes:
        raise ConfigError(f"precision {precision!r} is unknown: choose auto, fp32, bf16")
    return dtypes[precision]


def in_autocasts_type(x):
    """A tensor in the type that autocast computes in on its device; as it is where autocast is off."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def _has_fast_bfloat16(device):
    return device.type == "cuda" and (not torch.cuda.is_available() or torch.cuda.is_bf16_supported(False))
