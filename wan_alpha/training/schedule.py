"""The learning rate as a function of the step alone, so that there is no scheduler state to save or to get wrong."""

import math


def learning_rate(step, total_steps, settings):
    """Learning rate of one optimizer step.

        warm-up:     peak * (step + 1) / (warmup + 1)                     for step < warmup
        constant:    peak
        linear:      end + (peak - end) * (1 - progress)
        cosine:      end + (peak - end) * (1 + cos(pi * progress)) / 2
        polynomial:  end + (peak - end) * (1 - progress)^power

        progress = (step - warmup) / (total_steps - warmup), from 0 to just below 1 in the last step

    Args:
        step: optimizer steps done so far; total_steps: optimizer steps of the whole run.
        settings: TrainingSettings: learning_rate (peak), warmup_steps, schedule, final_learning_rate (end),
            schedule_power (power).
    """
    peak, warmup, end = settings.learning_rate, settings.warmup_steps, settings.final_learning_rate
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    if settings.schedule == "constant":
        return peak
    progress = (step - warmup) / max(1, total_steps - warmup)
    if settings.schedule == "cosine":
        return end + (peak - end) * (1 + math.cos(math.pi * progress)) / 2
    power = settings.schedule_power if settings.schedule == "polynomial" else 1.0
    return end + (peak - end) * (1 - progress) ** power
