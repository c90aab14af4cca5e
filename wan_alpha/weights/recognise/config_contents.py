"""What the JSON files of diffusers and of Wan say of each part, by the shapes of its weights."""

from wan_alpha.weights.latent_statistics import LATENT_STATISTICS
from wan_alpha.weights.recognise.folder import DIFFUSERS_FOLDERS
from wan_alpha.weights.registry import known_models

CLIP_HEAD_SIZE, CLIP_WIDTH = 80, 1280
_CLASSES = {
    "dit": ["diffusers", "WanTransformer3DModel"], "dit_low_noise": ["diffusers", "WanTransformer3DModel"],
    "text_encoder": ["transformers", "UMT5EncoderModel"], "tokenizer": ["transformers", "T5TokenizerFast"],
    "vae": ["diffusers", "AutoencoderKLWan"], "image_encoder": ["transformers", "CLIPVisionModel"],
}  # fmt: skip


def original_config(sizes, num_heads):
    kind = "i2v" if sizes["in_dim"] == 36 else "ti2v" if sizes["in_dim"] == 48 else "t2v"
    return {
        "_class_name": "WanModel", "model_type": kind, "dim": sizes["dim"], "ffn_dim": sizes["ffn_dim"],
        "in_dim": sizes["in_dim"], "out_dim": sizes["out_dim"], "num_heads": num_heads,
        "num_layers": sizes["num_layers"], "freq_dim": sizes["freq_dim"], "text_len": 512, "eps": 1e-6,
    }  # fmt: skip


def diffusers_config(sizes, num_heads):
    has_image = sizes["image_input"]
    return {
        "_class_name": "WanTransformer3DModel", "added_kv_proj_dim": sizes["dim"] if has_image else None,
        "attention_head_dim": sizes["dim"] // num_heads, "cross_attn_norm": True, "eps": 1e-6,
        "ffn_dim": sizes["ffn_dim"], "freq_dim": sizes["freq_dim"], "image_dim": 1280 if has_image else None,
        "in_channels": sizes["in_dim"], "num_attention_heads": num_heads, "num_layers": sizes["num_layers"],
        "out_channels": sizes["out_dim"], "patch_size": [1, 2, 2], "qk_norm": "rms_norm_across_heads",
        "text_dim": sizes["text_dim"],
    }  # fmt: skip


def model_index(found):
    kinds = [kind for kind in DIFFUSERS_FOLDERS if found.part(kind) is not None]
    family = known_models().get(found.families[0]) if found.families else None
    is_image = family is not None and "-I2V" in family.name
    index = {"_class_name": "WanImageToVideoPipeline" if is_image else "WanPipeline"}
    if "dit_low_noise" in kinds:
        index["boundary_ratio"] = found.boundary if found.boundary is not None else family and family.boundary
    if family is not None and family.name == "Wan2.2-TI2V-5B":
        index["expand_timesteps"] = True
    index["scheduler"] = ["diffusers", "UniPCMultistepScheduler"]
    return index | {DIFFUSERS_FOLDERS[kind]: _CLASSES[kind] for kind in kinds}


def vae_config(sizes):
    """AutoencoderKLWan's, of either Wan VAE."""
    mean, std = LATENT_STATISTICS[sizes["latent_channels"]]
    config = {
        "_class_name": "AutoencoderKLWan", "attn_scales": [], "base_dim": sizes["width"], "dim_mult": [1, 2, 4, 4],
        "dropout": 0.0, "latents_mean": list(mean), "latents_std": list(std), "num_res_blocks": 2,
        "temperal_downsample": [False, True, True], "z_dim": sizes["latent_channels"],
    }  # fmt: skip
    if sizes["latent_channels"] == 48:
        config |= {
            "decoder_base_dim": sizes["decoder_width"], "in_channels": 12, "out_channels": 12, "is_residual": True,
            "patch_size": 2, "scale_factor_spatial": 16, "scale_factor_temporal": 4,
        }  # fmt: skip
    return config


def text_encoder_config(sizes):
    """UMT5EncoderModel's; None where a size is not in the shapes."""
    if None in sizes.values() or sizes["attn_dim"] % sizes["num_heads"]:
        return None
    return {
        "architectures": ["UMT5EncoderModel"], "model_type": "umt5", "d_model": sizes["dim"], "d_ff": sizes["ffn_dim"],
        "d_kv": sizes["attn_dim"] // sizes["num_heads"], "num_heads": sizes["num_heads"],
        "num_layers": sizes["num_layers"], "vocab_size": sizes["vocabulary"], "feed_forward_proj": "gated-gelu",
        "relative_attention_num_buckets": sizes["num_buckets"], "relative_attention_max_distance": 128,
        "dropout_rate": 0.1, "layer_norm_epsilon": 1e-6, "is_encoder_decoder": True, "tie_word_embeddings": False,
        "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "scalable_attention": True,
    }  # fmt: skip


def image_encoder_config(sizes):
    """CLIPVisionModel's; None for another width than the released one's, whose heads no shape tells."""
    if sizes["dim"] != CLIP_WIDTH or None in sizes.values():
        return None
    return {
        "architectures": ["CLIPVisionModel"], "model_type": "clip_vision_model", "hidden_act": "gelu",
        "hidden_size": sizes["dim"], "intermediate_size": sizes["ffn_dim"], "num_channels": 3,
        "image_size": sizes["patch"] * round((sizes["num_places"] - 1) ** 0.5), "patch_size": sizes["patch"],
        "num_attention_heads": sizes["dim"] // CLIP_HEAD_SIZE, "num_hidden_layers": sizes["num_layers"],
        "layer_norm_eps": 1e-5, "projection_dim": 1024,
    }  # fmt: skip


def scheduler_config(family):
    """UniPCMultistepScheduler's of a KnownModel: flow matching at the model's own shift."""
    return {
        "_class_name": "UniPCMultistepScheduler", "flow_shift": family.shift, "num_train_timesteps": 1000,
        "prediction_type": "flow_prediction", "solver_order": 2, "solver_type": "bh2", "use_flow_sigmas": True,
    }  # fmt: skip
