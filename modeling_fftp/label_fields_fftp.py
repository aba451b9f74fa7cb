"""Fields of the config that go by labels: their names and indices, and what training chose for each."""

import contextlib
import copy
from collections.abc import Iterable

from transformers import PreTrainedConfig
from transformers.utils import logging

logger = logging.get_logger(__name__)

# What training chooses for each label, by its name.
FIELDS_OF_LABELS = ("thresholds", "median_filter_seconds")


def index_names(names: dict[int | str, str] | None, *default: str) -> dict[int, str]:
    """`id2label` with numbers for keys, which JSON and the tutorials of transformers write as strings.

    Raises:
        ValueError: It is no dict, or one index has two names.
    """
    if names is None:
        return dict(enumerate(default))
    if not isinstance(names, dict):
        raise ValueError(f"id2label is a {type(names).__name__}; expected a dict, such as dict(enumerate(names))")
    return _join_pairs("id2label", names.items())


def names_of(indices: dict[str, int | str]) -> dict[int, str]:
    """`id2label` of a `label2id`, whose values the tutorials of transformers write as strings.

    Raises:
        ValueError: Two names have one index, or one has none.
    """
    return _join_pairs("label2id", ((index, name) for name, index in indices.items()))


def index_labels(indices: dict[str, int | str]) -> dict[str, int]:
    """`label2id` with numbers for values.

    Raises:
        ValueError: It is no dict, or has an index that is none.
    """
    if not isinstance(indices, dict):
        raise ValueError(f"label2id is a {type(indices).__name__}; expected a dict of names and their indices")
    return {name: _as_index("label2id", index) for name, index in indices.items()}


def _join_pairs(field: str, pairs: Iterable[tuple[int | str, str]]) -> dict[int, str]:
    """Names by their indices.

    Raises:
        ValueError: An index that is none, or one with two names.
    """
    names: dict[int, str] = {}
    for given, name in pairs:
        index = _as_index(field, given)
        if names.setdefault(index, name) != name:
            raise ValueError(f"{field} gives {names[index]!r} and {name!r} the index {index}; expected one each")
    return names


def _as_index(field: str, value: int | str) -> int:
    """An index of a label, which may be written as a string.

    Raises:
        ValueError: It is no whole number.
    """
    with contextlib.suppress(TypeError, ValueError):
        if isinstance(value, str) or int(value) == value:
            return int(value)
    raise ValueError(f"{field} has the index {value!r}; expected a whole number")


def refuse_other_indices(names: dict[int, str], indices: dict[str, int | str] | None) -> None:
    """Refuse a `label2id` that sends a name elsewhere than `id2label`; of other names it may say anything.

    Raises:
        ValueError: The two give a name different indices.
    """
    for index, name in names.items():
        if _as_index("label2id", (indices or {}).get(name, index)) != index:
            raise ValueError(f"label2id gives {name!r} the index {indices[name]}, id2label the index {index}")


def make_names(num_labels: int) -> list[str]:
    """What transformers calls labels that have no names."""
    return [f"LABEL_{index}" for index in range(num_labels)]


def choose_names(
    saved: dict[int, str],
    id2label: dict[int | str, str] | None,
    label2id: dict[str, int | str] | None,
    num_labels: int | None,
) -> dict[int, str]:
    """`id2label` of a saved config for which some of these are given.

    Raises:
        ValueError: They contradict each other.
    """
    if id2label is None and label2id is not None:
        id2label = names_of(label2id)
    if id2label is None:
        return saved if num_labels in (None, len(saved)) else dict(enumerate(make_names(num_labels)))
    names = index_names(id2label)
    refuse_other_indices(names, label2id)
    refuse_other_names(names, num_labels)
    return names


def refuse_other_names(id2label: dict[int | str, str], num_labels: int | None) -> None:
    """Refuse names that are more or fewer than the labels, or that are numbers, which events would take for indices.

    Raises:
        ValueError: There is such a name.
    """
    names = [*id2label.values()]
    if num_labels not in (None, len(names)):
        raise ValueError(f"num_labels={num_labels} contradicts the {len(names)} names {names[:5]}")
    if others := [name for name in names if not isinstance(name, str)]:
        raise ValueError(f"id2label names {others[0]!r}; expected a string, such as {str(others[0])!r}")


def drop_fields_of_labels(config: PreTrainedConfig, reason: str) -> PreTrainedConfig:
    """A config without what training chose for each label; the log says which and why.

    A copy, since the model that it was chosen for may still be in use.
    """
    stale = [name for name in FIELDS_OF_LABELS if getattr(config, name)]
    if not stale:
        return config
    logger.warning(f"{' and '.join(stale)} {reason}: dropped")
    config = copy.deepcopy(config)
    for name in stale:
        setattr(config, name, None)
    return config


def refuse_unknown_labels(config: PreTrainedConfig) -> None:
    """Refuse what a config has for labels by names that none of its labels has; only in a model names are final.

    Raises:
        ValueError: A field names an unknown label.
    """
    for field, names in _find_unknown_labels(config).items():
        raise ValueError(
            f"{field} names {names[0]!r}, which is not a label; the labels are {[*config.id2label.values()]}. "
            f"config.{field} = None drops what was chosen for others"
        )


def drop_unknown_labels(config: PreTrainedConfig) -> None:
    """Drop from a config what was chosen for labels that have been renamed since; no model would open with it."""
    for field, names in _find_unknown_labels(config).items():
        logger.warning(f"{field} names {names[0]!r}, which is no longer a label: dropped")
        setattr(config, field, None)


def _find_unknown_labels(config: PreTrainedConfig) -> dict[str, list[str]]:
    """Names that the fields for single labels have and the labels do not, by field."""
    named = {field: {*(getattr(config, field) or {})} - {*config.id2label.values()} for field in FIELDS_OF_LABELS}
    return {field: sorted(names) for field, names in named.items() if names}
