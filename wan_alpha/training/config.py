"""Recipes: what a run is made of, checked before anything heavy is loaded.

A recipe is a TOML file (or the ``recipe.json`` of an earlier run) plus dotted overrides; a pydantic class says which
keys exist, their defaults, units and valid values. Nothing here imports torch, so that ``--help`` stays quick.
"""

import difflib
import json
import tomllib
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from wan_alpha.data.buckets import nearest_frames, nearest_sides
from wan_alpha.errors import ConfigError
from wan_alpha.weights.combinations import check_combinations

GRID = 16  # pixels: the VAE divides by 8, the DiT patches by 2


def _frame_count(value):
    nearest = nearest_frames(value)
    if nearest != [value]:
        raise ValueError(f"a clip has 4n+1 frames: {nearest[0]} or {nearest[1]} would be valid")
    return value


def _on_grid(value):
    nearest = nearest_sides(value, GRID)
    if nearest != [value]:
        raise ValueError(f"sizes are multiples of {GRID} pixels: {nearest[0]} or {nearest[1]} would be valid")
    return value


NumFrames = Annotated[int, AfterValidator(_frame_count)]
GridSize = Annotated[int, AfterValidator(_on_grid)]
Device = Literal["auto", "cuda", "mps", "cpu"]
Precision = Literal["auto", "fp32", "bf16"]
Attention = Literal["auto", "torch", "flash2", "flash3", "sage"]


def allows_none(annotation):
    return get_origin(annotation) in (Union, UnionType) and type(None) in get_args(annotation)


def _is_tuple(annotation):
    options = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return any(get_origin(option) is tuple for option in options)


def _is_dict(annotation):
    return get_origin(annotation) is dict


def _parse_json(text):
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON ({error})") from error


class Section(BaseModel):
    """A table of a recipe. Unknown keys are errors; ``"none"`` stands for None, which TOML lacks; a list may be
    written with commas."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    def has_default(self, name):
        """Whether an option still has its default (given or not: a saved recipe names every option)."""
        return getattr(self, name) == type(self).model_fields[name].default

    @field_validator("*", mode="before")
    @classmethod
    def _read_text(cls, value, info):
        annotation = cls.model_fields[info.field_name].annotation
        if isinstance(value, str) and value.lower() == "none" and allows_none(annotation):
            return None
        if isinstance(value, str) and (_is_dict(annotation) or value.lstrip().startswith("[{")):
            return _parse_json(value)
        if isinstance(value, str) and _is_tuple(annotation):
            return [part.strip() for part in value.split(",") if part.strip()]
        return value


class TrainingSettings(Section):
    """How a run trains: length, batch, optimizer, checkpoints, device."""

    max_steps: int | None = Field(None, ge=1, description="stop after this many optimizer steps")
    num_epochs: int | None = Field(None, ge=1, description="stop after this many passes over the data")
    batch_size: int = Field(1, ge=1, description="clips per device and micro-batch")
    optimizer: str = Field(
        "adamw",
        description="adamw (fused where the device can), adamw_8bit, prodigy, schedule_free, adafactor, or the import "
        "path of any torch optimizer, such as torch.optim.SGD",
    )
    optimizer_options: dict[str, Any] = Field(
        {},
        description="the optimizer's own options, as its documentation names them: a table, on the command line JSON",
    )
    learning_rate: float = Field(1e-4, gt=0, description="peak learning rate; with prodigy 1")
    weight_decay: float = Field(
        0.01, ge=0, description="the optimizer's weight decay; AdamW's is decoupled, per unit of learning rate"
    )
    warmup_steps: int = Field(0, ge=0, description="optimizer steps of linear warm-up")
    schedule: Literal["constant", "linear", "cosine", "polynomial"] = Field(
        "constant", description="learning rate after the warm-up"
    )
    schedule_power: float = Field(2.0, gt=0, description="exponent of the polynomial schedule")
    final_learning_rate: float = Field(
        0.0, ge=0, description="what linear, cosine and polynomial schedules fall to towards the run's end"
    )
    gradient_accumulation: int = Field(1, ge=1, description="micro-batches per optimizer step")
    max_grad_norm: float | None = Field(
        1.0, gt=0, description="clip the gradient's L2 norm to this; none = no clipping"
    )
    checkpoint_every: int | None = Field(
        500, ge=1, description="optimizer steps between checkpoints; none = one at the end"
    )
    keep_checkpoints: int = Field(2, ge=1, description="newest checkpoints kept on disk")
    keep_every: int | None = Field(
        None, ge=1, description="checkpoints at multiples of this many steps stay for good; none = no such ones"
    )
    keep_best: str | None = Field(
        None, description="figure of the validation whose best checkpoint stays, e.g. alpha_psnr, loss; none = no"
    )
    best_is: Literal["lowest", "highest"] = Field("lowest", description="which value of that figure is the best")
    background_saving: bool = Field(
        True, description="write checkpoints from a copy in host memory while training goes on; false = wait, no copy"
    )
    max_skipped_updates: int = Field(
        5, ge=1, description="stop after this many updates in a row whose loss or gradient is NaN or infinite"
    )
    loss_spike: float | None = Field(
        5.0, gt=1, description="name a loss above this many times the median of the last 100; none = no such lines"
    )
    ema_decay: float | None = Field(
        None, gt=0, lt=1, description="decay of a moving average of the trained weights, e.g. 0.999; none = no average"
    )
    ema_on_cpu: bool = Field(False, description="keep the average in host memory instead of the device's")
    ema_used_by: Literal["both", "validation", "export", "none"] = Field(
        "both", description="what the average stands in for the weights in; none = it is in the checkpoints only"
    )
    validate_every: int | None = Field(
        None, ge=1, description="optimizer steps between validations; none = before and after training"
    )
    preview_every: int | None = Field(
        None, ge=1, description="optimizer steps between previews, which are the same clips each time; none = none"
    )
    trackers: tuple[str, ...] | None = Field(
        None,
        description="where figures and previews go besides the run's folder, e.g. tensorboard,wandb; none = "
        "tensorboard if it is installed, '' = nowhere",
    )
    log_every: int = Field(1, ge=1, description="optimizer steps between lines of metrics.jsonl")
    precision: Precision = Field(
        "auto", description="compute type; auto = bf16 on CUDA cards that have it, float32 elsewhere"
    )
    device: Device = Field("auto", description="where to train")
    ignore_memory_plan: bool = Field(
        False, description="start although the predicted peak is above the device's memory"
    )
    num_workers: int = Field(
        0, ge=0, description="processes that load clips ahead; 0 = the training itself loads each when its turn comes"
    )
    prefetch: int = Field(2, ge=1, description="batches that each of these processes loads ahead")
    worker_start: Literal["auto", "fork", "forkserver", "spawn"] = Field(
        "auto", description="how these processes are started; auto = fork on Linux, spawn elsewhere"
    )

    @model_validator(mode="after")
    def _has_an_end(self):
        if self.max_steps is None and self.num_epochs is None:
            raise ValueError("give max_steps or num_epochs (with both, whichever comes first ends the run)")
        return self

    @model_validator(mode="after")
    def _every_option_has_an_effect(self):
        if self.keep_every is not None and (self.checkpoint_every is None or self.keep_every % self.checkpoint_every):
            every = self.checkpoint_every
            right = "give checkpoint_every too" if every is None else f"give a multiple of checkpoint_every = {every}"
            raise ValueError(f"keep_every = {self.keep_every} would keep no checkpoint, or few: {right}")
        if self.keep_best is not None and self.validate_every is None:
            raise ValueError("keep_best has no effect without validate_every: give both, or neither")
        if self.keep_best is None and not self.has_default("best_is"):
            raise ValueError("best_is has no effect without keep_best: give both, or neither")
        if self.schedule == "constant" and not self.has_default("final_learning_rate"):
            raise ValueError("final_learning_rate has no effect with schedule = 'constant': choose another, or none")
        if self.schedule != "polynomial" and not self.has_default("schedule_power"):
            raise ValueError(
                f"schedule_power has no effect with schedule = {self.schedule!r}: choose polynomial, or none"
            )
        if self.final_learning_rate > self.learning_rate:
            raise ValueError(
                f"final_learning_rate = {self.final_learning_rate} is above learning_rate = {self.learning_rate}"
            )
        unused = [name for name in ("prefetch", "worker_start") if not self.has_default(name)]
        if self.num_workers == 0 and unused:
            raise ValueError(f"{unused[0]} has no effect with num_workers = 0: leave it out, or give workers")
        unused = [name for name in ("ema_on_cpu", "ema_used_by") if not self.has_default(name)]
        if self.ema_decay is None and unused:
            raise ValueError(f"{unused[0]} has no effect without ema_decay: give both, or neither")
        return self


class Command(Section):
    """Base of every command's recipe: nothing but its own options."""

    may_change_on_resume: ClassVar[frozenset[str]] = frozenset()
    """Dotted names that a continued run may change because they do not alter what is computed."""

    @model_validator(mode="after")
    def _options_go_together(self):
        try:
            check_combinations(option_values(self))
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return self

    def as_dict(self) -> dict[str, Any]:
        """The recipe as plain JSON values."""
        return self.model_dump(mode="json")


class Recipe(Command):
    """Base of the recipes of runs, which write a folder."""

    output_dir: Path = Field(description="folder of everything the run writes")
    seed: int = Field(0, ge=0, description="seed of all randomness")


class PlannedRecipe(Recipe):
    """Base of the recipes of runs that can say beforehand what they will take."""

    dry_run: bool = Field(
        False, exclude=True, description="print the recipe, data, steps, memory and disk space, and write nothing"
    )


def section_class(field):
    """The Section class of a pydantic field that is a table, else None."""
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def dotted_fields(recipe_class, prefix=""):
    """Yield (dotted name, pydantic FieldInfo) of every option that holds a value, in order."""
    for name, field in recipe_class.model_fields.items():
        table = section_class(field)
        if table is None:
            yield prefix + name, field
        else:
            yield from dotted_fields(table, f"{prefix}{name}.")


def option_values(recipe) -> dict[str, tuple[Any, bool]]:
    """Dotted name -> (value, whether it is the default) of every option of a recipe."""
    found = {}
    for dotted, _ in dotted_fields(type(recipe)):
        *tables, name = dotted.split(".")
        table = recipe
        for one in tables:
            table = getattr(table, one)
        found[dotted] = getattr(table, name), table.has_default(name)
    return found


def list_presets(recipe_class=None):
    """Names of the recipes that come with the package; with a class, of those that name nothing it does not know."""
    known = None if recipe_class is None else {name for name, _ in dotted_fields(recipe_class)}
    fitting = (name for name, options in _preset_options().items() if known is None or options <= known)
    return sorted(fitting)


@lru_cache(maxsize=1)
def _preset_options():
    """Preset -> the dotted names of the options that it sets."""
    paths = (files("wan_alpha") / "presets").iterdir()
    return {
        path.name.removesuffix(".toml"): frozenset(_dotted_keys(tomllib.loads(path.read_text(encoding="utf-8"))))
        for path in paths
    }


def _dotted_keys(table, above=""):
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _dotted_keys(value, f"{above}{key}.")
        else:
            yield f"{above}{key}"


def preset_file(name) -> Path | None:
    """The file of a preset; None where there is none of that name."""
    name = str(name).removesuffix(".toml")
    return Path(str(files("wan_alpha") / "presets" / f"{name}.toml")) if name in list_presets() else None


def _find_config(config):
    path = Path(config)
    if path.is_file():
        return path
    if (preset := preset_file(config)) is not None:
        return preset
    raise ConfigError(f"--config {config}: no such file, nor a preset; presets: {', '.join(list_presets())}")


def read_config(config) -> dict[str, Any]:
    """Read a ``.toml`` or ``.json`` recipe file, or a preset by its name.

    Raises:
        ConfigError: not found, or not valid TOML or JSON (with the line).
    """
    path = _find_config(config)
    text = path.read_text(encoding="utf-8")
    try:
        content = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path}: not a valid {path.suffix[1:].upper()} file: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a table of options, found {type(content).__name__}")
    return content


def _apply_override(content, dotted, value):
    *tables, name = dotted.split(".")
    for table in tables:
        content = content.setdefault(table, {})
        if not isinstance(content, dict):
            raise ConfigError(f"{dotted}: {table!r} is a value in the recipe file, not a table")
    content[name] = value


def _initials(name):
    return "".join(word[0] for word in name.split("_"))


def nearest_option(recipe_class, dotted):
    """A hint for an option that does not exist: the one that was probably meant, or all of them."""
    names = [name for name, _ in dotted_fields(recipe_class)]
    nearest = nearest_name(dotted, names)
    return f"did you mean {nearest}?" if nearest else f"options: {', '.join(names)}"


def nearest_name(dotted, names):
    """That of the dotted names which was probably meant; None where none is near."""
    table, _, leaf = dotted.rpartition(".")
    names = sorted(names, key=lambda name: name.rpartition(".")[0] != table)  # stable: those of the same table first
    same_leaf = [name for name in names if name.split(".")[-1] == leaf]
    abbreviated = [name for name in names if _initials(name.split(".")[-1]) == leaf]  # lr: learning_rate
    close = same_leaf or abbreviated or difflib.get_close_matches(dotted, names, n=1, cutoff=0.5)
    return close[0] if close else None


def _explain(recipe_class, problem):
    """One line: dotted name, what was given, what would be right."""
    dotted = ".".join(str(part) for part in problem["loc"])
    descriptions = dict(dotted_fields(recipe_class))
    if problem["type"] == "extra_forbidden":
        return f"{dotted}: no such option; {nearest_option(recipe_class, dotted)}"
    if problem["type"] == "missing":
        field = descriptions.get(dotted)
        return f"{dotted}: missing; {field.description if field else 'the whole table is needed'}"
    reason = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error" and (dotted not in descriptions or isinstance(problem["input"], dict)):
        return f"{dotted}: {reason}" if dotted else reason
    return f"{dotted} = {problem['input']!r}: {reason[0].lower()}{reason[1:]}"


def load_recipe(recipe_class, config=None, overrides=None):
    """Build a checked recipe from a file and overrides.

    Args:
        recipe_class: a subclass of :class:`Command`.
        config: path of a ``.toml`` or ``.json`` file, a preset's name, or None.
        overrides: dict of dotted name to value; text is parsed to the option's type.

    Returns:
        An instance of ``recipe_class``.

    Raises:
        ConfigError: every problem at once, a line each: the option's dotted name, what was given, what would be right.
    """
    content = read_config(config) if config is not None else {}
    for dotted, value in (overrides or {}).items():
        _apply_override(content, dotted, value)
    for name, field in recipe_class.model_fields.items():
        if section_class(field) is not None:
            # An absent table is checked as an empty one, so that each missing option of it is named.
            content.setdefault(name, {})
    try:
        return recipe_class.model_validate(content)
    except ValidationError as error:
        problems = [_explain(recipe_class, problem) for problem in error.errors()]
        source = f"recipe {config}" if config is not None else "recipe"
        raise ConfigError("\n  ".join([f"{source}: {len(problems)} problem(s)", *problems])) from error
