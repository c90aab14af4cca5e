"""What a user can get wrong. Each message says what, where, and what would be right."""


class WanAlphaError(Exception):
    """Base of every error that is reported to a user as one clear message instead of a traceback."""


class ConfigError(WanAlphaError, ValueError):
    """A recipe, an option or a combination of them that cannot work."""


class DataError(WanAlphaError, ValueError):
    """A media file, dataset row or cache item that is not what it should be."""


class CheckpointError(WanAlphaError, ValueError):
    """A weight file that is not what it claims to be, or does not fit the model."""


class NonFiniteError(WanAlphaError, ArithmeticError):
    """NaN or infinity where training cannot go on."""


class RunStopped(WanAlphaError):
    """A signal ended a run, which has saved itself: nothing is wrong, the same command continues it."""
