"""A picture of how far scores can be believed."""

from pathlib import Path

from matplotlib.figure import Figure

from .figures import save_figure


def plot_reliability(measured: dict, path: Path) -> None:
    """Share that is right by score, before and after a calibration.

    Args:
        measured: What `measure_calibration` gives.
        path: Picture to write.
    """
    figure = Figure(figsize=(4.5, 5), layout="constrained")
    axis = figure.subplots()
    axis.plot((0, 1), (0, 1), color="0.7", linewidth=1, label="as it should be")
    for name, marker in (("before", "o"), ("after", "s")):
        rows = measured[name]["bins"]
        # Large where most scores are.
        most = max(row["count"] for row in rows)
        sizes = [10 + 80 * row["count"] / most for row in rows]
        points = [row["score"] for row in rows], [row["right"] for row in rows]
        (line,) = axis.plot(*points, linewidth=1)
        label = f"{name}: {measured[name]['ece']:.3f}"
        axis.scatter(*points, sizes, color=line.get_color(), marker=marker, label=label)
    axis.set(xlabel="score", ylabel="share that is right", xlim=(0, 1.02), ylim=(0, 1.02))
    figure.legend(title="expected calibration error", loc="outside lower center", ncols=3)
    save_figure(figure, path, dpi=120)
