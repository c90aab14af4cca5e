"""Wan-Alpha: train and run video models with a real alpha channel."""
