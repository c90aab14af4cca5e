"""Where a run computes, and in which type."""

from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, InitProcessGroupKwargs

from wan_alpha.errors import ConfigError
from wan_alpha.models.precision import choose_dtype
from wan_alpha.training.sharding import plain_accelerate

_PLAIN_DATA_PARALLEL = (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU)

# How long a process waits for the others before it gives the run up. While the first one alone validates, makes
# previews, verifies a checkpoint or exports, all others wait for what it tells them, and NCCL's own 10 minutes would
# end the run. A process that has died is noticed by the launcher, whatever this is.
WAIT_FOR_OTHERS = timedelta(hours=12)


def make_accelerator(settings):
    """An Accelerator on the device of the settings; it never casts, :func:`autocast` does.

    Where there are several processes, their group is made here, with WAIT_FOR_OTHERS as its timeout.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(settings.device, True):
        raise ConfigError(
            f"training.device = {settings.device!r}: this machine or this PyTorch build has none; try 'auto'"
        )
    with plain_accelerate():
        accelerator = Accelerator(
            cpu=settings.device == "cpu", mixed_precision="no",
            kwargs_handlers=[InitProcessGroupKwargs(timeout=WAIT_FOR_OTHERS)],
        )  # fmt: skip
    if settings.device not in ("auto", accelerator.device.type):
        # One process computes on one kind of device: accelerate keeps its first choice.
        raise ConfigError(
            f"training.device = {settings.device!r}: accelerate already chose {accelerator.device.type} here"
        )
    if accelerator.distributed_type not in _PLAIN_DATA_PARALLEL:
        raise ConfigError(
            f"accelerate is set to {accelerator.distributed_type}: this loop runs on one device, with plain data "
            "parallelism (accelerate launch --multi_gpu) or with FSDP version 2"
        )
    return accelerator


def autocast(device, precision):
    """Autocast to the type that :func:`~wan_alpha.models.precision.choose_dtype` gives; nothing where that is float32.

    A card without bf16 of its own gets float32 by "auto" here as in what the program prints and plans.
    """
    dtype = choose_dtype(device, precision)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)
