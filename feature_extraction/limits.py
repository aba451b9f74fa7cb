"""Limits of what augmentation draws."""


def check_limits(**limits: float) -> None:
    """Refuse limits of what is drawn that are negative.

    Raises:
        ValueError: A limit is negative.
    """
    for name, value in limits.items():
        if not value >= 0:
            raise ValueError(f"{name}={value} must be at least 0")


def check_count(name: str, value: float, least: int) -> int:
    """A whole number of at least so many, whatever type it has.

    Raises:
        ValueError: It is another.
    """
    if not value >= least or value % 1:
        raise ValueError(f"{name}={value} must be a whole number of at least {least}")
    return int(value)


def check_probability(probability: float) -> None:
    """Refuse a probability outside of [0, 1].

    Raises:
        ValueError: It is.
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"probability={probability} must lie in [0, 1]")
