"""What several recipes have in common: weights of the RGBA VAE, a dataset, limits of its sources."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from wan_alpha.media.formats import FORMATS
from wan_alpha.training.config import Section

Background = Literal["random", "black", "blue", "green", "cyan", "red", "magenta", "yellow", "white", "grey"]
FormatName = Literal[*FORMATS]
WanSource = str | list[str | list[str]]

RESUME_TRAINING = frozenset(
    f"training.{name}"
    for name in (
        "max_steps", "num_epochs", "checkpoint_every", "keep_checkpoints", "keep_every", "keep_best", "best_is",
        "background_saving", "max_skipped_updates", "loss_spike", "ema_on_cpu", "validate_every", "log_every", "device",
        "num_workers", "prefetch", "worker_start", "gradient_checkpointing",
    )
)  # fmt: skip


class RGBAVAEModel(Section):
    """Weights of the RGBA VAE."""

    base_vae: Path = Field(description="Wan VAE weights (Wan2.1_VAE.pth or safetensors)")
    rgba_weights: Path | None = Field(
        None, description="RGBA VAE weights: this project's safetensors or a released .bin"
    )
    decoder_lora: Path | None = Field(None, description="the released decoder.bin: both decoders' LoRA")


class ClipData(Section):
    """A dataset of RGBA clips and the size they are brought to."""

    base_path: Path = Field(description="folder of the dataset")
    metadata: Path | None = Field(None, description="manifest (.csv, .jsonl, .json); none = <base_path>/metadata.csv")
    repeat: int = Field(1, ge=1, description="times each clip occurs in an epoch")
    target_fps: float | None = Field(
        None,
        gt=0,
        description="frames per second that clips are sampled at; none = their own (varying ones: their mean)",
    )

    @property
    def manifest(self) -> Path:
        return self.metadata if self.metadata is not None else self.base_path / "metadata.csv"


class LimitSettings(Section):
    """How large and long a source may be; none = no limit."""

    min_side: int | None = Field(256, ge=1, description="pixels, the least of either side")
    max_side: int | None = Field(1024, ge=1, le=2048, description="pixels, the most of either side, up to 2048")
    max_seconds: float | None = Field(10.0, gt=0, description="seconds, the most")
    max_frames: int | None = Field(81, ge=1, description="frames, the most")
