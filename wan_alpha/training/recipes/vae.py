"""Recipes of stage 1: train the RGBA VAE, validate it."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from wan_alpha.training.config import (
    Device,
    GridSize,
    NumFrames,
    PlannedRecipe,
    Precision,
    Recipe,
    Section,
    TrainingSettings,
)
from wan_alpha.training.recipes.shared import RESUME_TRAINING, Background, ClipData, RGBAVAEModel


class TrainVAEModel(RGBAVAEModel):
    """Weights of the RGBA VAE, what of them is trained, and how new parts start."""

    mode: Literal["full", "merge"] = Field(
        "full",
        description="full = merge block and both decoders' LoRA; merge = the merge block, decoders given and frozen",
    )
    init: Literal["from_vae", "random"] | None = Field(
        None,
        description="start of a new merge block: from_vae = the base VAE's own encoder head, random = as released; "
        "none = from_vae, or the block that rgba_weights holds",
    )
    lora_rank: int | None = Field(
        None, ge=1, description="rank of new decoder LoRA; none = 128, or the rank of the decoders that are given"
    )
    merge_width: int | None = Field(
        None, ge=1, description="channels of a new merge block; none = as wide as the encoder's features"
    )
    chunk_size: int | None = Field(
        None, ge=1, description="latent frames that the VAE takes at a time; none = the whole clip at once"
    )

    @model_validator(mode="after")
    def _decoders_are_clear(self):
        if self.mode == "merge" and self.decoder_lora is None and self.rgba_weights is None:
            raise ValueError(
                "mode = 'merge' trains the merge block against trained decoders: give model.decoder_lora (the released "
                "decoder.bin) or model.rgba_weights, or choose mode = 'full'"
            )
        given = [name for name in ("init", "merge_width") if self.rgba_weights and not self.has_default(name)]
        if (self.rgba_weights or self.decoder_lora) and self.lora_rank is not None:
            given.append("lora_rank")
        if given:
            names = ", ".join(f"model.{name}" for name in given)
            overrides = " ".join(f"--model.{name} none" for name in given)
            raise ValueError(
                f"{names}: no effect with given weights, whose file says it; leave out, or where a preset gives it "
                f"write {overrides} (a file of decoders alone belongs in model.decoder_lora)"
            )
        return self


class TrainVAEData(ClipData):
    """Clips that the RGBA VAE learns to reconstruct."""

    num_frames: NumFrames = Field(17, description="frames per clip, 4n+1")
    height: GridSize = Field(272, description="pixels, a multiple of 16")
    width: GridSize = Field(272, description="pixels, a multiple of 16")
    augment: bool = Field(True, description="random scale (1 to 2 times) and crop, the same for colour and alpha")
    frame_sampling: Literal["head", "random", "uniform", "keyframe"] | None = Field(
        None,
        description="frames taken of longer clips; keyframe = a run that starts where decoding can; none = random with "
        "augment, head without",
    )
    cache_clips: bool = Field(False, description="keep decoded clips in memory")
    validation_metadata: Path | None = Field(
        None, description="manifest of held-out clips, paths below base_path; none = no validation"
    )
    validation_clips: int = Field(4, ge=1, description="held-out clips that are used, from the manifest's first on")
    validation_num_frames: NumFrames | None = Field(
        None, description="frames per held-out clip, 4n+1; none = num_frames"
    )

    @model_validator(mode="after")
    def _held_out_clips_are_named(self):
        unused = [name for name in ("validation_clips", "validation_num_frames") if not self.has_default(name)]
        if self.validation_metadata is None and unused:
            raise ValueError(f"{unused[0]} has no effect without validation_metadata: give both, or neither")
        return self


class LossSettings(Section):
    """The reconstruction loss; weights are relative to 1, the release's value."""

    perceptual: Literal["vgg16", "lpips", "none"] = Field("vgg16", description="network of the perceptual terms")
    perceptual_weights: Path | None = Field(
        None, description="ImageNet weights of that network; none = torchvision's cache"
    )
    edge_kernel: Literal["central", "sobel"] = Field("central", description="edge filter; the release uses central")
    l1_weight: float = Field(1.0, ge=0, description="weight of the L1 terms")
    perceptual_weight: float = Field(1.0, ge=0, description="weight of the perceptual terms")
    edge_weight: float = Field(1.0, ge=0, description="weight of the edge terms")
    temporal_weight: float = Field(0.0, ge=0, description="weight of the frame-difference terms, absent in the release")
    hard_threshold: float = Field(
        0.0, ge=0, lt=1, description="alpha up to this counts as clear in hard renders; above 0 for compressed mattes"
    )

    @model_validator(mode="after")
    def _perceptual_is_used(self):
        unused = [name for name in ("perceptual_weights", "perceptual_weight") if not self.has_default(name)]
        if self.perceptual == "none" and unused:
            raise ValueError(f"loss.{unused[0]} has no effect with perceptual = 'none'; leave one of them out")
        return self


class TrainVAESettings(TrainingSettings):
    """How stage 1 trains."""

    gradient_checkpointing: bool = Field(
        False, description="compute the activations of decoders and perceptual network twice to save memory"
    )


class TrainVAERecipe(PlannedRecipe):
    """Stage 1: train the RGBA VAE."""

    may_change_on_resume: ClassVar = RESUME_TRAINING | {
        "model.chunk_size", "data.cache_clips", "data.validation_metadata", "data.validation_clips",
        "data.validation_num_frames",
    }  # fmt: skip

    model: TrainVAEModel
    data: TrainVAEData
    loss: LossSettings
    training: TrainVAESettings

    @model_validator(mode="after")
    def _checkpoints_are_of_whole_clips(self):
        if self.training.gradient_checkpointing and self.model.chunk_size is not None:
            raise ValueError(
                f"model.chunk_size = {self.model.chunk_size} has no effect on decoders with "
                "training.gradient_checkpointing, which take the whole clip: give one of the two"
            )
        return self

    @model_validator(mode="after")
    def _one_process_keeps_the_clips(self):
        if self.data.cache_clips and self.training.num_workers:
            raise ValueError(
                f"data.cache_clips keeps clips in the training process; with training.num_workers = "
                f"{self.training.num_workers} the loading processes would lose theirs each epoch: give one of the two"
            )
        return self


class ValidateVAERecipe(Recipe):
    """Reconstruct one RGBA clip and judge the result."""

    model: RGBAVAEModel
    rgb_video: Path = Field(description="colour video of a pair, or one RGBA file")
    alpha_video: Path | None = Field(
        None, description="matte of the pair; none = beside the colour video, or in the file"
    )
    output_prefix: str = Field("validation", description="start of the names of the files written to output_dir")
    num_frames: NumFrames | None = Field(None, description="frames from the start, 4n+1; none = the whole clip")
    height: GridSize | None = Field(
        None, description="pixels, a multiple of 16; none = the clip's own, cut to the grid"
    )
    width: GridSize | None = Field(None, description="pixels, a multiple of 16; none = the clip's own, cut to the grid")
    background: Background = Field("black", description="colour of the encoder's hard render")
    hard_threshold: float = Field(0.0, ge=0, lt=1, description="alpha up to this counts as clear in the hard render")
    fps: float = Field(16.0, gt=0, description="frames per second of the comparison video")
    chunk_size: int | None = Field(
        1, ge=1, description="latent frames decoded at a time; none = the whole clip at once"
    )
    device: Device = Field("auto", description="where to run")
    precision: Precision = Field(
        "auto", description="compute type; auto = bf16 on CUDA cards that have it, float32 elsewhere"
    )

    @model_validator(mode="after")
    def _has_rgba_weights(self):
        if self.model.rgba_weights is None:
            raise ValueError("model.rgba_weights: missing; the trained RGBA VAE (or its merge block) to be validated")
        return self
