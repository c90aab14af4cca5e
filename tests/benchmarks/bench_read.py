"""Dataset clips per second out of pairs: this package, and the plain way (imageio, PIL); memory of long files.

    python tests/benchmarks/bench_read.py              # "times faster": than the plain way in one process
    python tests/benchmarks/bench_read.py --memory     # peak memory while 81 and 2000 frames are read

The plain way opens each stream with imageio, counts its frames, gets 17 of them one by one and resizes each with PIL.
Both go through the loader that training uses: in this process, and in two processes as the presets have it.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import imageio
import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader

from wan_alpha.data.clips import describe_clip
from wan_alpha.data.dataset import RGBAVideoDataset, collate
from wan_alpha.data.manifest import Row
from wan_alpha.data.operators import LoadRGBAVideoPair
from wan_alpha.data.sampling import choose_frames, seeded_generator
from wan_alpha.media.read import iter_frames
from wan_alpha.media.write import MatteWriter, OpaqueWriter

sys.path.append(str(Path(__file__).parents[1]))  # the folder of the tests
import processes


@dataclass
class Loaded:
    """What a way gave for the last clip, and took for all: wall seconds, and CPU seconds with its processes'."""

    name: str
    num_workers: int
    rgba: Tensor
    seconds: float
    cpu_seconds: float


def make_pairs(folder, count, num_frames, height, width, crf):
    """Rows of h264 pairs: a soft disc that wanders over smooth moving colours with a little grain."""
    rows = []
    y, x = np.mgrid[:height, :width].astype(np.float32)
    for number in range(count):
        grain = np.random.default_rng(number).normal(0, 4, (height, width, 3)).astype(np.float32)
        files = folder / f"{number}_rgb.mp4", folder / f"{number}_alpha.mp4"
        with OpaqueWriter(files[0], crf=crf) as colours, MatteWriter(files[1]) as mattes:
            for t in range(num_frames):
                frame = np.empty((1, height, width, 4), np.uint8)
                waves = np.stack(
                    [np.sin(x / 40 + t / 5), np.cos(y / 30 - t / 7), np.sin((x + y) / 60 + number)], axis=-1
                )
                frame[0, ..., :3] = np.clip(128 + 90 * waves + np.roll(grain, 2 * t, axis=1), 0, 255)
                distance = np.hypot(y - height / 2, x - width / 2 - width / 6 * np.sin(t / 10))
                frame[0, ..., 3] = np.clip((height / 3 - distance) * 20 + 128, 0, 255)
                colours.write(frame)
                mattes.write(frame)
        rows.append(Row(number + 1, *files))
    return rows


class PlainPair:
    """What LoadRGBAVideoPair loads, the plain way: one frame at a time, colour and matte one after the other."""

    def __init__(self, num_frames, height, width):
        self.num_frames, self.height, self.width = num_frames, height, width

    def __call__(self, data):
        row, info = data["row"], describe_clip(data["row"])
        indices = choose_frames(info, self.num_frames, "random", seeded_generator(data["sample_seed"], "clip"))
        colours, mattes = (self._read(path, indices) for path in row.files)
        rgb = colours.permute(3, 0, 1, 2).float() / 127.5 - 1
        return {"rgb": rgb, "alpha": mattes[..., :1].permute(3, 0, 1, 2).float() / 255}

    def _read(self, path, indices):
        reader = imageio.get_reader(path)
        assert indices[-1] < reader.count_frames()
        frames = []
        for index in indices:
            frame = Image.fromarray(reader.get_data(index))
            scale = max(self.width / frame.width, self.height / frame.height)
            frame = frame.resize((round(frame.width * scale), round(frame.height * scale)), Image.BILINEAR)
            left, top = (frame.width - self.width) // 2, (frame.height - self.height) // 2
            frames.append(np.asarray(frame.crop((left, top, left + self.width, top + self.height))))
        reader.close()
        return torch.from_numpy(np.stack(frames))


def cpu_seconds():
    """CPU seconds of this process and of all that it started; those of ended ones once they are waited for."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    seconds = sum(usage.ru_utime + usage.ru_stime for usage in used)
    for process in processes.child_processes():
        fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
        seconds += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return seconds


def batches(dataset, num_workers):
    """One clip a batch, epoch after epoch; the processes live on. Each epoch has other frames of the same clips."""
    loader = DataLoader(dataset, collate_fn=collate, num_workers=num_workers, persistent_workers=num_workers > 0)
    epoch = 0
    while True:
        dataset.set_epoch(epoch)
        yield loader
        epoch += 1


def compare(rows, num_frames, size, rounds=1, num_workers=(0, 2)):
    """Both ways over the same frames in turn, `rounds` times after one that is not timed; each way's fastest counts.

    Returns:
        [Loaded], the plain way in this process first.
    """
    operators = {
        "imageio and PIL": PlainPair(num_frames, *size),
        "wan_alpha": LoadRGBAVideoPair(num_frames=num_frames, height=size[0], width=size[1], mode="random"),
    }
    best = {}
    ways = [(name, workers) for workers in num_workers for name in operators]
    loaders = {way: batches(RGBAVideoDataset(rows, operators[way[0]]), way[1]) for way in ways}
    for timed in range(rounds + 1):
        for name, workers in ways:
            loader = next(loaders[name, workers])
            wall, cpu = time.perf_counter(), cpu_seconds()
            for batch in loader:
                pass
            seconds, used = time.perf_counter() - wall, cpu_seconds() - cpu
            if timed == 0:
                continue
            rgba = torch.cat([batch["rgb"][0] / 2 + 0.5, batch["alpha"][0]])
            took = Loaded(name, workers, rgba, seconds, used)
            kept = best.setdefault((name, workers), took)
            kept.rgba = rgba
            kept.seconds = min(kept.seconds, took.seconds)
            kept.cpu_seconds = min(kept.cpu_seconds, took.cpu_seconds)
    return list(best.values())


def print_speed(title, ways, num_clips):
    table = Table(title=title)
    for heading in ("way", "loading processes", "clips/s", "times faster", "CPU s per clip", "times less CPU"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for way in ways:
        table.add_row(
            way.name, str(way.num_workers), f"{num_clips / way.seconds:.2f}", f"{ways[0].seconds / way.seconds:.2f}",
            f"{way.cpu_seconds / num_clips:.3f}", f"{ways[0].cpu_seconds / way.cpu_seconds:.2f}",
        )  # fmt: skip
    Console(width=120).print(table)


def read_all(path):
    """Read a whole file frame by frame; prints frames, and peak memory in MB of this process and of ffmpeg."""
    count, ffmpeg_peak = 0, 0
    for _ in iter_frames(path):
        count += 1
        if count % 20 == 0:
            ffmpeg_peak = max([ffmpeg_peak, *map(processes.peak_memory, processes.child_processes())])
    print(f"{count} {processes.peak_memory():.0f} {ffmpeg_peak:.0f}")


def print_memory(height, width):
    table = Table(title=f"Peak memory while a file of {width}x{height} is read, MB (RSS)")
    for heading in ("frames", "Python", "ffmpeg"):
        table.add_column(heading, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        for num_frames in (81, 2000):
            path = Path(folder) / f"{num_frames}.mp4"
            with OpaqueWriter(path, crf=30) as writer:
                for t in range(num_frames):
                    writer.write(np.full((1, height, width, 3), t % 256, np.uint8))
            table.add_row(*processes.run_alone(__file__, "--read", path).split())
    Console(width=120).print(table)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=4, help="pairs")
    parser.add_argument("--length", type=int, default=81, help="frames of each pair")
    parser.add_argument("--num_frames", type=int, default=17, help="frames read of each, from a random one on")
    parser.add_argument("--rounds", type=int, default=4, help="times; each way's fastest counts")
    parser.add_argument("--crf", type=int, default=20, help="quality of the colour videos, x264")
    parser.add_argument("--memory", action="store_true", help="measure memory instead")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        read_all(options.read)
        return
    if options.memory:
        print_memory(480, 832)
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = make_pairs(Path(folder), options.clips, options.length, 480, 832, options.crf)
        megabytes = sum(file.stat().st_size for row in rows for file in row.files) / 1e6 / len(rows)
        for size in ((272, 272), (480, 832)):
            ways = compare(rows, options.num_frames, size, options.rounds)
            load = os.getloadavg()[0]
            pairs = f"480x832 pairs of {megabytes:.1f} MB"
            title = f"{options.num_frames} of {options.length} frames, {pairs}, to {size[0]}x{size[1]}"
            print_speed(f"{title}, {os.cpu_count()} cores, load {load:.1f}", ways, len(rows))


if __name__ == "__main__":
    main()
