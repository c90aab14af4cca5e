"""What several recipes have in common: weights of the RGBA VAE, a dataset, limits of its sources."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from wan_alpha.data.buckets import ASPECTS, Bucket, buckets_within, parse_bucket
from wan_alpha.errors import ConfigError
from wan_alpha.media.formats import FORMATS
from wan_alpha.training.config import NumFrames, Section

Background = Literal["random", "black", "blue", "green", "cyan", "red", "magenta", "yellow", "white", "grey"]
FormatName = Literal[*FORMATS]
WanSource = str | list[str | list[str]]

RESUME_TRAINING = frozenset(
    f"training.{name}"
    for name in (
        "max_steps", "num_epochs", "checkpoint_every", "keep_checkpoints", "keep_every", "keep_best", "best_is",
        "background_saving", "max_skipped_updates", "loss_spike", "ema_on_cpu", "validate_every", "log_every", "device",
        "ignore_memory_plan", "num_workers", "prefetch", "worker_start", "preview_every", "trackers",
        "gradient_checkpointing",
        "batch_size", "gradient_accumulation",  # with the number of processes: the loop asks for steps of the same size
    )
)  # fmt: skip


class RGBAVAEModel(Section):
    """Weights of the RGBA VAE."""

    base_vae: Path = Field(description="Wan VAE weights (Wan2.1_VAE.pth or safetensors)")
    rgba_weights: Path | None = Field(
        None, description="RGBA VAE weights: this project's safetensors or a released .bin"
    )
    decoder_lora: Path | None = Field(None, description="the released decoder.bin: both decoders' LoRA")


class DatasetSettings(Section):
    """One dataset of several."""

    base_path: Path = Field(description="folder of the dataset")
    metadata: Path | None = Field(None, description="manifest (.csv, .jsonl, .json); none = <base_path>/metadata.csv")
    repeat: int = Field(1, ge=1, description="times each clip occurs in an epoch")
    weight: float | None = Field(
        None, gt=0, description="share of an epoch, relative to the others'; none = by the number of clips"
    )

    @property
    def manifest(self) -> Path:
        return self.metadata if self.metadata is not None else self.base_path / "metadata.csv"


class BucketSettings(Section):
    """Sizes that clips of different length and form are brought to; with none of this all have the size of data."""

    shapes: tuple[str, ...] | None = Field(
        None, description="frames x height x width of each bucket, such as 17x272x272,49x256x448"
    )
    pixels: int | None = Field(
        None, ge=1, description="in place of shapes: most pixels of a clip, frames x height x width, for each aspect"
    )
    frames: tuple[NumFrames, ...] | None = Field(
        None, description="lengths of clips within pixels, 4n+1; none = num_frames"
    )
    aspects: tuple[str, ...] = Field(ASPECTS, min_length=1, description="width:height of the frames within pixels")
    max_area: int | None = Field(
        None, ge=1, description="most pixels of a frame, height x width, for short clips; none = as pixels allow"
    )
    side_multiple: Literal[16, 32] = Field(
        16, description="pixels that sides are multiples of; 32 for a VAE of stride 16"
    )

    @model_validator(mode="after")
    def _is_consistent(self):
        if self.shapes is not None and self.pixels is not None:
            raise ValueError("shapes and pixels: give one of the two")
        unused = [name for name in ("frames", "aspects", "max_area") if not self.has_default(name)]
        if self.pixels is None and unused:
            raise ValueError(f"{unused[0]} has no effect without pixels: give both, or neither")
        if not self.are_used and not self.has_default("side_multiple"):
            raise ValueError("side_multiple has no effect without shapes or pixels: leave it out")
        return self

    @property
    def are_used(self) -> bool:
        """Whether there are buckets at all."""
        return self.shapes is not None or self.pixels is not None

    def buckets(self, num_frames) -> list[Bucket]:
        """The buckets; ``num_frames`` is the length where none is given.

        Raises:
            ConfigError: one is off the grid, or the budget is too small.
        """
        if self.shapes is not None:
            return sorted({parse_bucket(text, self.side_multiple) for text in self.shapes})
        frames = self.frames or (num_frames,)
        return buckets_within(self.pixels, frames, self.aspects, self.max_area, self.side_multiple)


class ClipData(Section):
    """A dataset of RGBA clips, or several, and the size they are brought to."""

    # Before base_path, whose validator looks at it.
    datasets: tuple[DatasetSettings, ...] | None = Field(
        None,
        min_length=1,
        description="several datasets: a list of tables of base_path, metadata, repeat, weight; none = the one below",
    )
    base_path: Path | None = Field(
        None, validate_default=True, description="folder of the dataset; needed without datasets"
    )
    metadata: Path | None = Field(None, description="manifest (.csv, .jsonl, .json); none = <base_path>/metadata.csv")
    repeat: int = Field(1, ge=1, description="times each clip occurs in an epoch")
    target_fps: float | None = Field(
        None,
        gt=0,
        description="frames per second that clips are sampled at; none = their own (varying ones: their mean)",
    )
    ping_pong: bool = Field(
        True, description="clips that are too short play forward and back; false = they are left out, and listed"
    )
    buckets: BucketSettings = BucketSettings()

    @field_validator("base_path")
    @classmethod
    def _is_given(cls, value, info):
        if value is None and info.data.get("datasets", ()) is None:
            raise PydanticCustomError("missing", "missing")
        return value

    @model_validator(mode="after")
    def _names_its_clips(self):
        if self.datasets is not None:
            given = [name for name in ("base_path", "metadata", "repeat") if not self.has_default(name)]
            if given:
                raise ValueError(f"{given[0]} has no effect with datasets, whose tables have their own")
            weights = [dataset.weight is None for dataset in self.datasets]
            if len(set(weights)) > 1:
                raise ValueError("datasets: give a weight in every table, or in none")
        return self

    @model_validator(mode="after")
    def _buckets_are_on_the_grid(self):
        if self.buckets.are_used:
            try:
                self.buckets.buckets(self.num_frames)
            except ConfigError as error:
                raise ValueError(f"buckets: {error}") from error
        return self

    @property
    def sources(self) -> tuple[DatasetSettings, ...]:
        """The datasets, one or several."""
        if self.datasets is not None:
            return self.datasets
        return (DatasetSettings(base_path=self.base_path, metadata=self.metadata, repeat=self.repeat),)

    @property
    def shapes(self) -> list[Bucket]:
        """The sizes that clips are brought to: the buckets, or the one size of the recipe."""
        if self.buckets.are_used:
            return self.buckets.buckets(self.num_frames)
        return [Bucket(self.num_frames, self.height, self.width)]


class LimitSettings(Section):
    """How large and long a source may be; none = no limit."""

    min_side: int | None = Field(256, ge=1, description="pixels, the least of either side")
    max_side: int | None = Field(1024, ge=1, le=2048, description="pixels, the most of either side, up to 2048")
    max_seconds: float | None = Field(10.0, gt=0, description="seconds, the most")
    max_frames: int | None = Field(81, ge=1, description="frames, the most")
