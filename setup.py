"""Packaging of wan_alpha; tool settings live in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="wan_alpha",
    version="0.1.0",
    description="Train and run Wan-Alpha: video models with a real alpha channel, on top of DiffSynth-Studio",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=find_packages(include=["wan_alpha", "wan_alpha.*"]),
    package_data={"wan_alpha": ["assets/**/*", "presets/*.toml"]},
    install_requires=[
        "torch>=2.11",
        "torchvision",
        "diffsynth>=2.1.10,<2.2",
        "accelerate>=1.10",
        "peft>=0.18",
        "transformers",
        "tokenizers",
        "safetensors>=0.4.5",
        "av>=18",
        "imageio-ffmpeg>=0.6",
        "lpips",
        "numpy",
        "pandas",
        "pillow",
        "pydantic>=2.8",
        "rich",
        "psutil",
        "scipy",
        "tensorboard",
    ],
    extras_require={
        "test": ["pytest>=8", "pytest-xdist"],
        "ui": ["gradio>=6.31,<7"],
        "quant": ["torchao>=0.16", "bitsandbytes>=0.46"],
    },
    entry_points={"console_scripts": ["wan-alpha = wan_alpha.cli.main:main"]},
)
