"""The files of a run beside its checkpoints: the recipe it was made with, and its metrics."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

from wan_alpha.errors import ConfigError
from wan_alpha.training.config import dotted_fields
from wan_alpha.training.json_figures import json_figures, read_figure

RECIPE_FILE = "recipe.json"
METRICS_FILE = "metrics.jsonl"
START_FILE = "started.json"
LENGTH_OF_A_RUN = frozenset({"training.max_steps", "training.num_epochs"})


def replace_file(path, text):
    """Write a text file that is there whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def flatten(values, prefix=""):
    """Nested tables as one: dotted name -> value."""
    flat = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def check_same_recipe(output_dir, recipe):
    """Refuse to continue a run under a recipe that would have computed something else.

    Raises:
        ConfigError: the differing options with both values, and what to do.
    """
    path = Path(output_dir) / RECIPE_FILE
    if not path.is_file():
        return
    before, now = flatten(json.loads(path.read_text(encoding="utf-8"))), flatten(recipe.as_dict())
    free, why = recipe.may_change_on_resume | {"output_dir"}, ""
    schedule = now.get("training.schedule", "constant")
    if schedule != "constant":
        free -= LENGTH_OF_A_RUN
    # What a run of an earlier version could not choose was as today's default has it.
    for name, field in dotted_fields(type(recipe)):
        default = list(field.default) if isinstance(field.default, tuple) else field.default  # as JSON has it
        if name not in before and now.get(name) == default:
            before[name] = now[name]
    differing = [name for name in now | before if name not in free and before.get(name) != now.get(name)]
    if differing:
        listed = "\n  ".join(f"{name}: {before.get(name)!r} there, {now.get(name)!r} here" for name in differing)
        if LENGTH_OF_A_RUN & set(differing):
            why = f"\nwith training.schedule = {schedule!r} every step's learning rate follows from the run's length;"
        raise ConfigError(
            f"{output_dir} holds a run of another recipe:\n  {listed}{why}\n"
            "choose another output_dir, delete that folder, or give the same values to continue its run"
        )


def describe_dataset(dataset):
    """What a run trains on, as JSON values: the number of samples, and what the dataset's ``fingerprint()`` says."""
    fingerprint = dataset.fingerprint() if hasattr(dataset, "fingerprint") else {}
    return {"samples": len(dataset), **fingerprint}


def check_same_dataset(output_dir, before, now):
    """Refuse to continue a run on data that its steps so far have not seen.

    Args:
        output_dir: of the run; before: what :func:`describe_dataset` said when it began; now: what it says today.

    Returns:
        names of what an earlier version did not record, and nobody can compare.

    Raises:
        ConfigError: what differs, and what to do.
    """
    differing = [name for name in before if before[name] != now.get(name)]
    if differing:
        numbers = f" ({before['samples']} samples there, {now['samples']} here)" if "samples" in differing else ""
        raise ConfigError(
            f"{output_dir} holds a run on other data: changed since it began: {', '.join(differing)}{numbers}; "
            "choose another output_dir, delete that folder, or bring the former data back to continue its run"
        )
    return [name for name in now if name not in before]


def check_same_base(output_dir, before, now):
    """Refuse to continue a run whose frozen weights are others by now, though their file is called the same.

    Args:
        output_dir: of the run; before, now: option -> {"file", "sha256"} of the weights that are not trained, as the
            checkpoint has them and as they were loaded today.

    Returns:
        options that an earlier version did not record.

    Raises:
        ConfigError: each option whose weights differ, with its file and both hashes, and what to do.
    """
    differing = [name for name in before if name in now and before[name]["sha256"] != now[name]["sha256"]]
    if differing:
        listed = "\n  ".join(
            f"{name}, {now[name]['file']}: sha256 {before[name]['sha256']} there, {now[name]['sha256']} here"
            for name in differing
        )
        raise ConfigError(
            f"{output_dir} holds a run on other base weights:\n  {listed}\n"
            "bring the former file back to continue its run, choose another output_dir, or delete that folder"
        )
    return [name for name in now if name not in before]


def check_same_step_size(output_dir, state, now, num_processes):
    """Refuse to continue a run with another batch size or accumulation, unless the steps are as large as before.

    They are, where the number of processes changed the other way. Where it changed alone, the run goes on with steps of
    another size.

    Args:
        state: the RunState of the checkpoint; now: samples of a step, in all of ``num_processes`` together.

    Raises:
        ConfigError: with both sizes, and what to give.
    """
    before = state.step_size
    if before not in (0, now) and before * num_processes != now * state.num_processes:
        right = f"batch_size x gradient_accumulation = {before // num_processes}"
        if before % num_processes:
            right = f"a number of processes that divides {before}"
        raise ConfigError(
            f"{output_dir} holds a run with steps of {before} samples, now they have {now} (training.batch_size x "
            f"training.gradient_accumulation x {num_processes} process(es)): give {right}, or another output_dir"
        )


def write_recipe(output_dir, recipe):
    """Record the recipe as ``recipe.json``, which ``--config`` reads back."""
    replace_file(Path(output_dir) / RECIPE_FILE, json.dumps(recipe.as_dict(), indent=2) + "\n")


def run_title(output_dir, title=None):
    """The name to show of what a run makes: the title that it was given, or its folder's name."""
    return title or Path(output_dir).resolve().name


def run_start(output_dir):
    """When a run began, ISO 8601, UTC, to the second; recorded when first asked, so a continued run says the same.

    SOURCE_DATE_EPOCH (https://reproducible-builds.org/specs/source-date-epoch/) in the environment of the run's first
    start stands for the clock: two runs of one recipe then write the same bytes.
    """
    path = Path(output_dir) / START_FILE
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["started"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    now = datetime.fromtimestamp(int(given), UTC) if given.isdigit() else datetime.now(UTC)
    started = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, json.dumps({"started": started}) + "\n")
    return started


def read_metrics(output_dir):
    """The lines of a run's ``metrics.jsonl``, oldest first; a last line that was cut short is left out.

    Figures are those that were written: infinite ones too, None for what was not a number.
    """
    path = Path(output_dir) / METRICS_FILE
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append({name: read_figure(value) for name, value in json.loads(line).items()})
        except json.JSONDecodeError:
            break
    return rows


def validation_history(rows):
    """The validations in lines of ``metrics.jsonl``: dicts of "step" (0 = before training) and the figures."""
    history = []
    for row in rows:
        for prefix, step in (("initial_validation_", 0), ("validation_", row["step"])):
            figures = {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)}
            if figures:
                history.append({"step": step, **figures})
    return history


class MetricsLog:
    """``metrics.jsonl``, continued exactly: lines after ``last_step`` belong to steps that will be made again."""

    def __init__(self, output_dir, last_step):
        self.path = Path(output_dir) / METRICS_FILE
        kept = [row for row in read_metrics(output_dir) if row["step"] <= last_step]
        replace_file(self.path, "".join(json.dumps(json_figures(row)) + "\n" for row in kept))

    def write(self, row):
        """Append one line; see ``json_figures``."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(json_figures(row)) + "\n")
