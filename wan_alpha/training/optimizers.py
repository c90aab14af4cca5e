"""Any torch optimizer: by a short name, or by the import path of its class."""

import contextlib
import inspect
import io
from importlib import import_module

import torch

from wan_alpha.errors import ConfigError

# Short name -> (import path, package that pip installs; None where torch brings it).
KNOWN_OPTIMIZERS = {
    "adamw": ("torch.optim.AdamW", None),
    "adamw_8bit": ("bitsandbytes.optim.AdamW8bit", "bitsandbytes"),
    "prodigy": ("prodigyopt.Prodigy", "prodigyopt"),
    "schedule_free": ("schedulefree.AdamWScheduleFree", "schedulefree"),
    "adafactor": ("torch.optim.Adafactor", None),
}
# What the recipe says elsewhere.
_OWN_OPTIONS = {"params": "the model", "lr": "training.learning_rate", "weight_decay": "training.weight_decay"}
# From here on a rate is far too low for what Prodigy multiplies by its own.
_PRODIGY_LEAST_RATE = 0.1


def check_optimizer(settings):
    """Refuse an optimizer, or options of it, that training could not use; nothing is loaded for it but its package.

    Args:
        settings: TrainingSettings.

    Raises:
        ConfigError: it is not installed, no optimizer, needs a closure, has no such option, or the options or the
            schedule do not go with it.
    """
    optimizer_class = find_optimizer(settings.optimizer)
    # Prodigy greets on standard output whoever builds it.
    with contextlib.redirect_stdout(io.StringIO()):
        optimizer = _build(optimizer_class, [torch.nn.Parameter(torch.zeros(4))], settings)
    if has_own_average(optimizer):
        if settings.ema_decay is not None:
            raise ConfigError(
                f"training.ema_decay = {settings.ema_decay}: a schedule-free optimizer averages its weights itself; "
                "leave one of the two out"
            )
        if settings.schedule != "constant":
            raise ConfigError(
                f"training.schedule = {settings.schedule!r}: a schedule-free optimizer takes the place of a schedule; "
                "give 'constant' (with training.warmup_steps, if you like)"
            )


def find_optimizer(name):
    """The class of a short name (see KNOWN_OPTIMIZERS) or an import path.

    Raises:
        ConfigError: as :func:`check_optimizer`.
    """
    path, package = KNOWN_OPTIMIZERS.get(name, (name, None))
    where = f"training.optimizer = {name!r}"
    module_name, _, class_name = path.rpartition(".")
    if not module_name:
        raise ConfigError(
            f"{where}: no such name; names are {', '.join(KNOWN_OPTIMIZERS)}; any other optimizer is given by its "
            "import path, such as torch.optim.SGD"
        )
    try:
        found = getattr(import_module(module_name), class_name, None)
    except ImportError as error:
        missing = package or module_name.split(".")[0]
        raise ConfigError(f"{where} cannot be imported ({error}); pip install {missing}") from error
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
        what = "there is no such class" if found is None else "that is no torch.optim.Optimizer"
        raise ConfigError(f"{where}: {what}; give the import path of an optimizer, such as torch.optim.SGD")
    if inspect.signature(found.step).parameters.get("closure", _OPTIONAL).default is inspect.Parameter.empty:
        raise ConfigError(f"{where}: its step needs a closure that computes the loss again; choose another optimizer")
    return found


_OPTIONAL = inspect.Parameter("closure", inspect.Parameter.KEYWORD_ONLY, default=None)


def make_optimizer(settings, parameters):
    """The optimizer of the settings, ready to train.

    AdamW is the fused one where the parameters' device has it. Whatever has a ``weight_decay`` gets
    ``training.weight_decay``.

    Args:
        settings: TrainingSettings that :func:`check_optimizer` let pass; parameters: iterable.
    """
    optimizer = _build(find_optimizer(settings.optimizer), list(parameters), settings)
    if has_own_average(optimizer):
        optimizer.train()
    return optimizer


def _build(optimizer_class, parameters, settings):
    options = _options(optimizer_class, settings)
    try:
        if optimizer_class is torch.optim.AdamW and not {"fused", "foreach"} & options.keys():
            # Refused where the device has none.
            with contextlib.suppress(RuntimeError):
                return optimizer_class(parameters, **options, fused=True)
        return optimizer_class(parameters, **options)
    except (TypeError, ValueError, RuntimeError) as error:
        given = ", ".join(f"{name} = {value!r}" for name, value in options.items())
        raise ConfigError(f"training.optimizer = {settings.optimizer!r} refuses {given}: {error}") from error


def _options(optimizer_class, settings):
    name, taken = settings.optimizer, inspect.signature(optimizer_class).parameters
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in taken.values())
    options = {}
    for option, value in settings.optimizer_options.items():
        if option in _OWN_OPTIONS:
            raise ConfigError(f"training.optimizer_options.{option}: that is {_OWN_OPTIONS[option]}'s to say")
        if option not in taken and not takes_any:
            known = ", ".join(other for other in taken if other not in _OWN_OPTIONS)
            raise ConfigError(f"training.optimizer_options.{option}: {name} has no such option; it has {known}")
        options[option] = _from_recipe(value)
    if name == "prodigy" and settings.learning_rate < _PRODIGY_LEAST_RATE:
        raise ConfigError(
            f"training.learning_rate = {settings.learning_rate}: prodigy finds its own rate and multiplies it by this "
            "one; give 1"
        )
    if "weight_decay" in taken or takes_any:
        options["weight_decay"] = settings.weight_decay
    elif not settings.has_default("weight_decay"):
        raise ConfigError(f"training.weight_decay = {settings.weight_decay}: {name} has none; leave it out")
    return {"lr": settings.learning_rate, **options}


def _from_recipe(value):
    """TOML has no None, and neither TOML nor JSON has tuples, which optimizers expect."""
    if isinstance(value, list):
        return tuple(value)
    return None if value == "none" else value


def has_own_average(optimizer):
    """Whether it is of the schedule-free kind, which trains other weights than it gives."""
    return callable(getattr(optimizer, "train", None)) and callable(getattr(optimizer, "eval", None))


class OwnAverage:
    """The weights that a schedule-free optimizer gives, in the place of those that it trains.

    Its own ``eval()`` and ``train()`` lead there and back but for rounding; here the way back is exact, so that neither
    a validation nor a checkpoint changes a run.

    Args:
        optimizer: its ``train()`` was called; parameters: name -> parameter.
    """

    def __init__(self, optimizer, parameters):
        self.optimizer, self.parameters = optimizer, parameters

    @contextlib.contextmanager
    def in_place_of_weights(self):
        """Within, the parameters hold the optimizer's average; after, what they held before, to the bit."""
        trained = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        self.optimizer.eval()
        try:
            yield
        finally:
            self.optimizer.train()
            with torch.no_grad():
                for name, parameter in self.parameters.items():
                    parameter.copy_(trained[name])
