"""Pictures as files."""

from pathlib import Path

from matplotlib.figure import Figure


def refuse_other_forms(path: Path) -> None:
    """Refuse the path of a picture whose suffix names no form that matplotlib writes.

    Raises:
        ValueError: It does.
    """
    forms = Figure().canvas.get_supported_filetypes()
    if path.suffix.removeprefix(".").lower() not in forms:
        raise ValueError(f"{path}: expected the name of a picture, which ends in one of .{', .'.join(sorted(forms))}")


def save_figure(figure: Figure, path: Path, dpi: int = 100) -> None:
    """Write a picture under another name, which it loses when it is complete; the suffix says in what form."""
    refuse_other_forms(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".part{path.suffix}")
    figure.savefig(part, dpi=dpi)
    part.replace(path)
