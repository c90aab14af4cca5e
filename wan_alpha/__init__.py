"""Wan-Alpha: train and run video models with a real alpha channel, on top of DiffSynth-Studio.

The public names are imported on first use, so that ``import wan_alpha`` and the command line's help stay instant.
"""

import os
import sys
from importlib import import_module

# Read by torch when it is loaded: what Apple's MPS lacks runs on the CPU. Set later it would seem set and do nothing.
if "torch" not in sys.modules:
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")

_PUBLIC = {
    "LoadRGBAVideoPair": "wan_alpha.data.operators",
    "HardRenderRGBA": "wan_alpha.data.operators",
    "SoftRenderRGBA": "wan_alpha.data.operators",
    "FeatureMergeBlock": "wan_alpha.models.feature_merge",
    "RGBAlphaVAE": "wan_alpha.models.rgba_vae",
    "load_decoder_lora": "wan_alpha.models.rgba_vae",
    "RGBAReconstructionLoss": "wan_alpha.losses.reconstruction",
    "WanAlphaTrainingModule": "wan_alpha.stages.stage2_dit",
}
__all__ = [*_PUBLIC, "__version__"]
__version__ = "0.1.0"


def __getattr__(name):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'wan_alpha' has no attribute '{name}'")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__():
    return __all__
