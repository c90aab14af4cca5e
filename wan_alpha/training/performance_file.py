"""Reading ``performance.json``, checked before anything is computed with it."""

import json
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from wan_alpha.errors import DataError

PERFORMANCE_FILE = "performance.json"
FORMAT = 2  # 1 had no seconds of a unit, and did not say what its memory is


class RecordedStage(BaseModel):
    """A stage, as ``performance.Stage.as_dict`` wrote it."""

    times: int = Field(ge=1)
    count: int = Field(ge=1)
    unit: str
    samples: int = Field(ge=1)
    total_seconds: float = Field(ge=0, allow_inf_nan=False)
    memory_bytes: int = Field(ge=0)
    memory_is: str
    seconds_per_unit: float = Field(ge=0, allow_inf_nan=False)
    deviation_per_unit: float = Field(ge=0, allow_inf_nan=False)


class RecordedPerformance(BaseModel):
    """A whole record."""

    command: str
    hardware: dict[str, str]
    stages: dict[str, RecordedStage]


def read_performance(path):
    """The content of a ``performance.json``, or of the one in a run's folder, as :class:`RecordedPerformance` has it.

    Raises:
        DataError: none there, or not one of these; the field that is missing or wrong is named.
    """
    path = Path(path)
    path = path / PERFORMANCE_FILE if path.is_dir() else path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: there is no performance record ({error.strerror})") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a performance record ({error})") from error
    if not isinstance(content, dict) or "format" not in content:
        raise DataError(f"{path}: expected a performance record, found another file")
    if content["format"] != FORMAT:
        raise DataError(
            f"{path}: expected a performance record of format {FORMAT}, found {content['format']!r}: "
            "another version wrote it"
        )
    try:
        return RecordedPerformance.model_validate(content).model_dump()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(f"{path}: {where}: {first['msg']}; the record is not whole: run the command again") from error
