"""Recipes of work on adapters: convert-adapter, merge."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from wan_alpha.training.config import Command
from wan_alpha.training.recipes.shared import WanSource

Expert = Literal["high_noise", "low_noise"]
DoraNorm = Literal["adapted", "base"]


class ConvertAdapterRecipe(Command):
    """Write an adapter in another program's dialect: the same numbers, or a refusal with the reason."""

    source: Path = Field(description="adapter in any dialect: a file, or PEFT's or diffusers' folder")
    output: Path = Field(description="file to write (.safetensors); peft: a folder")
    to: Literal["peft", "diffusers", "comfyui", "wan-alpha"] = Field(description="dialect to write")
    dtype: Literal["fp32", "bf16", "fp16"] | None = Field(None, description="of the tensors; none = as they are")
    base: WanSource | None = Field(
        None, description="the model that the adapter is for; needed for a DoRA between comfyui and the others"
    )
    dora_norm: DoraNorm | None = Field(
        None,
        description="what a comfyui file's dora_scale is divided by: base = as ComfyUI computes, adapted = as LyCORIS; "
        "none = read: what the file says, else adapted; write: base",
    )
    expert: Expert | None = Field(None, description="which of A14B's experts, of a file that holds adapters of both")


class MergeRecipe(Command):
    """Bake an adapter into a base model on disk, tensor by tensor."""

    base: WanSource = Field(description="the DiT: a file, a Wan folder, or model_id:pattern,...")
    adapter: Path = Field(description="LoRA, DoRA or LoKr in any dialect")
    output: Path = Field(description="file to write (.safetensors), in the base's names and dtypes")
    scale: float = Field(1.0, description="strength: 0 leaves the base, 1 applies the adapter in full")
    expert: Expert | None = Field(None, description="which of the base's two experts (A14B)")
    dora_norm: DoraNorm | None = Field(
        None, description="what the magnitudes are divided by; none = what the file says, else adapted"
    )

    @model_validator(mode="after")
    def _has_an_effect(self):
        if self.scale == 0:
            raise ValueError("scale = 0 would write a copy of the base; give another strength")
        return self
