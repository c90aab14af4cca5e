"""Small tables as plain text, for what a run says at its start."""

from collections.abc import Sequence


def text_table(header: Sequence[str], rows: Sequence[Sequence]) -> str:
    """Columns of even width, the first to the left, the others to the right."""
    lines = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
