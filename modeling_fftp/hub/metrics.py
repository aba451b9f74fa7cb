"""Results of the `audio_tagging` metric: their names on a card, and which of them a task is judged by."""

NAMES = {
    "accuracy": "accuracy",
    "map": "mAP",
    "mauc": "mAUC",
    "d_prime": "d'",
    "top5_accuracy": "top-5 accuracy",
}
# Of clips with one class each.
ONE_CLASS = ("accuracy", "top5_accuracy")
# Of one class a clip, and of several.
TASK_METRICS = ("accuracy", "map")


def task_metric(is_multi_label: bool) -> str:
    """What the best checkpoint has most of, by whether a clip can have several classes."""
    return TASK_METRICS[is_multi_label]
