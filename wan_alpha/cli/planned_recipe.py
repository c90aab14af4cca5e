"""The recipe that a plan is of: whose command it is, and what is no option of any."""

from wan_alpha.errors import ConfigError
from wan_alpha.training.config import dotted_fields, load_recipe, nearest_name, read_config
from wan_alpha.training.recipes import CacheRecipe, PlanRecipe, TrainDiTRecipe, TrainVAERecipe

COMMANDS = {"train-vae": TrainVAERecipe, "cache": CacheRecipe, "train-dit": TrainDiTRecipe}


def read_planned_recipe(config, command=None, overrides=None):
    """(command, its recipe) of a file or preset.

    Raises:
        ConfigError: no recipe of these commands, or one that could be of several; an option that none of them has.
    """
    if command is not None and command not in COMMANDS:
        raise ConfigError(f"--for {command}: there are plans of {', '.join(COMMANDS)}")
    content = read_config(config)
    _check_overrides(overrides or {}, COMMANDS if command is None else [command])
    if command is None:
        command = _command_of(config, content, overrides)
    return command, load_recipe(COMMANDS[command], config, overrides)


def _check_overrides(overrides, commands):
    """Options that plan does not know are taken for the recipe's; here is who finds a misspelt one."""
    known = list(dict.fromkeys(name for command in commands for name, _ in dotted_fields(COMMANDS[command])))
    for given in overrides:
        if not any(given == name or name.startswith(f"{given}.") or given.startswith(f"{name}.") for name in known):
            own = [name for name in PlanRecipe.model_fields if name not in ("config", "overrides")]
            nearest = nearest_name(given, [*own, *known])
            hint = f"did you mean {nearest}?" if nearest else f"options of plan: {', '.join(own)}"
            raise ConfigError(f"{given}: no option of plan, nor of a recipe of {', '.join(commands)}; {hint}")


def _command_of(config, content, overrides):
    tables = {name.partition(".")[0] for name in overrides or ()}
    of_file = [command for command, recipe in COMMANDS.items() if content.keys() <= recipe.model_fields.keys()]
    known = [command for command in of_file if tables <= COMMANDS[command].model_fields.keys()]
    fitting = [command for command in known if _loads(command, config, overrides)]
    for one in (fitting, known, of_file):
        if len(one) == 1:
            return one[0]  # its own mistakes are said when it is read
    found = f"is none of {', '.join(COMMANDS)} by its options"
    if fitting:
        found = f"could be of {' or '.join(fitting)} by its options"
    elif not of_file:
        fields = {name for recipe in COMMANDS.values() for name in recipe.model_fields}
        if strange := [name for name in content if name not in fields]:
            found = f"{found} ({', '.join(strange)} in none of them)"
    example = next(iter(known or of_file), "train-dit")
    raise ConfigError(f"--config {config}: {found}; say which with --for, e.g. --for {example}")


def _loads(command, config, overrides):
    try:
        load_recipe(COMMANDS[command], config, overrides)
    except ConfigError:
        return False
    return True
