"""What is watched at every step: numbers that are not finite, and losses out of line."""

import math
import statistics

from wan_alpha.errors import NonFiniteError

SPIKE_WINDOW = 100  # steps
SPIKE_AFTER = 20  # steps before which there is no telling


def count_update(state, is_finite, max_skipped, where):
    """Count a step's update in the state as made or skipped.

    Args:
        state: a RunState, of before the step; is_finite: loss and gradient, on all processes.
        max_skipped: so many in a row end the run; where: what the message points to.

    Raises:
        NonFiniteError: they did.
    """
    if is_finite:
        state.skipped_in_a_row = 0
        return
    state.skipped_updates += 1
    state.skipped_in_a_row += 1
    if state.skipped_in_a_row >= max_skipped:
        raise NonFiniteError(
            f"{state.skipped_in_a_row} updates in a row up to step {state.step + 1} had a loss or gradient that is "
            "not finite; lower training.learning_rate, look at the data, or set training.precision = 'fp32'. "
            f"The run's checkpoints in {where} are from before"
        )


def loss_spike(state, loss, factor):
    """How many times the median of the last losses this one is, where that is above ``factor``; else None.

    The loss joins the last ones, if it is finite.
    """
    recent, spike = state.recent_losses, None
    if not math.isfinite(loss):
        return None
    if factor is not None and len(recent) >= SPIKE_AFTER:
        median = statistics.median(recent)
        if median > 0 and loss > factor * median:
            spike = loss / median
    state.recent_losses = [*recent, loss][-SPIKE_WINDOW:]
    return spike


def is_better(value, best, best_is):
    """Whether a validation's figure is better than the ``best`` so far ({"value": ...}, None for none)."""
    if not math.isfinite(value):
        return False
    if best is None:
        return True
    return value < best["value"] if best_is == "lowest" else value > best["value"]
