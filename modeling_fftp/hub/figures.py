"""Pictures, for cards and for whoever asks for one."""

from pathlib import Path

from matplotlib.figure import Figure

from modeling_fftp.atomic_write import atomic_write


def save_figure(figure: Figure, path: Path, dpi: int = 100) -> None:
    """Write a picture, in the format of the suffix."""
    with atomic_write(path) as part:
        figure.savefig(part, dpi=dpi)
