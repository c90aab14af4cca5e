"""Recipe of the demo, which runs the whole road."""

from pathlib import Path

from pydantic import Field

from wan_alpha.training.config import Device, Precision, Recipe


class DemoRecipe(Recipe):
    """Train a tiny model in both stages on this machine and generate transparent clips, in minutes."""

    output_dir: Path = Field(Path("wan_alpha_demo"), description="folder of everything it writes")
    source: Path | None = Field(None, description="folder of your own RGBA clips, to train on besides the drawn ones")
    num_clips: int = Field(96, ge=1, description="drawn clips to train on")
    num_held_out: int = Field(8, ge=1, description="drawn clips to validate on")
    vae_steps: int | None = Field(None, ge=1, description="training steps of stage 1; none = the preset tiny_stage1's")
    vae_learning_rate: float | None = Field(None, gt=0, description="peak of stage 1; none = the preset tiny_stage1's")
    dit_steps: int | None = Field(None, ge=1, description="training steps of stage 2; none = the preset tiny_stage2's")
    dit_learning_rate: float | None = Field(None, gt=0, description="peak of stage 2; none = the preset tiny_stage2's")
    device: Device = Field("auto", description="where to run")
    vae_precision: Precision = Field(
        "auto",
        description="compute type of stage 1; auto = bf16 on CUDA cards that have it, float32 elsewhere; "
        "bf16 suits CPUs with AMX",
    )
    dit_precision: Precision = Field("auto", description="compute type of stage 2; auto as above")
