"""Pictures, for cards and for whoever asks for one."""

from pathlib import Path

from matplotlib.figure import Figure


def save_figure(figure: Figure, path: Path, dpi: int = 100) -> None:
    """Write a picture under another name, which it loses when it is complete; the suffix says in what form."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".part{path.suffix}")
    figure.savefig(part, dpi=dpi)
    part.replace(path)
