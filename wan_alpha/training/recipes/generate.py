"""Recipe of generation."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from wan_alpha.training.config import Attention, Device, GridSize, NumFrames, Precision, Recipe
from wan_alpha.training.recipes.shared import FormatName, RGBAVAEModel, WanSource


class GenerateModel(RGBAVAEModel):
    """Weights that generate."""

    wan: WanSource = Field(description="Wan folder, list of files, or model_id:pattern,...")
    rgba_weights: Path | None = Field(
        None, description="RGBA VAE weights: this project's safetensors or a released .bin; none with decoder_lora"
    )
    adapter: Path | None = Field(
        None, description="DoRA or LoRA of stage 2; of two experts for the one that its file names, or for both"
    )
    adapter_low_noise: Path | None = Field(
        None, description="adapter of the low-noise expert, where the other has its own (Wan2.2 A14B)"
    )
    adapter_scale: float = Field(1.0, description="strength of that adapter")
    embeddings: tuple[Path, ...] = Field((), description="placeholders of textual inversion, for use in prompts")
    distillation_lora: Path | None = Field(None, description="step-distillation LoRA, merged after the adapter")
    distillation_lora_low_noise: Path | None = Field(
        None, description="step-distillation LoRA of the low-noise expert, where the other has its own"
    )

    @model_validator(mode="after")
    def _has_decoders(self):
        if self.rgba_weights is None and self.decoder_lora is None:
            raise ValueError(
                "model.rgba_weights or model.decoder_lora: missing; the two decoders that make colour and alpha"
            )
        return self


class GenerateRecipe(Recipe):
    """Generate transparent video from text."""

    model: GenerateModel
    prompt: str | None = Field(None, description="what to show; say that the background is transparent")
    prompts_file: Path | None = Field(None, description="text file, one prompt a line")
    negative_prompt: str = Field("", description="what to avoid; used with guidance above 1")
    num_frames: NumFrames = Field(81, description="frames, 4n+1")
    height: GridSize = Field(480, description="pixels, a multiple of 16, for TI2V-5B of 32")
    width: GridSize = Field(832, description="pixels, a multiple of 16, for TI2V-5B of 32")
    fps: float = Field(16.0, gt=0, description="frames per second of the videos")
    formats: tuple[FormatName, ...] = Field(
        ("png", "preview", "matte", "webm"),
        min_length=1,
        description="what each clip is written as; names as in convert",
    )
    premultiplied: bool = Field(False, description="store colour multiplied by alpha, in the formats that can be so")
    background: str = Field(
        "checkerboard", description="of the preview: checkerboard, a colour (white, #rrggbb), or a picture or clip"
    )
    num_steps: int = Field(50, ge=1, description="sampling steps; 4 with a step-distillation LoRA")
    guidance: float = Field(5.0, ge=0, description="classifier-free guidance; 1 = off, half the work")
    shift: float = Field(5.0, gt=0, description="timestep shift of the sampling schedule")
    solver: Literal["unipc", "euler"] = Field("unipc", description="how the flow is integrated")
    mask: Path | None = Field(
        None, description="where the subject stands: a gauss_mask file, or ellipse:cx,cy,rx,ry[,dx,dy]"
    )
    noise_shift: float = Field(
        0.0, ge=0, description="added to the noise outside the mask's ellipse; Wan-Alpha v2: 0.05"
    )
    chunk_size: int | None = Field(
        1, ge=1, description="latent frames decoded at a time; none = the whole clip at once"
    )
    tiled: bool = Field(False, description="decode in spatial tiles: less memory, more time")
    offload_blocks: bool = Field(
        False,
        description="the blocks of text encoder and DiT wait in host memory, each comes to the device for its pass: a "
        "fraction of their memory, more time",
    )
    device: Device = Field("auto", description="where to run")
    precision: Precision = Field(
        "auto", description="compute type; auto = bf16 on CUDA cards that have it, float32 elsewhere"
    )
    attention: Attention = Field("auto", description="attention backend; auto = FlashAttention if it can run, or torch")

    @model_validator(mode="after")
    def _is_consistent(self):
        if (self.prompt is None) == (self.prompts_file is None):
            raise ValueError("give prompt or prompts_file, one of the two")
        if twice := {name for name in self.formats if self.formats.count(name) > 1}:
            raise ValueError(f"formats: {min(twice)} is named twice")
        if "still" in self.formats and self.num_frames > 1:
            raise ValueError(f"formats: still holds one frame, num_frames = {self.num_frames}; choose png")
        if "preview" not in self.formats and not self.has_default("background"):
            raise ValueError("background has no effect without preview among the formats; leave it out")
        return self
