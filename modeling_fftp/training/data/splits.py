"""Names of splits, and what each is for."""

import logging
import re
from collections.abc import Iterable

logger = logging.getLogger(__name__)

# What people call them; the first of each is the name of the role, and of the split by default.
ROLE_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "validate", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluate", "evaluation"),
}
ROLES = tuple(ROLE_WORDS)


def role_of(name: str) -> str | None:
    """The role of a split by its name, in capital or small letters, or None."""
    return next((role for role, words in ROLE_WORDS.items() if name.lower() in words), None)


def role_in(name: str) -> str | None:
    """The one role whose word stands in a longer name, like "esc50_train_data", or None."""
    roles = {role_of(word) for word in re.split(r"[\W_]+", name)} - {None}
    return roles.pop() if len(roles) == 1 else None


def find_splits(present: Iterable[str], wanted: dict[str, str]) -> dict[str, str]:
    """Names of the splits by role.

    Args:
        present: Names of all splits.
        wanted: Name of the split of each role; that of the role itself stands for others that mean it as well.

    Returns:
        For each role that has a split; what trains or validates is not tested as well. What has none is named in the
        log.

    Raises:
        ValueError: Several splits could have one role, or no split has a name that was asked for.
    """
    present = [*present]
    found: dict[str, str] = {}
    for role, name in wanted.items():
        if role == "test" and name in found.values():
            continue
        candidates = [name] if name in present else []
        if name == role and not candidates:
            candidates = [other for other in present if role_of(other) == role and other not in wanted.values()]
        if name != role and not candidates:
            raise ValueError(f"no split {name!r} for {role}; the data has {present}")
        if len(candidates) > 1:
            raise ValueError(f"the splits {candidates} could all be for {role}; name one by --{role}_split_name")
        if candidates:
            found[role] = candidates[0]
            if candidates[0] != name:
                logger.info("Split %r is taken for %s", candidates[0], role)
    unused = [name for name in present if name not in found.values()]
    if unused:
        logger.warning("Splits that are not used: %s", ", ".join(unused))
    return found
