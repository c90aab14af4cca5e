"""Recipes of stage 2: cache latents, train the diffusion model on them."""

import math
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from wan_alpha.training.config import (
    Attention,
    Device,
    GridSize,
    NumFrames,
    PlannedRecipe,
    Precision,
    Section,
    TrainingSettings,
)
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


class CacheRecipe(PlannedRecipe):
    """Compute what stage 2 trains on: text contexts and merged latents. output_dir is the cache."""

    model: CacheModel
    data: CacheData
    background: Background = Field("random", description="colour of the hard render; random = one of eight per clip")
    hard_threshold: float = Field(0.0, ge=0, lt=1, description="alpha up to this counts as clear in the hard render")
    device: Device = Field("auto", description="where to run")
    precision: Precision = Field(
        "auto", description="compute type; auto = bf16 on CUDA cards that have it, float32 elsewhere"
    )
    tiled: bool = Field(
        False, description="encode clips in spatial tiles: less memory, more time, slightly other latents"
    )
    offload_blocks: bool = Field(
        False,
        description="the text encoder's blocks wait in host memory, each comes to the device for its pass: a fraction "
        "of its memory, more time",
    )
    force: bool = Field(False, description="compute every item again")
    ignore_memory_plan: bool = Field(
        False, description="start although the predicted peak is above the device's memory"
    )


class TrainDiTModel(Section):
    """The diffusion model that is trained."""

    wan: WanSource = Field(description="Wan folder, list of files, or model_id:pattern,...")
    dit: Path | None = Field(None, description="DiT weights in place of the folder's own")
    expert: Literal["high_noise", "low_noise", "both"] | None = Field(
        None, description="of a model of two experts (Wan2.2 A14B), which is trained, on its own timesteps alone"
    )
    boundary: float | None = Field(
        None, gt=0, lt=1, description="sigma below which the low-noise expert takes over; none = the model's own"
    )
    quantization: Literal["fp8", "int8", "nf4"] | None = Field(
        None,
        description="how the frozen linear layers of the DiT's blocks, and of the text encoder's where a word is "
        "learned, are kept: fp8 or int8 (1 byte a weight, package torchao) or nf4 (about half a byte, package "
        "bitsandbytes); none = as precision has it",
    )


class AdapterSettings(Section):
    """What is trained of the DiT."""

    kind: Literal["dora", "lora", "full", "none"] = Field(
        "dora", description="adapter; full = every weight of the DiT; none = nothing of it, a placeholder alone"
    )
    rank: int = Field(32, ge=1, description="rank of the adapter")
    alpha: float = Field(32, gt=0, description="the adapter's scale times its rank")
    targets: tuple[str, ...] = Field(ADAPTER_TARGETS, min_length=1, description="linear layers that get an adapter")

    @model_validator(mode="after")
    def _adapter_is_used(self):
        unused = [name for name in ("rank", "alpha", "targets") if not self.has_default(name)]
        if self.kind in ("full", "none") and unused:
            raise ValueError(
                f"adapter.{unused[0]} has no effect with kind = {self.kind!r}; leave it out or choose dora or lora"
            )
        return self


class TextualInversionSettings(Section):
    """A new word of the text encoder, trained with or without an adapter; saved alone, used by generate."""

    placeholder: str | None = Field(None, description="new word as the captions write it, <my-cat>; none = none")
    initializer: str | None = Field(None, description="known word or words that it begins as")
    num_vectors: int = Field(1, ge=1, description="vectors, and tokens of a caption, that it takes")

    @model_validator(mode="after")
    def _has_both_words(self):
        if self.placeholder is None and self.initializer is not None:
            raise ValueError("textual_inversion.initializer has no effect without placeholder: give both words")
        if self.placeholder is None and not self.has_default("num_vectors"):
            raise ValueError("textual_inversion.num_vectors has no effect without placeholder; leave it out")
        if self.placeholder is not None and not self.initializer:
            raise ValueError("textual_inversion.initializer: missing; the known word that the placeholder begins as")
        return self


class ObjectiveSettings(Section):
    """Rectified flow on the latents."""

    timesteps: Literal["uniform", "logit_normal", "mode"] = Field(
        "uniform", description="how timesteps are drawn before the shift; uniform as released, the others as in SD3"
    )
    logit_mean: float = Field(0.0, description="mean of the logit of timesteps, of logit_normal; above 0 = more noise")
    logit_std: float = Field(1.0, gt=0, description="standard deviation of that logit")
    mode_scale: float = Field(
        1.29, ge=-1, le=2 / (math.pi - 2), description="of mode: above 0 = more of the middle, below 0 = of the ends"
    )
    shift: float = Field(5.0, gt=0, description="timestep shift: above 1, more of the training at high noise")
    shift_from: Literal["fixed", "tokens"] = Field(
        "fixed", description="fixed = shift; tokens = by each sample's size, as in Flux"
    )
    shift_tokens: tuple[int, int] = Field((256, 4096), description="two numbers of tokens whose shift is given")
    shift_logs: tuple[float, float] = Field(
        (0.5, 1.15), description="natural logarithm of the shift at each; elsewhere on the line through them"
    )
    noise_shift: float = Field(
        0.0, ge=0, description="added to the noise outside the subject's ellipse; Wan-Alpha v2: 0.05"
    )
    weighting: Literal["bell", "none", "sigma_sqrt", "cosmap", "min_snr"] = Field(
        "bell", description="loss weight over timesteps; bell as in DiffSynth, sigma_sqrt and cosmap as in SD3"
    )
    min_snr_gamma: float = Field(5.0, gt=0, description="largest signal-to-noise ratio that min_snr counts")
    caption_dropout: float = Field(0.0, ge=0, lt=1, description="share of samples that see the empty caption")

    @model_validator(mode="after")
    def _every_option_has_an_effect(self):
        needs = {
            "logit_mean": ("timesteps", "logit_normal"), "logit_std": ("timesteps", "logit_normal"),
            "mode_scale": ("timesteps", "mode"), "shift": ("shift_from", "fixed"),
            "shift_tokens": ("shift_from", "tokens"), "shift_logs": ("shift_from", "tokens"),
            "min_snr_gamma": ("weighting", "min_snr"),
        }  # fmt: skip
        for name, (switch, needed) in needs.items():
            chosen = getattr(self, switch)
            if chosen != needed and not self.has_default(name):
                raise ValueError(f"{name} has no effect with {switch} = {chosen!r}: leave it out, or choose {needed}")
        first, last = self.shift_tokens
        if not 0 < first < last:
            raise ValueError(f"shift_tokens = {first}, {last}: the first must be at least 1 and below the second")
        return self


class PreviewSettings(Section):
    """The clips that are sampled every training.preview_every steps: their captions' contexts are the cache's."""

    base_vae: Path | None = Field(None, description="Wan VAE weights, to decode previews with")
    rgba_weights: Path | None = Field(None, description="RGBA VAE weights whose decoders make colour and alpha")
    decoder_lora: Path | None = Field(None, description="the released decoder.bin, in place of those decoders")
    prompts: tuple[str, ...] | None = Field(
        None, min_length=1, description="captions of cached clips; none = those of the first two, held-out ones if any"
    )
    num_steps: int = Field(10, ge=1, description="sampling steps, without guidance")


class TrainDiTSettings(TrainingSettings):
    """How stage 2 trains."""

    gradient_checkpointing: bool = Field(False, description="compute activations twice to save memory")
    offload_activations: bool = Field(
        False, description="what gradient checkpointing keeps of each block waits in host memory for the backward pass"
    )
    offload_blocks: bool = Field(
        False,
        description="frozen linear layers of the DiT, and of the text encoder where a word is learned, stay in host "
        "memory; each block's come to the device for its pass",
    )
    attention: Attention = Field("auto", description="attention backend; auto = FlashAttention if it can run, or torch")


class TrainDiTRecipe(PlannedRecipe):
    """Stage 2: train the diffusion model on cached latents."""

    # A cache may have moved; whether it holds what it did is for the loop to say, by the dataset's fingerprint.
    may_change_on_resume: ClassVar = RESUME_TRAINING | {
        "training.attention", "training.offload_activations", "training.offload_blocks", "cache", "validation_cache",
        "title", "trigger_words",
        *(f"preview.{name}" for name in PreviewSettings.model_fields),
    }  # fmt: skip

    model: TrainDiTModel
    cache: Path = Field(description="folder that `wan-alpha cache` made")
    validation_cache: Path | None = Field(None, description="cache of held-out clips; none = no validation")
    repeat: int = Field(1, ge=1, description="times each cached clip occurs in an epoch")
    title: str | None = Field(None, description="name that programs show for the result; none = output_dir's name")
    trigger_words: tuple[str, ...] = Field(
        (), description="words in the captions that call for what is learned; written into the result for programs"
    )
    adapter: AdapterSettings
    textual_inversion: TextualInversionSettings
    objective: ObjectiveSettings
    preview: PreviewSettings
    training: TrainDiTSettings

    @model_validator(mode="after")
    def _something_is_trained(self):
        if self.adapter.kind == "none" and self.textual_inversion.placeholder is None:
            raise ValueError(
                "adapter.kind = 'none' trains nothing: give textual_inversion.placeholder and .initializer, or choose "
                "dora, lora or full"
            )
        return self

    @model_validator(mode="after")
    def _previews_can_be_decoded(self):
        given, preview = self.training.preview_every is not None, self.preview
        used = [name for name in type(preview).model_fields if not preview.has_default(name)]
        if used and not given:
            raise ValueError(f"preview.{used[0]} has no effect without training.preview_every: give both, or neither")
        if given and (preview.base_vae is None or (preview.rgba_weights is None and preview.decoder_lora is None)):
            raise ValueError(
                "training.preview_every: a preview is decoded by the RGBA VAE, which stage 2 does not hold: give "
                "preview.base_vae and preview.rgba_weights (or preview.decoder_lora), or leave previews out"
            )
        return self
