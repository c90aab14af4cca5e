"""Builds caches as one of several processes; started by forked_job.py. Arguments: folder of reports, recipe files."""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from wan_alpha.data import digests
from wan_alpha.errors import WanAlphaError
from wan_alpha.stages.cache_latents import build_cache
from wan_alpha.training.config import load_recipe
from wan_alpha.training.recipes import CacheRecipe

hashed = []
original = digests.file_sha256


def record(path, callback=None):
    hashed.append(path.name)
    return original(path, callback)


def times(folder):
    return {
        path.name: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in (".safetensors", ".json")
    }


digests.file_sha256 = record
reports = []
for file in sys.argv[2:]:
    recipe = load_recipe(CacheRecipe, file)
    hashed.clear()
    try:
        report = asdict(build_cache(recipe))
    except WanAlphaError as error:
        report = {"error": str(error)}
    # No process writes before the first one has opened the next build.
    reports.append({**report, "hashed": list(hashed), "times": times(recipe.output_dir)})
Path(sys.argv[1], f"{os.environ['RANK']}.json").write_text(json.dumps(reports, default=str))
