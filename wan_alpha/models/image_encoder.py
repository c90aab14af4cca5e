"""The image encoder of Wan's image-to-video models, at any size and without the text half that nobody uses."""

import torch
import torchvision.transforms as transforms
from diffsynth.models.wan_video_image_encoder import VisionTransformer, WanImageEncoder
from torch import nn

from wan_alpha.errors import CheckpointError

# CLIP's own statistics (Radford et al. 2021).
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_HEAD_SIZE = 80  # of ViT-H


class _Vision(nn.Module):
    def __init__(self, visual):
        super().__init__()
        self.visual, self.image_size = visual, visual.image_size


def build_image_encoder(shapes, where):
    """diffsynth's ``WanImageEncoder`` with the vision half alone, of the size that the shapes say, on the meta device.

    Args:
        shapes: name -> shape, under Wan's names; where: the file, for messages.

    Raises:
        CheckpointError: shapes that are no such encoder's.
    """
    width, _, patch, _ = shapes["model.visual.patch_embedding.weight"]
    places = [int(name.split(".")[3]) for name in shapes if name.startswith("model.visual.transformer.")]
    positions = shapes.get("model.visual.pos_embedding")
    if not places or positions is None or width % _HEAD_SIZE:
        raise CheckpointError(f"{where}: expected CLIP's vision transformer (ViT-H/14), found a width of {width}")
    side = round((positions[1] - 1) ** 0.5)
    with torch.device("meta"):
        visual = VisionTransformer(
            image_size=side * patch, patch_size=patch, dim=width, num_heads=width // _HEAD_SIZE,
            mlp_ratio=shapes["model.visual.transformer.0.mlp.0.weight"][0] / width, num_layers=max(places) + 1,
            out_dim=shapes.get("model.visual.head", (0, 1024))[1], activation="gelu",
        )  # fmt: skip
    # diffsynth's own constructor makes the whole model at its real size, on the CPU.
    encoder = WanImageEncoder.__new__(WanImageEncoder)
    nn.Module.__init__(encoder)
    encoder.model = _Vision(visual)
    encoder.transforms = transforms.Compose([transforms.Normalize(_MEAN, _STD)])
    return encoder
