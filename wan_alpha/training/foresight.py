"""What a run will take besides memory, and how it is said."""

import math
import os

import torch

from wan_alpha.training.config import dotted_fields
from wan_alpha.training.step_memory import FLOAT32_BYTES, state_bytes

GIB = 2**30


def checkpoint_bytes(num_trained, settings, exported=0):
    """Bytes of one checkpoint on disk, without headers: weights, optimizer's state, average, exported numbers."""
    copies = 1 + (settings.ema_decay is not None)
    return FLOAT32_BYTES * (num_trained * copies + exported) + state_bytes(torch.Size((1, num_trained)), settings)


def num_steps(num_samples, settings, num_processes):
    """(samples of a step, steps of an epoch, steps in all); None for what an unknown number of samples leaves open.

    Args:
        num_samples: of an epoch, None where it is not known; settings: TrainingSettings.
    """
    step_size = settings.batch_size * settings.gradient_accumulation * num_processes
    if num_samples is None:
        return step_size, None, settings.max_steps if settings.num_epochs is None else None
    per_epoch = math.ceil(num_samples / step_size)
    limits = [settings.max_steps, settings.num_epochs and settings.num_epochs * per_epoch]
    return step_size, per_epoch, min(limit for limit in limits if limit is not None)


def print_recipe(recipe):
    """Print every option as it was resolved."""
    values = {}
    for name, _ in dotted_fields(type(recipe)):
        value = recipe
        for part in name.split("."):
            value = getattr(value, part)
        values[name] = "none" if value is None else str(value)
    print_tables({"recipe": values})


def print_tables(tables):
    """Print title -> (name -> text), in the first process alone."""
    if int(os.environ.get("RANK", 0)) != 0:
        return
    for title, rows in tables.items():
        width = max(map(len, rows), default=0)
        print("\n".join([f"{title}:", *(f"  {name:<{width}}  {value}" for name, value in rows.items()), ""]))


def show_bytes(count):
    """ "1.25 GiB (1342177280 bytes)"; smaller ones in MiB."""
    return f"{show_gib(count)} ({count:.0f} bytes)"


def show_gib(count):
    """ "1.25 GiB"; smaller ones in MiB."""
    return f"{count / GIB:.2f} GiB" if abs(count) >= GIB / 10 else f"{count / 2**20:.2f} MiB"
