"""Models that are none of Wan's, told by a few of their tensors, so that a refusal can say what a file is."""

# (name, tensors that it has, each with its number of dimensions or 0 for any). The first that fits, counts.
MARKS = (
    ("HunyuanVideo", {"double_blocks.0.img_attn_qkv.weight": 2, "double_blocks.0.txt_attn_qkv.weight": 2}),
    ("HunyuanVideo (diffusers)", {"context_embedder.token_refiner.refiner_blocks.0.norm1.weight": 0}),
    ("Flux", {"double_blocks.0.img_attn.qkv.weight": 2, "single_blocks.0.linear1.weight": 2}),
    ("Qwen-Image", {"transformer_blocks.0.img_mod.1.weight": 2}),
    ("LTX-Video", {"patchify_proj.weight": 2, "transformer_blocks.0.scale_shift_table": 0}),
    ("LTX-Video (diffusers)", {"proj_in.weight": 2, "caption_projection.linear_1.weight": 2}),
    ("Flux (diffusers)", {"single_transformer_blocks.0.attn.to_q.weight": 2, "context_embedder.weight": 2}),
    ("CogVideoX", {"mixins.patch_embed.proj.weight": 4}),
    (
        "CogVideoX (diffusers)",
        {"patch_embed.text_proj.weight": 2, "transformer_blocks.0.norm1.linear.weight": 2},
    ),
    ("Mochi", {"t5_y_embedder.to_q.weight": 2}),
    ("Stable Diffusion 3", {"joint_blocks.0.x_block.attn.qkv.weight": 2}),
    ("Stable Diffusion 3 (diffusers)", {"pos_embed.proj.weight": 4, "transformer_blocks.0.attn.add_k_proj.weight": 2}),
    ("Stable Diffusion XL", {"input_blocks.0.0.weight": 4, "label_emb.0.0.weight": 2}),
    ("Stable Diffusion", {"input_blocks.0.0.weight": 4}),
    ("Stable Diffusion XL (diffusers)", {"conv_in.weight": 4, "add_embedding.linear_1.weight": 2}),
    ("Stable Diffusion (diffusers)", {"conv_in.weight": 4, "mid_block.attentions.0.proj_in.weight": 0}),
    ("T5 encoder that is no UMT5", {"encoder.block.0.layer.0.SelfAttention.q.weight": 2}),
    ("CLIP text encoder", {"text_model.encoder.layers.0.self_attn.q_proj.weight": 2}),
    ("Llama or Qwen language model", {"model.layers.0.self_attn.q_proj.weight": 2}),
    ("HunyuanVideo's or CogVideoX's VAE", {"encoder.conv_in.conv.weight": 5, "decoder.conv_in.conv.weight": 5}),
    ("LTX-Video's VAE", {"per_channel_statistics.mean-of-means": 0}),
)  # fmt: skip
# 2-D autoencoders: name of the decoder's first convolution, (out, latent channels, 3, 3).
_IMAGE_VAES = ("decoder.conv_in.weight", "decoder.conv1.weight")
_IMAGE_VAE_OF = {
    4: "Stable Diffusion",
    8: "a Stable Diffusion relative",
    16: "Flux or Stable Diffusion 3",
    32: "Flux 2",
}
_PREFIXES = ("", "model.diffusion_model.", "diffusion_model.", "first_stage_model.", "vae.", "model.", "transformer.")


def foreign_model(tensors):
    """What a set of tensors is, if it is a model that is not Wan's: a name, or None."""
    for prefix in _PREFIXES:
        for name, marks in MARKS:
            if all(_has(tensors, prefix + key, dimensions) for key, dimensions in marks.items()):
                return name
    return None


def image_vae(tensors):
    """Which model's 2-D autoencoder a set of tensors is, with its latent channels: (name, channels), or None."""
    for prefix in _PREFIXES:
        for key in _IMAGE_VAES:
            info = tensors.get(prefix + key)
            if info is not None and len(info.shape) == 4:
                return _IMAGE_VAE_OF.get(info.shape[1], "an image model"), info.shape[1]
    return None


def _has(tensors, key, dimensions):
    return key in tensors and dimensions in (0, len(tensors[key].shape))
