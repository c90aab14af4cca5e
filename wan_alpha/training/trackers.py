"""A run's figures and previews in TensorBoard, or in another tracker that accelerate knows."""

import math
from importlib.util import find_spec

from accelerate.tracking import LOGGER_TYPE_TO_CLASS

from wan_alpha.errors import ConfigError

TRACKERS_FOLDER = "trackers"
DEFAULT_TRACKER = "tensorboard"
# Name -> what any one of is imported, where that is not the name; and what pip installs.
_MODULES = {"tensorboard": ("tensorboard", "tensorboardX")}
_PACKAGES = {"comet_ml": "comet-ml"}


def choose_trackers(names):
    """The trackers to use.

    Args:
        names: as ``training.trackers`` has them: None = TensorBoard if it is installed.

    Raises:
        ConfigError: an unknown name, or one whose package is not installed.
    """
    if names is None:
        return (DEFAULT_TRACKER,) if _is_installed(DEFAULT_TRACKER) else ()
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            known = ", ".join(sorted(LOGGER_TYPE_TO_CLASS))
            raise ConfigError(f"training.trackers: {name!r} is no tracker that accelerate knows; known are {known}")
        if not _is_installed(name):
            package = _PACKAGES.get(name, name)
            raise ConfigError(f"training.trackers: {name!r} is not installed: pip install {package}")
    return tuple(names)


def _is_installed(name):
    return any(find_spec(module) is not None for module in _MODULES.get(name, (name,)))


class Trackers:
    """Figures of a run to its trackers; a context manager. In processes other than the first it does nothing.

    Args:
        accelerator: of the run; names: of :func:`choose_trackers`; output_dir: whose name is the run's; config: JSON
            values that describe the run.
    """

    def __init__(self, accelerator, names, output_dir, config):
        self.accelerator, self.names, self.output_dir, self.config = accelerator, names, output_dir, config

    def __enter__(self):
        if self.names:
            self.accelerator.log_with = list(self.names)
            self.accelerator.project_configuration.set_directories(str(self.output_dir))
            self.accelerator.project_configuration.logging_dir = str(self.output_dir / TRACKERS_FOLDER)
            flat = {name: value if isinstance(value, (int, float, str, bool)) else str(value)
                    for name, value in self.config.items()}  # fmt: skip
            self.accelerator.init_trackers(self.output_dir.resolve().name, config=flat)
        return self

    def __exit__(self, *error):
        # Not end_training(), which would take down the processes' group: what comes after a run may need it.
        for tracker in self.accelerator.trackers if self.names else ():
            tracker.finish()

    def log(self, figures, step):
        """Figures by name, what is not finite left out."""
        if self.names:
            finite = {name: value for name, value in figures.items() if value is not None and math.isfinite(value)}
            self.accelerator.log(finite, step=step)

    def show(self, pictures, step):
        """Pictures by name, (H, W, 3) uint8, in the trackers that take any."""
        for tracker in self.accelerator.trackers if self.names else ():
            if hasattr(tracker, "log_images"):
                layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
                tracker.log_images({name: picture[None] for name, picture in pictures.items()}, step=step, **layout)
