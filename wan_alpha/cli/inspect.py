"""``wan-alpha inspect``: what weights are, what they can serve and what they lack, from their headers alone."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from wan_alpha.errors import CheckpointError, ConfigError
from wan_alpha.training.config import load_recipe, read_config
from wan_alpha.weights.combinations import combinations_of
from wan_alpha.weights.memory import largest, mode_peaks
from wan_alpha.weights.recognise.component import KINDS, Component
from wan_alpha.weights.recognise.configs import ConfigPlan, plan_configs, write_configs
from wan_alpha.weights.recognise.folder import Recognised, recognise
from wan_alpha.weights.recognise.serves import Service, service_for, services
from wan_alpha.weights.registry import known_models

_RECIPE_SUFFIXES = (".toml", ".json")


@dataclass(frozen=True)
class Inspection:
    """What was found at a path.

    Attributes:
        found: what it is; services: command -> how it can serve it; configs: files that are missing or wrong.
        fixed: (written, old one kept as) of ``--fix``; asked: the command that was asked for; passed: False if the path
            cannot serve that command, or holds something that cannot be used at all.
    """

    found: Recognised
    services: dict[str, Service]
    configs: list[ConfigPlan]
    fixed: list[tuple[Path, Path | None]]
    asked: str | None
    passed: bool

    def as_dict(self):
        """As JSON values."""
        found, family = self.found, self._family
        return {
            "path": str(found.path), "layout": found.layout, "families": list(found.families),
            "components": [component.as_dict() for component in found.components], "missing": found.missing,
            "boundary": found.boundary, "notes": list(found.notes), "problems": found.problems,
            "commands": {name: asdict(service) | {"can": service.can} for name, service in self.services.items()},
            "configs": [asdict(plan) | {"path": str(plan.path)} for plan in self.configs],
            "fixed": [{"path": str(path), "old": str(old) if old else None} for path, old in self.fixed],
            "memory": _memory(family) if family else {}, "passed": self.passed,
            "combinations": [asdict(pair) for pair in combinations_of(found.facts())] if family else [],
            "num_bytes_read": found.num_bytes_read,
        }  # fmt: skip

    @property
    def _family(self):
        return known_models().get(self.found.families[0]) if self.found.families else None


def inspect_path(recipe):
    """Recognise an InspectRecipe's path and print what was found; returns the Inspection.

    Raises:
        CheckpointError: nothing there, or a single file that cannot be read.
        ConfigError: a command that does not exist.
    """
    inspection = inspect_weights(recipe.path, recipe.for_command, recipe.fix)
    if recipe.print_json:
        print(json.dumps(inspection.as_dict(), indent=1))
    else:
        _print(inspection)
    return inspection


def inspect_weights(path, command=None, fix=False):
    """As :func:`inspect_path`, without printing."""
    from wan_alpha.cli.main import COMMANDS

    if command is not None and command not in COMMANDS:
        raise ConfigError(f"--for {command}: no such command; choose one of {', '.join(COMMANDS)}")
    found = _recipe(Path(path)) or recognise(path)
    plans = plan_configs(found)
    fixed = write_configs(plans) if fix else []
    if fixed:
        found = recognise(path)
        plans = plan_configs(found)
    offered = services(found)
    passed = not any(one.kind == "unknown" or one.kind in KINDS and one.problems for one in found.components)
    if command is not None:
        offered[command] = service_for(found, command)
        passed = offered[command].can
    if fix:  # what was asked for
        passed = passed and not plans
    return Inspection(found, offered, plans, fixed, command, passed)


def _recipe(path):
    """A Recognised of a recipe file, or None where the path is none."""
    if not path.is_file() or path.suffix not in _RECIPE_SUFFIXES or path.name.endswith(".index.json"):
        return None
    from wan_alpha.cli.main import COMMANDS

    try:
        content = read_config(path)
    except (ConfigError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    fits, problems = [], {}
    for name, (recipe_class, _, _) in COMMANDS.items():
        if not content.keys() <= recipe_class.model_fields.keys():
            continue
        try:
            load_recipe(recipe_class, path)
        except ConfigError as error:
            problems[name] = str(error)
        else:
            fits.append(name)
    if not fits and not problems:
        return None if isinstance(content, dict) and not _looks_like_recipe(content) else _unknown_recipe(path)
    names = fits or sorted(problems, key=lambda name: problems[name].count("\n"))[:1]
    title = f"recipe of {' or '.join(names)}" + ("" if fits else ", not complete")
    component = Component(
        "recipe",
        title,
        (path,),
        details={"commands": names, "open": [] if fits else problems[names[0]].splitlines()[1:]},
    )
    return Recognised(path, "toolkit", (component,))


def _looks_like_recipe(content):
    return bool(content.keys() & {"output_dir", "model", "data", "training"})


def _unknown_recipe(path):
    problem = f"{path}: a table of options that no command has as a whole; see `wan-alpha COMMAND --help`"
    return Recognised(path, "toolkit", (Component("recipe", "recipe of no command", (path,), problems=(problem,)),))


def _print(inspection):
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.width = max(console.width, 120)
    found = inspection.found
    console.print(f"{found.path}: {describe(found)}")
    table = Table(show_header=True, box=None, pad_edge=False)
    for column in ("part", "what", "named as", "parameters", "types", "file"):
        table.add_column(column, overflow="fold")
    for one in found.components:
        first = one.paths[0] if one.paths else Path()
        file = first.relative_to(found.path) if found.path.is_dir() and first != found.path else first.name
        more = f" and {len(one.paths) - 1} more" if len(one.paths) > 1 else ""
        table.add_row(
            KINDS[one.kind], one.title, one.naming, _count(one.num_parameters), ", ".join(one.dtypes), f"{file}{more}"
        )
    console.print(table)
    for one in found.components:
        for name, value in one.details.items():
            console.print(f"  {KINDS[one.kind]}: {name} = {_shown(value)}")
        if one.kind in ("adapter", "placeholders"):
            console.print(f"  {KINDS[one.kind]}: fits {', '.join(one.families) or 'no known Wan'}")
    if found.boundary is not None:
        console.print(f"boundary between the experts: {found.boundary}")
    for part, file in found.missing.items():
        console.print(f"missing: {part}: {file}")
    for text in (*found.problems, *found.notes):
        console.print(f"warning: {text}")
    for plan in inspection.configs:
        told = f"--fix cannot write it: {plan.refusal}" if plan.refusal else "--fix writes it"
        console.print(f"warning: {plan.path}: {plan.reason}; {told}")
    for path, old in inspection.fixed:
        console.print(f"wrote {path}" + (f", the old one is {old.name}" if old else ""))
    for name, service in inspection.services.items():
        console.print(f"{name}: {_service_text(service)}")
    if found.families and found.families[0] in known_models() and any(one.kind == "dit" for one in found.components):
        _print_model(console, known_models()[found.families[0]], found)


def describe(found):
    """One line: what a path is."""
    dits = [one for one in found.components if one.kind in ("dit", "dit_low_noise")]
    size = sum(one.num_bytes for one in found.components)
    if dits and found.families:
        name = " or an expert of ".join(found.families) if found.layout == "file" else found.families[0]
    else:
        name = found.components[0].title if len(found.components) == 1 else f"{len(found.components)} components"
    return f"{name}, {found.layout} layout, {size / 2**30:.2f} GiB of weights" if size else f"{name} ({found.layout})"


def _print_model(console, model, found):
    weights = sum(one.num_parameters for one in found.components if one.kind in ("dit", "dit_low_noise"))
    console.print(f"DiT in bf16: {2 * weights / 2**30:.2f} GiB")
    for mode, peaks in mode_peaks(model).items():
        parts = f": {', '.join(map(_phase, peaks))}" if len(peaks) > 1 else ""
        console.print(f"memory of {mode}: {largest(peaks).describe()}{parts}")
    sizes = ", ".join(f"{height}x{width}" for height, width in model.sizes)
    console.print(f"made for {model.num_frames} frames of {sizes} at {model.fps} fps, shift {model.shift:g}")
    for pair in combinations_of(found.facts()):
        console.print(pair.describe())


def _phase(peak):
    return f"{peak.phase} {peak.gib:.2f} {'measured' if peak.is_measured else 'predicted'}"


def _service_text(service):
    if service.refusal:
        return f"cannot: {service.refusal}"
    parts = [f"--{option} {file}" for option, file in service.gives.items()]
    parts += [f"lacks the {part}: {file}" for part, file in service.lacks.items()]
    parts += [f"still needs --{option}: {file}" for option, file in service.needs.items()]
    return "; ".join(parts)


def _memory(model):
    return {
        mode: largest(peaks).as_dict() | {"phases": [peak.as_dict() for peak in peaks]}
        for mode, peaks in mode_peaks(model).items()
    }


def _count(number):
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number) if number else ""


def _strength(values):
    return ", ".join(f"{name} {_shown(value) or 'not said'}" for name, value in values.items())


def _shown(value):
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_strength(part)}" for name, part in value.items())
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
