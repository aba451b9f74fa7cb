"""What a grid says of its arms."""


def arm_arguments(grid: dict, task: str, arm: str) -> dict:
    """What `fftp train` is told of an arm on a task, beside the seed and what a search chooses."""
    said = grid["tasks"][task]
    return grid["defaults"] | said["arguments"] | grid["arms"][arm] | said.get("overrides", {}).get(arm, {})
