"""Pictures for cards."""

from pathlib import Path

from matplotlib.figure import Figure


def save_figure(figure: Figure, path: Path, dpi: int) -> None:
    """Write a picture under another name, which it loses when it is complete."""
    part = path.with_suffix(f".part{path.suffix}")
    figure.savefig(part, dpi=dpi)
    part.replace(path)
