"""The learning rate as a function of the step alone, so that there is no scheduler state to save or to get wrong."""

import math


def learning_rate(step, total_steps, settings):
    """Learning rate of one optimizer step.

        warm-up:   peak * (step + 1) / (warmup + 1)                       for step < warmup
        constant:  peak
        cosine:    peak * (1 + cos(pi * progress)) / 2,   progress = (step - warmup) / (total_steps - warmup)

    Args:
        step: optimizer steps done so far; total_steps: optimizer steps of the whole run.
        settings: TrainingSettings (learning_rate, warmup_steps, schedule).
    """
    peak, warmup = settings.learning_rate, settings.warmup_steps
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    if settings.schedule == "constant":
        return peak
    progress = (step - warmup) / max(1, total_steps - warmup)
    return peak * (1 + math.cos(math.pi * progress)) / 2
