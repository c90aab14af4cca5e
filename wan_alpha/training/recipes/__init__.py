"""The recipe of each command, one class each. Light on purpose: the command line builds its options from these."""

from wan_alpha.training.recipes.adapters import ConvertAdapterRecipe, MergeRecipe
from wan_alpha.training.recipes.checkpoints import ExportCheckpointRecipe
from wan_alpha.training.recipes.demo import DemoRecipe
from wan_alpha.training.recipes.dit import (
    ADAPTER_TARGETS,
    AdapterSettings,
    CacheData,
    CacheModel,
    CacheRecipe,
    ObjectiveSettings,
    PreviewSettings,
    TextualInversionSettings,
    TrainDiTModel,
    TrainDiTRecipe,
    TrainDiTSettings,
)
from wan_alpha.training.recipes.files import InspectRecipe
from wan_alpha.training.recipes.generate import GenerateModel, GenerateRecipe
from wan_alpha.training.recipes.judging import EvaluateRecipe, ReportRecipe, UiRecipe
from wan_alpha.training.recipes.media import ConvertRecipe, DoctorRecipe, PrepareRecipe, ProbeRecipe
from wan_alpha.training.recipes.overview import PerfRecipe, PresetsRecipe
from wan_alpha.training.recipes.planning import PlanRecipe
from wan_alpha.training.recipes.shared import (
    Background,
    BucketSettings,
    ClipData,
    DatasetSettings,
    FormatName,
    LimitSettings,
    RGBAVAEModel,
    WanSource,
)
from wan_alpha.training.recipes.vae import LossSettings, TrainVAEData, TrainVAEModel, TrainVAERecipe, ValidateVAERecipe

__all__ = [
    "ADAPTER_TARGETS",
    "AdapterSettings",
    "Background",
    "BucketSettings",
    "CacheData",
    "CacheModel",
    "CacheRecipe",
    "ClipData",
    "ConvertAdapterRecipe",
    "ConvertRecipe",
    "DatasetSettings",
    "DemoRecipe",
    "DoctorRecipe",
    "EvaluateRecipe",
    "ExportCheckpointRecipe",
    "FormatName",
    "GenerateModel",
    "GenerateRecipe",
    "InspectRecipe",
    "LimitSettings",
    "LossSettings",
    "MergeRecipe",
    "ObjectiveSettings",
    "PerfRecipe",
    "PlanRecipe",
    "PrepareRecipe",
    "PresetsRecipe",
    "PreviewSettings",
    "ProbeRecipe",
    "RGBAVAEModel",
    "ReportRecipe",
    "TextualInversionSettings",
    "TrainDiTModel",
    "TrainDiTRecipe",
    "TrainDiTSettings",
    "TrainVAEData",
    "TrainVAEModel",
    "TrainVAERecipe",
    "UiRecipe",
    "ValidateVAERecipe",
    "WanSource",
]
