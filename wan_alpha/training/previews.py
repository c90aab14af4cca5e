"""What a model makes of the same clips or captions again and again while it is trained, to look at."""

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from wan_alpha.alpha.composite import checkerboard
from wan_alpha.media.png_codec import encode_png
from wan_alpha.training.agreement import on_main
from wan_alpha.training.device import autocast
from wan_alpha.training.sharding import is_sharded
from wan_alpha.training.validation import averaged_for

PREVIEWS_FOLDER = "previews"
NUM_COLUMNS = 5
_PLAIN = {"black": 0, "white": 255, "magenta": (255, 0, 255)}


def preview_strip(frames):
    """A picture of an RGBA clip: rows over a checkerboard, black, white and magenta, and alpha; columns in time.

    Args:
        frames: straight, (T, H, W, 4) uint8.

    Returns:
        (5*H, columns*W, 3) uint8, at most five columns, from the first frame to the last.
    """
    chosen = frames[np.linspace(0, len(frames) - 1, min(NUM_COLUMNS, len(frames))).round().astype(int)]
    alpha = chosen[..., 3:].astype(np.float32) / 255
    height, width = chosen.shape[1:3]
    board = checkerboard(height, width).reshape(3, height, width).permute(1, 2, 0).numpy()
    plates = [(board + 1) * 127.5, *(np.float32(np.broadcast_to(color, 3)) for color in _PLAIN.values())]
    rows = [(alpha * chosen[..., :3] + (1 - alpha) * plate).round().astype(np.uint8) for plate in plates]
    rows.append(np.repeat(chosen[..., 3:], 3, axis=-1))
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows])


@contextmanager
def untouched_randomness(device):
    """Within, random numbers may be drawn; after, the generators are where they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


@dataclass
class Previews:
    """Makes previews at steps of ``preview_every``, in the first process, or in all with the weights in shards.

    Attributes:
        make: (module) -> name -> (T, H, W, 4) uint8 straight RGBA frames, or None for none.
        module, average, accelerator, settings, progress: of the run; output_dir: its folder.
        trackers: a Trackers.
    """

    make: object
    module: torch.nn.Module
    average: object
    accelerator: object
    settings: object
    progress: object
    output_dir: Path
    trackers: object

    def run(self, step, is_last):
        """Make those of a step, if it is one of theirs; the last one is."""
        every = self.settings.preview_every
        if self.make is None or every is None or (step % every and not is_last):
            return
        with untouched_randomness(self.accelerator.device):
            on_main(self.accelerator, self._run, step, by_all=is_sharded(self.module))

    def _run(self, step):
        self.module.eval()
        with (
            averaged_for("validation", self.average, self.settings),
            torch.no_grad(),
            autocast(self.accelerator.device, self.settings.precision),
        ):
            clips = self.make(self.module)
        self.module.train()
        if not self.accelerator.is_main_process:
            return
        folder = self.output_dir / PREVIEWS_FOLDER / f"step_{step:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        strips = {name: preview_strip(frames) for name, frames in clips.items()}
        for name, strip in strips.items():
            (folder / f"{name}.png").write_bytes(encode_png(strip))
        self.trackers.show({f"preview/{name}": strip for name, strip in strips.items()}, step)
        self.progress.say(f"previews at step {step}: {folder}")
