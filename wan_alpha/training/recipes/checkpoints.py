"""Recipe of what takes the weights out of a run's checkpoint."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from wan_alpha.training.config import Command


class ExportCheckpointRecipe(Command):
    """Write the weights of a checkpoint, whole or in shards, as one file that the other commands read."""

    checkpoint: Path = Field(description="folder of one checkpoint, or of a run: its newest whole one")
    output: Path = Field(description="file to write, .safetensors")
    weights: Literal["trained", "average"] = Field(
        "trained", description="the weights as they are, or their moving average (training.ema_decay)"
    )

    @field_validator("output")
    @classmethod
    def _is_safetensors(cls, value):
        if value.suffix != ".safetensors":
            raise ValueError(f"weights are written as safetensors: {value.with_suffix('.safetensors').name} would do")
        return value
