"""How a model learnt, as a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from .figures import save_figure
from .metrics import NAMES, TASK_METRICS

COLORS = {"training loss": "#4477AA", "validation loss": "#EE6677", "validation result": "#228833"}


def plot_training(trainer_state: Mapping[str, Any], path: Path) -> None:
    """Losses and validation results by epoch, from the state that Trainer saves; what was not logged is not drawn."""
    history = trainer_state["log_history"]
    keys = {key for entry in history for key in entry}
    metric = next((name for name in TASK_METRICS if f"eval_{name}" in keys), None)
    # Without pyplot, whose backend is the user's.
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    axes = figure.subplots(1, 1 if metric is None else 2, squeeze=False)
    panels = {"training loss": (axes[0, 0], "loss"), "validation loss": (axes[0, 0], "eval_loss")}
    axes[0, 0].set(title="Loss (training clips are augmented)")
    if metric is not None:
        panels["validation result"] = (axes[0, 1], f"eval_{metric}")
        axes[0, 1].set(ylabel=NAMES[metric], ylim=(0, 1.02), title=f"Validation {NAMES[metric]}")
    for label, (axis, key) in panels.items():
        entries = [(entry["epoch"], entry[key]) for entry in history if key in entry]
        if entries:
            axis.plot(*zip(*entries, strict=True), color=COLORS[label], label=label, marker=".")
    # After the curves: before them it would fix the upper end as well.
    axes[0, 0].set_ylim(bottom=0)
    axes[0, 0].legend(frameon=False)
    for axis in axes[0]:
        axis.set(xlabel="epoch")
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        axis.title.set_fontsize(10)
    save_figure(figure, path, dpi=150)
