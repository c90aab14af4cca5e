"""A clip as RGBA PNGs and a preview: the package's writers, and one thread that fills a zip with Pillow's PNGs.

    python tests/benchmarks/bench_write.py --num_frames 81 --height 480 --width 832
    python tests/benchmarks/bench_write.py --memory 81,2000 --height 480 --width 832

The second line writes clips of those lengths, each in a process of its own, and prints the most memory that it took.
"""

import argparse
import io
import os
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

import wan_alpha
from wan_alpha.media.formats import FORMATS
from wan_alpha.media.outputs import ClipOutputs
from wan_alpha.media.read import read_rgba
from wan_alpha.media.write import PreviewWriter

sys.path.append(str(Path(__file__).parents[1]))  # the folder of the tests
import processes

LEMUR = Path(wan_alpha.__file__).parent / "assets" / "media" / "lemur_cutout.png"
CHUNK = 4  # frames a decoder hands over at a time


@dataclass(frozen=True)
class Timed:
    """One way: seconds by the clock and of all cores, megabytes of PNGs, and the frames that can be read back."""

    name: str
    seconds: float
    cpu_seconds: float
    megabytes: float
    frames: np.ndarray


def pan(num_frames, height, width):
    """Yield chunks of a camera pan over a real cutout with fur, (T, H, W, 4) uint8 straight RGBA."""
    scale = max((height + 40) / 440, (width + 60) / 680)
    still = Image.open(LEMUR).convert("RGBA")
    large = np.asarray(still.resize((round(680 * scale), round(440 * scale)), Image.Resampling.BICUBIC))
    room = (large.shape[0] - height, large.shape[1] - width)
    for start in range(0, num_frames, CHUNK):
        places = [
            (room[0] * (t % 81) // 81, room[1] * (t % 81) // 81) for t in range(start, min(start + CHUNK, num_frames))
        ]
        yield np.stack([large[top : top + height, left : left + width] for top, left in places])


def write_here(folder, chunks, formats=("png", "preview")):
    """The package's way, PNGs by all cores while ffmpeg makes the preview."""
    chosen = [FORMATS[name] for name in formats]
    with ClipOutputs([(folder / one.clip_name, one) for one in chosen], 16) as outputs:
        for frames in chunks:
            outputs.write(frames)
    return outputs


def write_plainly(folder, chunks, with_preview):
    """The plain way: each frame saved by Pillow with its defaults, into a deflated zip, one after the other."""
    preview = PreviewWriter(folder / "preview.mp4", 16) if with_preview else None
    with zipfile.ZipFile(folder / "frames.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        number = 0
        for frames in chunks:
            for frame in frames:
                stored = io.BytesIO()
                Image.fromarray(frame).save(stored, format="PNG")
                archive.writestr(f"{number:05d}.png", stored.getvalue())
                number += 1
            if preview is not None:
                preview.write(frames)
    if preview is not None:
        preview.close()


def compare(num_frames, height, width, repeats=1):
    """The two ways, the plain one first without and then with a preview; the fastest run of each counts."""
    chunks = list(pan(num_frames, height, width))
    ways = {
        "zip, one thread, no preview": lambda folder: write_plainly(folder, chunks, False),
        "zip, one thread, and preview": lambda folder: write_plainly(folder, chunks, True),
        "wan_alpha, PNGs and preview": lambda folder: write_here(folder, chunks),
        "wan_alpha, zip and preview": lambda folder: write_here(folder, chunks, ("zip", "preview")),
    }
    timed = []
    for name, write in ways.items():
        runs = []
        for _ in range(repeats):
            with tempfile.TemporaryDirectory() as folder:
                start, cpu = time.perf_counter(), _cpu_seconds()
                write(Path(folder))
                runs.append((time.perf_counter() - start, _cpu_seconds() - cpu))
                frames, size = _read_back(Path(folder))
        timed.append(Timed(name, *min(runs), size / 1e6, frames))
    return timed


def _cpu_seconds():
    """Of this process and of those that it waited for: a busy machine changes them less than the clock."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def _read_back(folder):
    if (folder / "frames").is_dir():
        files = sorted((folder / "frames").iterdir())
        return read_rgba(folder / "frames"), sum(file.stat().st_size for file in files)
    with zipfile.ZipFile(folder / "frames.zip") as archive:
        frames = [np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in sorted(archive.namelist())]
    return np.stack(frames), (folder / "frames.zip").stat().st_size


def peak_memory(num_frames, height, width):
    """MiB that a process of its own takes at most: (Python's, the largest of its ffmpeg processes). Linux only."""
    size = ["--height", height, "--width", width]
    own, children = map(
        float, processes.run_alone(__file__, "--only_memory", "--num_frames", num_frames, *size).split()
    )
    return own, children


def measure(num_frames, height, width):
    """Write and read back the clip as PNGs and preview, and print the peaks."""
    children = [0.0]
    with tempfile.TemporaryDirectory() as folder:
        outputs = write_here(Path(folder), _watched(pan(num_frames, height, width), children), ("png", "preview"))
        outputs.verify()
    print(processes.peak_memory(), max(children))


def _watched(chunks, peaks):
    """Pass chunks on, and note each time, and at their end, what the child processes have taken at most."""
    for frames in chunks:
        yield frames
        peaks += _children_peaks()
    deadline = time.monotonic() + 10
    while max(peaks) < 2 and time.monotonic() < deadline:  # a short clip is fed before ffmpeg has begun
        time.sleep(0.05)
        peaks += _children_peaks()


def _children_peaks():
    return [processes.peak_memory(child) for child in processes.child_processes()]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--num_frames", type=int, default=81, help="frames")
    parser.add_argument("--height", type=int, default=480, help="pixels")
    parser.add_argument("--width", type=int, default=832, help="pixels")
    parser.add_argument("--repeats", type=int, default=1, help="timed runs of each way; the fastest counts")
    parser.add_argument("--memory", default="", help="lengths in frames, with commas: measure memory instead of time")
    parser.add_argument("--only_memory", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    size = (options.height, options.width)
    if options.only_memory:
        measure(options.num_frames, *size)
        return
    if options.memory:
        for num_frames in map(int, options.memory.split(",")):
            own, children = peak_memory(num_frames, *size)
            print(f"{num_frames:5d} frames of {size[1]}x{size[0]}: {own:.0f} MiB, and ffmpeg {children:.0f} MiB")
        return
    timed = compare(options.num_frames, *size, options.repeats)
    print(f"{options.num_frames} frames of {size[1]}x{size[0]}, {os.cpu_count()} cores")
    for way in timed:
        ratios = ", ".join(f"{timed[index].seconds / way.seconds:.2f}" for index in (0, 1))
        figures = f"{way.seconds:7.2f} s, {way.cpu_seconds:6.2f} s of CPU, {way.megabytes:6.1f} MB of PNGs"
        print(f"{way.name:30s} {figures}; times faster than the zips: {ratios}")


if __name__ == "__main__":
    main()
