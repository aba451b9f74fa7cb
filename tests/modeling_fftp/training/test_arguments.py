"""Tables that name arguments or fields of the config by hand: a misspelt name would do nothing, and say nothing."""

from dataclasses import fields

import pytest

from modeling_fftp import FFTPConfig
from modeling_fftp.configuration_fftp import CHOICES, INTERVALS, POSITIVE_FIELDS
from modeling_fftp.hub.push import INCIDENTAL
from modeling_fftp.label_fields_fftp import FIELDS_OF_LABELS
from modeling_fftp.training import command_line, contradictions, model_arguments, resuming
from modeling_fftp.training.arguments import ARGUMENTS
from modeling_fftp.training.pretraining import arguments as pretraining
from modeling_fftp.training.probing import probe

NAMES = {item.name for group in (*ARGUMENTS, *pretraining.ARGUMENTS) for item in fields(group)}
CONFIG = {item.name for item in fields(FFTPConfig)}
# What transformers writes into a config besides.
OF_TRANSFORMERS = {
    "attn_implementation", "auto_map", "custom_pipelines", "dtype", "transformers_version", "use_cache",
    "_name_or_path",
}  # fmt: skip


@pytest.mark.parametrize(
    "table",
    [
        contradictions.LIMITS, command_line.NOT_IN_RECIPE, command_line.PATH_ARGUMENTS, resuming.MAY_CHANGE,
        resuming.MUST_STAY, resuming.DERIVED, model_arguments.READ_BY, pretraining.UNUSED,
        pretraining.UNUSED_OF_MODEL, probe.UNUSED,
    ],
    ids=[
        "limits", "not in recipe", "paths", "may change", "must stay", "derived", "read by", "unused", "of models",
        "of probes",
    ],
)  # fmt: skip
def test_names_of_arguments(table):
    assert {*table} <= NAMES


@pytest.mark.parametrize("prefix", resuming.MAY_CHANGE_PREFIXES)
def test_prefixes_of_arguments(prefix):
    assert any(name.startswith(prefix) for name in NAMES)


@pytest.mark.parametrize(
    "table",
    [
        model_arguments.ADJUSTABLE,
        model_arguments.DECODER,
        model_arguments.READ_BY,
        POSITIVE_FIELDS,
        INTERVALS,
        CHOICES,
        FIELDS_OF_LABELS,
        INCIDENTAL,
    ],
    ids=["adjustable", "decoder", "read by", "positive", "intervals", "choices", "of labels", "incidental"],
)
def test_names_of_fields(table):
    assert {*table} - OF_TRANSFORMERS <= CONFIG


@pytest.mark.parametrize(
    ("parse", "unused"),
    [(pretraining.parse, (*pretraining.UNUSED, *pretraining.UNUSED_OF_MODEL)), (probe.parse, probe.UNUSED)],
    ids=["pretrain", "probe"],
)
def test_help_leaves_out_what_is_refused(parse, unused, capsys):
    with pytest.raises(SystemExit, match="0"):
        parse(["--help"])
    words = capsys.readouterr().out.split()
    assert "--output_dir" in words
    assert {*words}.isdisjoint(f"--{name}" for name in unused)
