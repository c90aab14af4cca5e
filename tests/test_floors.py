"""The house rules that a reader relies on: which room may import which, and where dangerous calls may stand."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "wan_alpha"

# From the ground up. A module may import its own room and any room on a floor below, never a neighbour or upwards.
FLOORS = (
    ("errors",),
    ("alpha",),
    ("media", "losses", "metrics", "weights"),
    ("data", "models"),
    ("training",),
    ("stages", "inference", "evaluation"),
    ("demo",),
    ("cli",),
    ("data_tools", "examples"),
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

# The perceptual network's weights are a weight file like any other, and weight files are read in one room only.
# A preview of stage 2 is a clip that is sampled as any other.
NEIGHBOURS_THAT_MAY = {("losses", "weights"), ("stages", "inference")}

# Whoever needs one of these asks the rooms that have it.
ONLY_IN = {
    "subprocess": ("media",),
    "imageio_ffmpeg": ("media",),
    "av": ("media",),
    "pickle": ("weights",),
    "diffsynth.models": ("models",),
    "diffsynth.pipelines": ("models",),
    "accelerate": ("training",),
    "peft": ("models",),
    "gradio": ("cli",),
}

# Cleaning up half-written files, then raising again: an interrupt must not leave them behind either.
BROAD_EXCEPT_ALLOWED_IN = ("media",)
BROAD = {"Exception", "BaseException"}
UNPICKLING_ALLOWED_IN = "wan_alpha/weights/io.py"


def sources():
    """(path from the root, room, parsed module) of every module that is under the rules."""
    for folder in (PACKAGE, "data_tools", "examples"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            relative = path.relative_to(ROOT)
            yield relative.as_posix(), room_of(relative), ast.parse(path.read_text(encoding="utf-8"))


def room_of(relative):
    """The room of a file: the folder under the package, or the folder of scripts; None for the package's front door."""
    parts = relative.with_suffix("").parts
    room = parts[1] if parts[0] == PACKAGE else parts[0]
    return None if room == "__init__" else room


def imported_modules(tree, package):
    """(line, dotted name) of everything a module imports, at any depth, by statement or by the name of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{stem}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and is_room_name(node.value):
            yield node.lineno, node.value


def is_room_name(text):
    parts = text.split(".")
    return len(parts) > 2 and parts[0] == PACKAGE and parts[1] in FLOOR_OF and all(map(str.isidentifier, parts))


def floor_offences(path, room, tree):
    """What a module imports that its floor forbids, one sentence each."""
    for line, name in imported_modules(tree, Path(path).parent.parts):
        parts = name.split(".")
        if parts[0] in ("data_tools", "examples"):
            target = parts[0]
        elif parts[0] == PACKAGE and len(parts) > 1:
            target = parts[1]
        else:
            continue
        if target == room or (room, target) in NEIGHBOURS_THAT_MAY:
            continue
        if target not in FLOOR_OF:
            # A public name: it comes through the front door, above every room of the package.
            if FLOOR_OF[room] < len(FLOORS) - 1:
                yield f"{path}:{line}: {room} imports {name} through the package's front door"
        elif FLOOR_OF[target] >= FLOOR_OF[room]:
            yield f"{path}:{line}: {room} imports {target} ({name})"


def only_in_offences(path, room, tree):
    for line, name in imported_modules(tree, Path(path).parent.parts):
        for guarded, rooms in ONLY_IN.items():
            if f"{name}.".startswith(f"{guarded}.") and room not in rooms:
                yield f"{path}:{line}: {room} imports {name}, which belongs to {', '.join(rooms)}"


def unpickling_offences(path, _room, tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "torch" and any(a.name == "load" for a in node.names):
            yield f"{path}:{node.lineno}: torch.load under another name"
        if not isinstance(node, ast.Call) or ast.unparse(node.func) != "torch.load":
            continue
        if path != UNPICKLING_ALLOWED_IN:
            yield f"{path}:{node.lineno}: torch.load outside {UNPICKLING_ALLOWED_IN}"
        options = {option.arg: option.value for option in node.keywords}
        safe = options.get("weights_only")
        if not (isinstance(safe, ast.Constant) and safe.value is True):
            yield f"{path}:{node.lineno}: torch.load without weights_only=True"


def broad_except_offences(path, room, tree):
    for node in ast.walk(tree):
        suppressed = ()
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
            suppressed = [ast.unparse(argument) for argument in node.args]
        if BROAD & set(suppressed):
            yield f"{path}:{node.lineno}: suppresses every exception"
        if not isinstance(node, ast.ExceptHandler):
            continue
        kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        if not BROAD & {ast.unparse(kind) if kind else "BaseException" for kind in kinds}:
            continue
        raises_again = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
        if room not in BROAD_EXCEPT_ALLOWED_IN or not raises_again:
            yield f"{path}:{node.lineno}: catches every exception"


def remote_code_offences(path, _room, tree):
    """The option may be written out as False, which keeps transformers from asking; nothing else may name it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant) and node.value.value is False:
            continue
        names = [getattr(node, field, None) for field in ("arg", "id", "attr", "value")]
        if "trust_remote_code" in names:
            yield f"{path}:{node.lineno}: trust_remote_code"


RULES = [floor_offences, only_in_offences, unpickling_offences, broad_except_offences, remote_code_offences]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_module_keeps_the_rule(rule):
    offences = [offence for path, room, tree in sources() if room is not None for offence in rule(path, room, tree)]
    assert not offences, "\n" + "\n".join(offences)


def test_every_room_stands_on_a_floor():
    rooms = {room for _, room, _ in sources() if room is not None}
    assert rooms == set(FLOOR_OF)


def test_the_front_door_names_modules_that_exist():
    tree = ast.parse((ROOT / PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    named = [name for _, name in imported_modules(tree, (PACKAGE,)) if name.startswith(f"{PACKAGE}.")]
    assert named and all((ROOT / f"{name.replace('.', '/')}.py").is_file() for name in named)


# What each rule must see: (rule, path, source, number of offences).
CASES = [
    (floor_offences, "wan_alpha/alpha/x.py", "from wan_alpha.models.wan import load_wan", 1),
    (floor_offences, "wan_alpha/alpha/x.py", "def f():\n    import wan_alpha.media.read", 1),
    (floor_offences, "wan_alpha/alpha/x.py", "from ..media import read", 1),
    (floor_offences, "wan_alpha/alpha/x.py", "from . import masks\nfrom .masks import y", 0),
    (floor_offences, "wan_alpha/alpha/x.py", "from wan_alpha import models", 1),
    (floor_offences, "wan_alpha/stages/x.py", "from wan_alpha import RGBAlphaVAE", 1),
    (floor_offences, "examples/x.py", "from wan_alpha import RGBAlphaVAE", 0),
    (floor_offences, "wan_alpha/data/x.py", "from wan_alpha.models import wan", 1),
    (floor_offences, "wan_alpha/models/x.py", "from wan_alpha.data import manifest", 1),
    (floor_offences, "wan_alpha/metrics/x.py", "from wan_alpha.weights.io import load_state_dict", 1),
    (floor_offences, "wan_alpha/losses/x.py", "from wan_alpha.weights.io import load_state_dict", 0),
    (floor_offences, "wan_alpha/training/x.py", 'import_module("wan_alpha.stages.stage2_dit")', 1),
    (floor_offences, "wan_alpha/training/x.py", "from wan_alpha.data import sampling\nimport torch", 0),
    (floor_offences, "wan_alpha/models/x.py", "from examples.train import main", 1),
    (only_in_offences, "wan_alpha/data/x.py", "import subprocess", 1),
    (only_in_offences, "wan_alpha/data/x.py", "from diffsynth.models.wan_video_vae import VideoVAE_", 1),
    (only_in_offences, "wan_alpha/data/x.py", "from diffsynth.core.data.operators import DataProcessingOperator", 0),
    (only_in_offences, "wan_alpha/media/x.py", "from subprocess import run", 0),
    (unpickling_offences, "wan_alpha/data/x.py", "import torch\ntorch.load(p, weights_only=True)", 1),
    (unpickling_offences, "examples/x.py", "import torch\ntorch.load(p, weights_only=True)", 1),
    (unpickling_offences, "wan_alpha/weights/io.py", "import torch\ntorch.load(p)", 1),
    (unpickling_offences, "wan_alpha/weights/io.py", "import torch\ntorch.load(p, weights_only=False)", 1),
    (unpickling_offences, "wan_alpha/weights/io.py", "import torch\ntorch.load(p, weights_only=True)", 0),
    (unpickling_offences, "wan_alpha/weights/io.py", "from torch import load", 1),
    (broad_except_offences, "wan_alpha/data/x.py", "try:\n    f()\nexcept:\n    raise", 1),
    (broad_except_offences, "wan_alpha/data/x.py", "try:\n    f()\nexcept (OSError, Exception):\n    pass", 1),
    (broad_except_offences, "wan_alpha/data/x.py", "with contextlib.suppress(Exception):\n    f()", 1),
    (broad_except_offences, "wan_alpha/data/x.py", "try:\n    f()\nexcept OSError:\n    pass", 0),
    (broad_except_offences, "wan_alpha/media/x.py", "try:\n    f()\nexcept BaseException:\n    g()\n    raise", 0),
    (broad_except_offences, "wan_alpha/media/x.py", "try:\n    f()\nexcept BaseException:\n    g()", 1),
    (remote_code_offences, "wan_alpha/models/x.py", "f(p, trust_remote_code=True)", 1),
    (remote_code_offences, "wan_alpha/models/x.py", 'f(p, **{"trust_remote_code": True})', 1),
    (remote_code_offences, "wan_alpha/models/x.py", 'f(p, **{"trust_remote_code": False})', 1),
    (remote_code_offences, "wan_alpha/models/x.py", "f(p, trust_remote_code=0)", 1),
    (remote_code_offences, "wan_alpha/models/x.py", "f(p, trust_remote_code=chosen)", 1),
    (remote_code_offences, "wan_alpha/models/x.py", "f(p, trust_remote_code=False)", 0),
]


@pytest.mark.parametrize(("rule", "path", "source", "num_offences"), CASES)
def test_the_rules_see_what_they_forbid(rule, path, source, num_offences):
    assert len(list(rule(path, room_of(Path(path)), ast.parse(source)))) == num_offences


def test_alpha_losses_and_metrics_import_light():
    """Every module of the three rooms in one fresh interpreter: none of the big frameworks comes along."""
    modules = [
        path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for path, room, _ in sources()
        if room in ("alpha", "losses", "metrics")
    ]
    script = (
        "import importlib, json, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    loaded = json.loads(done.stdout)
    assert PACKAGE in loaded and "torch" in loaded
    assert not {"diffsynth", "accelerate", "peft", "transformers"} & set(loaded)
