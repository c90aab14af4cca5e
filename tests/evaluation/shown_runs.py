"""Small runs as the commands leave them, for a report to show."""

import json

import numpy as np

from wan_alpha.media.write import PngSequenceWriter, WebmAlphaWriter

NUM_FRAMES, HEIGHT, WIDTH = 5, 24, 32
FPS = 8.0
RED, BLUE = (255, 0, 0), (0, 0, 255)
PROMPT = "A red square </script><b>moves</b> right."


def moving_square(strip_alpha=128):
    """A red square that moves right by four pixels a frame, over a blue strip of the alpha given; clear elsewhere.

    Returns:
        (5, 24, 32, 4) uint8.
    """
    frames = np.zeros((NUM_FRAMES, HEIGHT, WIDTH, 4), np.uint8)
    frames[:, 18:] = (*BLUE, strip_alpha)
    for number, frame in enumerate(frames):
        frame[4:12, 4 + 4 * number : 12 + 4 * number] = (*RED, 255)
    return frames


def write_generated(folder, frames, seed=0, prompt=PROMPT):
    """A clip as `generate` writes it, as far as a report reads it."""
    folder.mkdir(parents=True)
    for writer in (PngSequenceWriter(folder / "frames"), WebmAlphaWriter(folder / "video.webm", FPS)):
        with writer:
            writer.write(frames)
    settings = {"recipe": {"prompt": prompt, "seed": seed, "fps": FPS, "num_steps": 4}, "environment": {"torch": "2"}}
    (folder / "settings.json").write_text(json.dumps(settings))


def write_training(folder, learning_rate, loss, steps=20):
    """The files of a training run beside its checkpoints."""
    folder.mkdir(parents=True)
    (folder / "recipe.json").write_text(json.dumps({"training": {"learning_rate": learning_rate}, "seed": 0}))
    (folder / "environment.json").write_text(json.dumps({"python": "3.11"}))
    rows = [{"step": step, "loss": loss / step, "learning_rate": learning_rate} for step in range(1, steps + 1)]
    rows[0]["initial_validation_alpha_psnr"] = 7.0
    rows[-1] |= {"validation_alpha_psnr": 21.5, "validation_rgb_psnr": 26.0, "validation_alpha_mae": 6.0}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_runs(root):
    """Two runs with a clip and a training each, and the folder of the true clip; returns the three."""
    true = moving_square()
    (root / "true").mkdir()
    with PngSequenceWriter(root / "true" / "000_a_red_square") as writer:
        writer.write(true)
    for run, strip_alpha in (("first", 128), ("second", 228)):
        write_generated(root / run / "000_a_red_square", moving_square(strip_alpha), seed=int(run == "second"))
        write_training(root / run / "stage1", 1e-4 if run == "first" else 2e-4, 1.0 if run == "first" else 2.0)
    return root / "first", root / "second", root / "true"
