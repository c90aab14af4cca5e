"""The demo's page: the report of its own folder."""

from wan_alpha.evaluation.report import write_report

SUMMARY = (
    "Both stages were trained on this machine a moment ago. The clips are straight RGBA: choose what lies under them, "
    "look at their alpha, step with the arrow keys. The stills are a photograph through the trained VAE; it was one of "
    "stage 1's clips, the tiny base model has never seen a photograph."
)


def write_page(out):
    """Write ``index.html`` and ``report_files/`` into the demo's folder; returns the page's path.

    Args:
        out: the demo's folder, its demo.json among what is there.
    """
    return write_report([out], out, title="demo", summary=SUMMARY).page
