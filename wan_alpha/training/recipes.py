"""The recipe of each command, one class each. Light on purpose: the command line builds its options from these."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from wan_alpha.media.formats import FORMATS
from wan_alpha.training.config import Command, Device, GridSize, NumFrames, Precision, Recipe, Section, TrainingSettings

Background = Literal["random", "black", "blue", "green", "cyan", "red", "magenta", "yellow", "white", "grey"]
FormatName = Literal[*FORMATS]
WanSource = str | list[str | list[str]]
ADAPTER_TARGETS = ("q", "k", "v", "o", "ffn.0", "ffn.2")

_RESUME_TRAINING = frozenset(
    f"training.{name}"
    for name in (
        "max_steps", "num_epochs", "checkpoint_every", "keep_checkpoints", "keep_every", "keep_best", "best_is",
        "background_saving", "max_skipped_updates", "loss_spike", "ema_on_cpu", "validate_every", "log_every", "device",
        "num_workers", "gradient_checkpointing",
    )
)  # fmt: skip


class RGBAVAEModel(Section):
    """Weights of the RGBA VAE."""

    base_vae: Path = Field(description="Wan VAE weights (Wan2.1_VAE.pth or safetensors)")
    rgba_weights: Path | None = Field(
        None, description="RGBA VAE weights: this project's safetensors or a released .bin"
    )
    decoder_lora: Path | None = Field(None, description="the released decoder.bin: both decoders' LoRA")


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


class ClipData(Section):
    """A dataset of RGBA clips and the size they are brought to."""

    base_path: Path = Field(description="folder of the dataset")
    metadata: Path | None = Field(None, description="manifest (.csv, .jsonl, .json); none = <base_path>/metadata.csv")
    repeat: int = Field(1, ge=1, description="times each clip occurs in an epoch")
    target_fps: float | None = Field(
        None, gt=0, description="frames per second that clips are sampled at; none = their own (varying ones: their mean)"
    )

    @property
    def manifest(self) -> Path:
        return self.metadata if self.metadata is not None else self.base_path / "metadata.csv"


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


class TrainVAERecipe(Recipe):
    """Stage 1: train the RGBA VAE."""

    may_change_on_resume: ClassVar = _RESUME_TRAINING | {
        "model.chunk_size", "data.cache_clips", "data.validation_metadata", "data.validation_clips",
        "data.validation_num_frames",
    }  # fmt: skip

    model: TrainVAEModel
    data: TrainVAEData
    loss: LossSettings
    training: TrainingSettings

    @model_validator(mode="after")
    def _one_process_keeps_the_clips(self):
        if self.data.cache_clips and self.training.num_workers:
            raise ValueError(
                f"data.cache_clips keeps clips in the training process; with training.num_workers = "
                f"{self.training.num_workers} the loading processes would lose theirs each epoch: give one of the two"
            )
        return self


class LimitSettings(Section):
    """How large and long a source may be; none = no limit."""

    min_side: int | None = Field(256, ge=1, description="pixels, the least of either side")
    max_side: int | None = Field(1024, ge=1, le=2048, description="pixels, the most of either side, up to 2048")
    max_seconds: float | None = Field(10.0, gt=0, description="seconds, the most")
    max_frames: int | None = Field(81, ge=1, description="frames, the most")


class ProbeRecipe(Command):
    """Say what a media file holds, whether its alpha survives decoding, and whether it is straight or premultiplied."""

    file: Path = Field(description="video, animation, still or folder of frames")
    matte: Path | None = Field(None, description="alpha video of a pair; none = in the file, or X_alpha.* of X_rgb.*")
    packing: Literal["none", "alpha_right", "alpha_left", "alpha_below", "alpha_above"] = Field(
        "none", description="half of the file's picture that holds alpha, seen from the colour"
    )
    frames: int | None = Field(16, ge=1, description="frames that are decoded, spread over the clip; none = all")
    print_json: bool = Field(False, description="print JSON, with the whole histogram")


class DoctorRecipe(Command):
    """Check every clip of a dataset, say what is wrong, and repair what can be repaired."""

    output_dir: Path = Field(Path("wan_alpha_doctor"), description="folder of doctor.json and contact_sheet.html")
    dataset: Path = Field(description="dataset folder, a manifest (.csv, .jsonl, .json), or a folder of clips")
    fix: Path | None = Field(None, description="new folder for a repaired dataset; originals are only read")
    print_json: bool = Field(False, description="print doctor.json instead of the table")
    ignore: tuple[str, ...] = Field((), description="names of checks whose findings are left out")
    workers: int | None = Field(None, ge=1, description="rows checked at a time; none = one per CPU core")
    sheet_clips: int = Field(200, ge=0, description="clips in the contact sheet at most, those with findings first")
    limits: LimitSettings


class PrepareRecipe(Recipe):
    """Check clips of any kind, in a folder or named by a manifest, and write a dataset with metadata.csv."""

    seed: int = Field(0, ge=0, description="not used: nothing in this is random")
    source_dir: Path = Field(
        description="folder of clips: X_rgb.* + X_alpha.*, fgr/ + pha/, RGBA files or stills; or a manifest"
    )
    skip_bad: bool = Field(False, description="list bad rows and leave them out, instead of stopping at the first")
    link: bool = Field(False, description="hard-link pairs instead of copying them")
    workers: int | None = Field(None, ge=1, description="rows checked at a time; none = one per CPU core")
    caption_column: str | None = Field(
        None, description="manifest's column or .json caption's key that holds captions; none = prompt, caption, text"
    )
    source_state: Literal["straight", "premultiplied", "auto"] = Field(
        "straight", description="what the colour of the sources is; auto = judged clip by clip; straight is written"
    )
    packing: Literal["none", "alpha_right", "alpha_left", "alpha_below", "alpha_above"] = Field(
        "none", description="where the matte lies in the frames of opaque videos that have no matte file"
    )
    split_scenes: bool = Field(False, description="make a clip of each scene, cut where the picture changes at once")
    drop_near_duplicates: bool = Field(False, description="leave out and list clips that look like an earlier one")
    limits: LimitSettings


class ConvertRecipe(Command):
    """Write one clip in another format, with its alpha read back, and a manifest beside it."""

    source: Path = Field(description="video, animation, still or folder of frames")
    output: Path = Field(description="file to write, or a folder (no suffix) for numbered PNGs; the suffix says which")
    format: FormatName | None = Field(None, description="format by name; none = what the suffix says, .mp4 needs one")
    matte: Path | None = Field(None, description="alpha video of a pair; none = alpha is in the source")
    packing: Literal["none", "alpha_right", "alpha_left", "alpha_below", "alpha_above"] = Field(
        "none", description="half of the source's picture that holds alpha, seen from the colour"
    )
    source_state: Literal["straight", "premultiplied", "auto"] = Field(
        "straight", description="state of the source's colour; premultiplied is made straight, auto judges the frames"
    )
    matte_range: Literal["full", "limited", "auto"] = Field(
        "auto", description="levels of a matte or packed half: 0-255, 16-235 (expanded), or judged from the frames"
    )
    premultiplied: bool = Field(False, description="store colour multiplied by alpha")
    fps: float | None = Field(
        None, gt=0, description="frames per second; other than the source's, frames are taken by time; none = its own"
    )
    start: int = Field(0, ge=0, description="first frame of the source, counted from 0")
    num_frames: int | None = Field(None, ge=1, description="frames of the source; none = all that follow")
    background: str = Field(
        "checkerboard", description="of a preview: checkerboard, a colour (white, #rrggbb), or a picture or clip"
    )
    prompt: str | None = Field(None, description="for the manifest; none = what the source says of itself")


class EvaluateRecipe(Recipe):
    """Measure transparent clips against references, or by themselves: a table, evaluation.json, evaluation.csv."""

    output_dir: Path = Field(Path("wan_alpha_evaluation"), description="folder of the files it writes")
    seed: int = Field(0, ge=0, description="not used: nothing in this is random")
    pred: Path = Field(
        description="what is judged: a file, a folder of frames or of clips, a dataset list (.csv, .jsonl), a folder "
        "that generate wrote"
    )
    reference: Path | None = Field(
        None,
        description="the truth, in any of these forms, clips of the same names; none = judge without it",
    )
    fail_under: tuple[str, ...] = Field(
        (), description="bars, alpha_psnr=30,...: exit code 1 where a figure over all clips is lower"
    )
    fail_over: tuple[str, ...] = Field(
        (), description="bars, alpha_mad=5,...: exit code 1 where a figure over all clips is higher"
    )
    worst_by: str | None = Field(
        None, description="figure that orders the clips, worst first; none = alpha_mad, or flicker without a reference"
    )
    edge_radius: int | None = Field(
        None, ge=1, description="reach of the edge band in pixels; none = 10 at 480 lines, and in proportion"
    )
    lpips: Literal["auto", "off"] = Field(
        "auto", description="LPIPS of the composites; auto = where its weights are at hand"
    )
    lpips_weights: Path | None = Field(
        None, description="torchvision's AlexNet weights for LPIPS; none = torchvision's cache"
    )
    device: Device = Field("auto", description="where to compute")

    @model_validator(mode="after")
    def _bars_are_numbers(self):
        for option in ("fail_under", "fail_over"):
            for text in getattr(self, option):
                name, _, number = text.partition("=")
                try:
                    is_number = float(number) == float(number)
                except ValueError:
                    is_number = False
                if not name or not is_number:
                    raise ValueError(f"{option} = {text!r}: write a figure and a number, as in alpha_psnr=30")
        unused = [name for name in ("edge_radius", "lpips_weights") if not self.has_default(name)]
        if self.reference is None and unused:
            raise ValueError(f"{unused[0]} has no effect without a reference; leave it out or give one")
        if self.lpips == "off" and self.lpips_weights is not None:
            raise ValueError("lpips_weights has no effect with lpips = 'off'; leave one of them out")
        return self


class ReportRecipe(Recipe):
    """Write a page on which people look at runs: clips side by side, figures, curves, recipes. Opens from disk."""

    output_dir: Path = Field(description="folder of the page; index.html there is what to open")
    seed: int = Field(0, ge=0, description="not used: nothing in this is random")
    runs: tuple[Path, ...] = Field(
        min_length=1,
        description="folders that commands wrote (training, generate, evaluate, demo), or transparent media",
    )
    title: str = Field("report", description="heading of the page")
    reference: Path | None = Field(
        None, description="true clip, or folder of true clips by the clips' names, for differences; none = as evaluated"
    )
    max_clips: int = Field(24, ge=1, description="clips shown of each run")
    max_frames: int | None = Field(None, ge=1, description="frames shown of each clip, from the start; none = all")


class UiRecipe(Command):
    """Open a page on this machine to probe, convert, check, generate and report with the mouse. Needs the extra ui."""

    output_dir: Path = Field(Path("wan_alpha_ui"), description="folder that the page's results are written to")
    port: int = Field(7860, ge=0, le=65535, description="port on 127.0.0.1; 0 = any that is free")
    open_browser: bool = Field(False, description="open the page in the browser")


class DemoRecipe(Recipe):
    """Train a tiny model in both stages on this machine and generate transparent clips, in minutes."""

    output_dir: Path = Field(Path("wan_alpha_demo"), description="folder of everything it writes")
    source: Path | None = Field(None, description="folder of your own RGBA clips, to train on besides the drawn ones")
    num_clips: int = Field(96, ge=1, description="drawn clips to train on")
    num_held_out: int = Field(8, ge=1, description="drawn clips to validate on")
    vae_steps: int | None = Field(None, ge=1, description="training steps of stage 1; none = the preset tiny_stage1's")
    vae_learning_rate: float | None = Field(None, gt=0, description="peak of stage 1; none = the preset tiny_stage1's")
    dit_steps: int | None = Field(None, ge=1, description="training steps of stage 2; none = the preset tiny_stage2's")
    dit_learning_rate: float | None = Field(None, gt=0, description="peak of stage 2; none = the preset tiny_stage2's")
    device: Device = Field("auto", description="where to run")
    vae_precision: Precision = Field(
        "auto", description="compute type of stage 1; auto = bf16 on CUDA, float32 elsewhere; bf16 suits CPUs with AMX"
    )
    dit_precision: Precision = Field("auto", description="compute type of stage 2; auto as above")


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
    precision: Precision = Field("auto", description="compute type; auto = bf16 on CUDA, float32 elsewhere")

    @model_validator(mode="after")
    def _has_rgba_weights(self):
        if self.model.rgba_weights is None:
            raise ValueError("model.rgba_weights: missing; the trained RGBA VAE (or its merge block) to be validated")
        return self


class CacheModel(RGBAVAEModel):
    """What turns clips and captions into latents and contexts."""

    wan: WanSource = Field(
        description="Wan folder, list of files, or model_id:pattern,... (text encoder and tokenizer are used)"
    )
    rgba_weights: Path = Field(description="trained RGBA VAE weights: this project's safetensors or a released .bin")


class CacheData(ClipData):
    """Clips to be cached."""

    num_frames: NumFrames = Field(81, description="frames per clip, 4n+1")
    height: GridSize = Field(480, description="pixels, a multiple of 16")
    width: GridSize = Field(832, description="pixels, a multiple of 16")
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
    may_change_on_resume: ClassVar = _RESUME_TRAINING | {"cache", "validation_cache"}

    model: TrainDiTModel
    cache: Path = Field(description="folder that `wan-alpha cache` made")
    validation_cache: Path | None = Field(None, description="cache of held-out clips; none = no validation")
    repeat: int = Field(1, ge=1, description="times each cached clip occurs in an epoch")
    adapter: AdapterSettings
    objective: ObjectiveSettings
    training: TrainDiTSettings


class GenerateModel(RGBAVAEModel):
    """Weights that generate."""

    wan: WanSource = Field(description="Wan folder, list of files, or model_id:pattern,...")
    rgba_weights: Path | None = Field(
        None, description="RGBA VAE weights: this project's safetensors or a released .bin; none with decoder_lora"
    )
    adapter: Path | None = Field(None, description="DoRA or LoRA of stage 2")
    adapter_scale: float = Field(1.0, description="strength of that adapter")
    distillation_lora: Path | None = Field(None, description="step-distillation LoRA, merged after the adapter")

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
    height: GridSize = Field(480, description="pixels, a multiple of 16")
    width: GridSize = Field(832, description="pixels, a multiple of 16")
    fps: float = Field(16.0, gt=0, description="frames per second of the videos")
    formats: tuple[FormatName, ...] = Field(
        ("png", "preview", "matte", "webm"), min_length=1, description="what each clip is written as; names as in convert"
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
    device: Device = Field("auto", description="where to run")
    precision: Precision = Field("auto", description="compute type; auto = bf16 on CUDA, float32 elsewhere")

    @model_validator(mode="after")
    def _is_consistent(self):
        if (self.prompt is None) == (self.prompts_file is None):
            raise ValueError("give prompt or prompts_file, one of the two")
        if (self.mask is None) != (self.noise_shift == 0):
            raise ValueError("mask and noise_shift work together: give both (noise_shift = 0.05) or neither")
        if twice := {name for name in self.formats if self.formats.count(name) > 1}:
            raise ValueError(f"formats: {min(twice)} is named twice")
        if "still" in self.formats and self.num_frames > 1:
            raise ValueError(f"formats: still holds one frame, num_frames = {self.num_frames}; choose png")
        if "preview" not in self.formats and not self.has_default("background"):
            raise ValueError("background has no effect without preview among the formats; leave it out")
        return self
