"""What the processes of a run must agree on before any of them acts."""

from accelerate.utils import broadcast_object_list

from wan_alpha import errors


def on_main(accelerator, function, *arguments, by_all=False):
    """Call a function in the main process; all processes get its result, or all raise its error.

    Args:
        function: returns something that can be pickled, and raises a WanAlphaError for what all shall hear of.
        by_all: all processes call it, since it needs the weights that each holds a part of; the main one's end counts.

    Raises:
        WanAlphaError: of the same class and message in every process.
    """
    result, error = None, None
    if accelerator.is_main_process or by_all:
        try:
            result = function(*arguments)
        except errors.WanAlphaError as caught:
            error = caught
    if accelerator.num_processes > 1:
        told = [result, type(error).__name__ if error else None, str(error)]
        broadcast_object_list(told)
        if told[1] is not None and not accelerator.is_main_process:
            error = getattr(errors, told[1])(told[2])
        result = told[0]
    if error is not None:
        raise error
    return result
