"""Recipes of stage 2: cache latents, train the diffusion model on them."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from wan_alpha.training.config import Device, GridSize, NumFrames, Precision, Recipe, Section, TrainingSettings
from wan_alpha.training.recipes.shared import RESUME_TRAINING, Background, ClipData, RGBAVAEModel, WanSource

ADAPTER_TARGETS = ("q", "k", "v", "o", "ffn.0", "ffn.2")


class CacheModel(RGBAVAEModel):
    """What turns clips and captions into latents and contexts."""

    wan: WanSource = Field(
        description="Wan folder, list of files, or model_id:pattern,... (text encoder and tokenizer are used)"
    )
    rgba_weights: Path = Field(description="trained RGBA VAE weights: this project's safetensors or a released .bin")


class CacheData(ClipData):
    """Clips to be cached."""

    num_frames: NumFrames = Field(81, description="frames per clip, 4n+1")
    height: GridSize = Field(480, description="pixels, a multiple of 16, for TI2V-5B of 32")
    width: GridSize = Field(832, description="pixels, a multiple of 16, for TI2V-5B of 32")
    augment: bool = Field(False, description="random scale (1 to 2 times) and crop; with repeat, each repeat differs")


class CacheRecipe(Recipe):
    """Compute what stage 2 trains on: text contexts and merged latents. output_dir is the cache."""

    model: CacheModel
    data: CacheData
    background: Background = Field("random", description="colour of the hard render; random = one of eight per clip")
    hard_threshold: float = Field(0.0, ge=0, lt=1, description="alpha up to this counts as clear in the hard render")
    device: Device = Field("auto", description="where to run")
    precision: Precision = Field("auto", description="compute type; auto = bf16 on CUDA, float32 elsewhere")
    force: bool = Field(False, description="compute every item again")


class TrainDiTModel(Section):
    """The diffusion model that is trained."""

    wan: WanSource = Field(description="Wan folder, list of files, or model_id:pattern,...")
    dit: Path | None = Field(None, description="DiT weights in place of the folder's own")


class AdapterSettings(Section):
    """What is trained of the DiT."""

    kind: Literal["dora", "lora", "full"] = Field("dora", description="adapter, or full = every weight of the DiT")
    rank: int = Field(32, ge=1, description="rank of the adapter")
    alpha: float = Field(32, gt=0, description="the adapter's scale times its rank")
    targets: tuple[str, ...] = Field(ADAPTER_TARGETS, min_length=1, description="linear layers that get an adapter")

    @model_validator(mode="after")
    def _adapter_is_used(self):
        unused = [name for name in ("rank", "alpha", "targets") if not self.has_default(name)]
        if self.kind == "full" and unused:
            raise ValueError(
                f"adapter.{unused[0]} has no effect with kind = 'full'; leave it out or choose dora or lora"
            )
        return self


class ObjectiveSettings(Section):
    """Rectified flow on the latents."""

    shift: float = Field(5.0, gt=0, description="timestep shift: above 1, more of the training at high noise")
    noise_shift: float = Field(
        0.0, ge=0, description="added to the noise outside the subject's ellipse; Wan-Alpha v2: 0.05"
    )
    weighting: Literal["bell", "none"] = Field("bell", description="loss weight over timesteps; bell as in DiffSynth")
    caption_dropout: float = Field(0.0, ge=0, lt=1, description="share of samples that see the empty caption")


class TrainDiTSettings(TrainingSettings):
    """How stage 2 trains."""

    gradient_checkpointing: bool = Field(False, description="compute activations twice to save memory")


class TrainDiTRecipe(Recipe):
    """Stage 2: train the diffusion model on cached latents."""

    # A cache may have moved; whether it holds what it did is for the loop to say, by the dataset's fingerprint.
    may_change_on_resume: ClassVar = RESUME_TRAINING | {"cache", "validation_cache"}

    model: TrainDiTModel
    cache: Path = Field(description="folder that `wan-alpha cache` made")
    validation_cache: Path | None = Field(None, description="cache of held-out clips; none = no validation")
    repeat: int = Field(1, ge=1, description="times each cached clip occurs in an epoch")
    adapter: AdapterSettings
    objective: ObjectiveSettings
    training: TrainDiTSettings
