"""All alpha metrics of a clip: frame by frame in NumPy and OpenCV (or SciPy), and by the meter; time and memory.

python tests/benchmarks/bench_metrics.py --num_frames 81 --height 480 --width 832
"""

import argparse
import gc
import sys
import time
from pathlib import Path

import numpy as np
import torch
from plain_metrics import NAMES, library, plain_metrics
from side_by_side import print_ways, run_way

from wan_alpha.metrics.alpha_meter import AlphaMeter

sys.path.append(str(Path(__file__).parents[1]))  # the folder of the tests
import processes

CHUNK = 8


def draw_frame(index, height, width, noise, seed=0):
    """A soft disc and thin spokes that turn, and a prediction of them: shifted, softer, noisy; (H, W) float32 twice.

    Args:
        noise: standard deviation of the prediction's error, everywhere where something is predicted; 0 leaves the
            error at the edges.
    """
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    generator = np.random.default_rng((seed, index))
    mattes = []
    for shift, softness in ((2.0, 1.5), (0.0, 1.0)):
        down, across = rows - height / 2, columns - width / 2 - shift - index
        distance, angle = np.hypot(down, across), np.arctan2(down, across)
        disc = (0.3 * height - distance) / (0.02 * height * softness)
        spokes = np.cos(12 * angle + 0.1 * index) * 8 * softness - 5
        spokes = np.minimum(spokes, (0.45 * height - distance) / (0.05 * height))
        mattes.append(np.clip(np.maximum(disc, spokes), 0, 1))
    pred, alpha = mattes
    pred = np.clip(pred + noise * generator.standard_normal(pred.shape, np.float32) * (pred > 0), 0, 1)
    return tuple((np.rint(255 * matte) / 255).astype(np.float32) for matte in (pred, alpha))


def metered(clips, regions=False):
    """The meter's figures, (T, len(NAMES)); clips: (2, T, H, W), counted CHUNK frames at a time."""
    meter = AlphaMeter(regions=regions)
    for start in range(0, clips.shape[1], CHUNK):
        pred, alpha = clips[:, start : start + CHUNK]
        meter.update(pred[None, None], alpha[None, None])
    figures = meter.per_frame()["frame"]
    return torch.stack([figures[name][0] for name in NAMES], dim=-1)


def compare(num_frames, height, width, noise, repeats=1):
    """[the plain way, the meter, the meter with regions] and each one's fastest run in seconds of processor time."""
    frames = [draw_frame(index, height, width, noise) for index in range(num_frames)]
    clips = torch.from_numpy(np.stack(frames, axis=1))
    ways = {
        f"frame by frame, {library()}": lambda value: torch.from_numpy(plain_metrics(*value.detach().numpy())),
        "meter": metered,
        "meter, with regions": lambda value: metered(value, regions=True),
    }
    found, processor = [], []
    for name, way in ways.items():
        spent = []

        def timed(value, way=way, spent=spent):
            started = time.process_time()
            figures = way(value)
            spent.append(time.process_time() - started)
            return figures

        found.append(run_way(name, timed, clips, False, repeats))
        processor.append(min(spent))
    return found, processor


def peak_memory(num_frames, height, width):
    """Megabytes that a process needs to measure this many frames beyond what it had before; frames are drawn on."""
    options = ["--only_memory", "--num_frames", num_frames, "--height", height, "--width", width]
    return float(processes.run_alone(__file__, *options, timeout=3600))


def measure_memory(num_frames, height, width):
    """What `peak_memory` runs: counts drawn frames one chunk at a time and says by how many megabytes the peak grew."""
    few = torch.from_numpy(np.stack([draw_frame(index, height, width, 0.02) for index in range(CHUNK)], axis=1))
    warm = AlphaMeter()
    warm.update(*few[:, None, None, :1, :32, :32])  # what is loaded on first use is not the clip's
    gc.collect()
    # Linux: what drawing took at its peak is forgotten.
    Path("/proc/self/clear_refs").write_text("5")
    before = processes.memory_now()
    meter = AlphaMeter()
    for start in range(0, num_frames, CHUNK):
        pred, alpha = few[:, : num_frames - start].clone()
        meter.update(pred[None, None], alpha[None, None])
    meter.means()
    return processes.peak_memory() - before


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--num_frames", type=int, default=81)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=832)
    parser.add_argument("--repeats", type=int, default=1, help="timed runs of each way; the fastest counts")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (default: PyTorch's choice)")
    parser.add_argument("--only_memory", action="store_true", help="say how many megabytes the meter needs, no more")
    options = parser.parse_args()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    size = options.height, options.width
    if options.only_memory:
        print(measure_memory(options.num_frames, *size))
        return
    for noise, where in ((0.02, "errors everywhere in the subject"), (0.0, "errors at the edges")):
        ways, processor = compare(options.num_frames, *size, noise, options.repeats)
        shape = f"{options.num_frames} frames of {size[0]}x{size[1]}"
        print_ways(f"Alpha metrics, {shape}, {where}, {torch.get_num_threads()} threads", ways)
        for way, seconds in zip(ways, processor, strict=True):
            print(
                f"{way.name}: {seconds:.2f} s of processor time, {processor[0] / seconds:.2f} times less than the first"
            )
    for num_frames in (options.num_frames, 10 * options.num_frames):
        print(f"peak memory of {num_frames} frames: {peak_memory(num_frames, *size):.0f} MB beyond the program's own")


if __name__ == "__main__":
    main()
