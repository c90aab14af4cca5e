"""Recipe of looking at what a run will take."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from wan_alpha.data.buckets import parse_bucket
from wan_alpha.errors import ConfigError
from wan_alpha.training.config import Command


class PlanRecipe(Command):
    """Say what a run will take before it starts: memory, disk, tokens, steps, hours; exit code 1 if it will not fit.

    Options of the recipe itself follow as its command takes them (--training.batch_size 1).
    """

    config: str = Field(description="recipe (.toml or .json) or preset of train-vae, cache or train-dit")
    for_command: str | None = Field(
        None, description="the recipe's command (train-vae, cache, train-dit); none = the one that its options fit"
    )
    overrides: dict[str, Any] = Field({}, description="options that replace the recipe's: a table of dotted names")
    device: Literal["auto", "cuda", "mps", "cpu"] = Field(
        "auto", description="kind of device to plan for; auto = the recipe's, with device_memory_gib cuda"
    )
    device_memory_gib: float | None = Field(
        None, gt=0, description="memory of the device to plan for, GiB; none = that of the device that is here"
    )
    processes: int | None = Field(None, ge=1, description="processes that train together; none = as launched, or 1")
    sharded: bool = Field(False, description="weights in parts over these processes (FSDP2)")
    seconds_per_step: float | None = Field(None, gt=0, description="seconds that a step takes, for the hours")
    measured: Path | None = Field(
        None, description="folder of an earlier run of this size whose steps' times are taken, for the hours"
    )
    model: str | None = Field(
        None, description="known model (Wan2.1-T2V-1.3B, ...) where the recipe's is not there and its path names none"
    )
    bucket: str | None = Field(
        None, description="frames x height x width of the largest clips, 81x480x832; none = as data or cache have it"
    )
    num_samples: int | None = Field(None, ge=1, description="clips of an epoch where the data is not there yet")
    print_json: bool = Field(False, description="print JSON instead of the text")

    @field_validator("bucket")
    @classmethod
    def _is_a_size(cls, value):
        try:
            return None if value is None else str(parse_bucket(value))
        except ConfigError as error:
            raise ValueError(str(error)) from error

    @model_validator(mode="after")
    def _every_option_has_an_effect(self):
        if self.seconds_per_step is not None and self.measured is not None:
            raise ValueError("seconds_per_step and measured: give one of the two")
        if self.sharded and self.processes in (None, 1):
            raise ValueError("sharded has no effect without processes, at least 2: give both, or neither")
        return self
