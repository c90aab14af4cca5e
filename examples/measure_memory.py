"""Peak memory of loading known models, measured with random weights of the real sizes and written into the registry.

    python examples/measure_memory.py --model Wan2.1-T2V-1.3B --work_dir /tmp/measure [--write]

A DiT of those sizes is written to --work_dir in bf16, loaded by a process of its own, and removed again. Printed is
that process's peak less what its imports took, for each dtype; --write puts the bf16 figure into wan_models.json as
memory_gib.load. On CUDA the peak of the device is measured, elsewhere that of the process.
"""

import argparse
import json
import math
import multiprocessing
import resource
import sys
from importlib.resources import files
from pathlib import Path

GIB = 2**30
LIMIT = 1.2  # times the loaded model


def main(arguments=None):
    """Measure, print, and write if told; returns the exit code: 1 if a peak is above 1.2 times the loaded model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="name in wan_models.json, e.g. Wan2.1-T2V-1.3B")
    parser.add_argument("--work_dir", type=Path, required=True, help="folder for the weights, which are removed again")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--write", action="store_true", help="write the figure into wan_models.json")
    given = parser.parse_args(arguments)
    from wan_alpha.weights.registry import known_model

    model = known_model(given.model)
    given.work_dir.mkdir(parents=True, exist_ok=True)
    path = given.work_dir / "dit.safetensors"
    try:
        size = in_fresh_process(write_random_dit, path, model.dit)
        worst, peaks = 0.0, {}
        for dtype in ("bfloat16", "float32"):
            loaded, peak = in_fresh_process(load_and_measure, path, dtype, given.device)
            peaks[dtype], worst = peak, max(worst, peak / loaded)
            print(
                f"{model.name} DiT, file of {size:.2f} GiB in bf16, loaded in {dtype}: {loaded:.2f} GiB of weights, "
                f"peak {peak:.2f} GiB, {peak / loaded:.2f} times the model"
            )
    finally:
        path.unlink(missing_ok=True)
    if given.write:
        write_registry(model.name, peaks["bfloat16"])
    return 0 if worst <= LIMIT else 1


def in_fresh_process(function, *arguments):
    """Run in a process of its own, so that its peak is the function's."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def write_random_dit(path, sizes):
    """A DiT file in bf16 with random weights, one tensor in memory at a time; its size in GiB."""
    import torch

    from wan_alpha.models.load import dit_shapes
    from wan_alpha.weights.safetensors_stream import safetensors_stream

    shapes = dit_shapes(sizes)
    generator = torch.Generator().manual_seed(0)
    # Views of one block of noise: what is written is full, what is held is one tensor.
    noise = torch.randn(max(map(math.prod, shapes.values())), generator=generator).mul_(0.02).bfloat16()
    tensors = {name: noise[: math.prod(shape)].view(shape) for name, shape in shapes.items()}
    num_bytes, chunks = safetensors_stream(tensors, {"num_heads": str(sizes["num_heads"])})
    with open(path, "wb") as file:
        for chunk in chunks:
            file.write(chunk)
    return num_bytes / GIB


def load_and_measure(path, dtype, device):
    """(GiB of the loaded weights, GiB of the peak): every weight is touched once, so that mapped pages count too."""
    import torch

    from wan_alpha.models.load import load_dit

    dtype, before = getattr(torch, dtype), peak_gib(device)
    dit = load_dit([path], device, dtype)
    with torch.no_grad():
        touched = sum(float(parameter.flatten()[::512].sum()) for parameter in dit.parameters())
    assert math.isfinite(touched)
    loaded = sum(parameter.numel() * parameter.element_size() for parameter in dit.parameters()) / GIB
    return loaded, peak_gib(device) - before


def peak_gib(device):
    """Largest memory so far: of the CUDA device, or resident memory of this process, in GiB."""
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated() / GIB
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB


def write_registry(name, peak):
    """Put a figure into wan_models.json."""
    path = Path(str(files("wan_alpha") / "assets" / "wan_models.json"))
    text = path.read_text(encoding="utf-8")
    content = json.loads(text)
    before = json.dumps(content["models"][name]["memory_gib"]["load"])
    start = text.index(f'"{name}": {{')
    place = text.index('"load": ', start)
    path.write_text(f'{text[:place]}"load": {peak:.2f}{text[place + len(before) + 8 :]}', encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
