"""Recipes and environments of runs side by side, as plain values that the page lays out."""

from wan_alpha.training.environment import describe_environment


def settings_tables(runs, shown):
    """Recipes of trainings, those in the same place of their runs side by side; recipes of clips; environments.

    Args:
        runs: list of Run; shown: list of (run index, ClipSource, PageClip).
    """
    trainings = [(run.label, training) for run in runs for training in run.trainings]
    generations = {}  # the first clip of a run stands for it: its others differ in prompt and seed
    for index, source, _ in shown:
        if source.settings:
            generations.setdefault(runs[index].label, source.settings)
    tables = [
        settings_table(
            f"Recipe of {place or 'training'}",
            [(label, training.recipe) for label, training in trainings if training.name == place],
        )
        for place in dict.fromkeys(training.name for _, training in trainings)
    ]
    recipes = [(label, settings.get("recipe", {})) for label, settings in generations.items()]
    environments = [(f"{label} {training.name}".strip(), training.environment) for label, training in trainings]
    environments += [(f"{label} clips", settings.get("environment", {})) for label, settings in generations.items()]
    tables.append(settings_table("Recipe of clips", recipes))
    tables.append(settings_table("Environment", [*environments, ("this report", describe_environment())]))
    return [table for table in tables if table is not None]


def settings_table(title, named):
    """Nested settings side by side.

    Args:
        named: list of (column heading, dict).

    Returns:
        dict of title, headings and rows of (dotted name, values, whether they differ); None if there are none.
    """
    flat = [(heading, dict(flatten(values))) for heading, values in named if values]
    names = list(dict.fromkeys(name for _, values in flat for name in values))
    if not names:
        return None
    rows = []
    for name in names:
        shown = [_text(values.get(name, "")) for _, values in flat]
        rows.append({"name": name, "values": shown, "differs": len(set(shown)) > 1})
    return {"title": title, "headings": [heading for heading, _ in flat], "rows": rows}


def flatten(values, prefix=""):
    """Yield (dotted name, value) of a nested dict."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _text(value):
    return "none" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
