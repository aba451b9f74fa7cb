"""Arguments of a training: from a recipe, a JSON file of them, and from the command line, which wins."""

import difflib
import json
from argparse import SUPPRESS, ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from transformers import HfArgumentParser, TrainingArguments

from hub_cards import list_recipes

from .arguments import ARGUMENTS, RunArguments
from .contradictions import refuse_beyond_limits, refuse_contradictions, refuse_contradictions_of_data
from .data.arguments import SourceArguments
from .data.sources import public_name

# What belongs to one machine or one run, and not into a recipe.
NOT_IN_RECIPE = (
    "output_dir", "dataset_name", "num_proc", "resume_from_checkpoint", "disable_tqdm", "report_to", "run_name",
    "use_cpu", "features_on_device", "push_to_hub", "hub_model_id", "hub_token", "hub_private_repo", "hub_revision",
    "dataloader_num_workers", "do_train", "teacher_trust_remote_code",
)  # fmt: skip


# What a recipe, which may be somebody else's, must not choose: what is published where, and whose code is trusted.
OF_COMMAND_LINE = (
    "teacher_trust_remote_code", "push_to_hub", "hub_model_id", "hub_token", "hub_revision",
)  # fmt: skip
# Where these name something on this machine, the recipe has its bare name.
PATH_ARGUMENTS = ("model_name_or_path", "class_names_file", "teacher")


def find_recipe(groups: Sequence) -> dict[str, Any]:
    """The arguments that differ from their defaults: with the same data they train the same again.

    Raises:
        TypeError: An argument that JSON cannot hold.
    """
    recipe = {}
    for group in groups:
        if isinstance(group, TrainingArguments):
            given, default = group.to_dict(), type(group)(output_dir=group.output_dir).to_dict()
        else:
            given, default = vars(group), vars(type(group)())
        for name in [item.name for item in fields(group) if item.init and item.name not in NOT_IN_RECIPE]:
            if given[name] != default[name]:
                recipe[name] = given[name]
    for name in PATH_ARGUMENTS:
        if name in recipe:
            recipe[name] = public_name(recipe[name])
    if recipe.get("auto_bf16"):
        recipe.pop("bf16", None)
    return without_place(json.loads(json.dumps(recipe)))


def without_place(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe without the folder of its sound, where that is a place on this machine."""
    is_place = Path(recipe.get("dataset_data_dir", "")).is_absolute()
    return {name: value for name, value in recipe.items() if name != "dataset_data_dir" or not is_place}


class HelpFormatter(ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter):
    """Shows defaults where there are any, and the recipes in lines of their own."""

    def _get_help_string(self, action):
        return action.help if action.default is None else super()._get_help_string(action)


def parse_arguments(arguments: list[str]) -> RunArguments:
    """Arguments from a recipe, if the first word names one, and the options, which win.

    Raises:
        SystemExit: A recipe that is not there, unknown arguments, or some that do not go together.
    """
    parser = HfArgumentParser(
        ARGUMENTS,
        allow_abbrev=False,
        prog="fftp train",
        usage="fftp train [RECIPE] --dataset_name DATA --output_dir FOLDER [OPTION ...]",
        epilog="\n  ".join(("RECIPE is a JSON file of options, or one of", *list_recipes())),
        formatter_class=HelpFormatter,
    )
    names = [item.name for group in ARGUMENTS for item in fields(group) if item.init]
    if arguments and not arguments[0].startswith("-"):
        recipe = read_recipe(arguments[0])
        refuse_unknown(recipe, names, arguments[0])
        for name in OF_COMMAND_LINE:
            if name in recipe:
                raise SystemExit(f"train: --{name} is for the command line, not for a recipe")
        arguments = [*as_words(recipe), *arguments[1:]]
    *groups, unknown = parser.parse_args_into_dataclasses(arguments, return_remaining_strings=True)
    refuse_unknown([name.removeprefix("--") for name in unknown], names, "the command line")
    run = RunArguments(*groups)
    refuse_contradictions(run)
    if not any(word.partition("=")[0].replace("-", "_") == "__output_dir" for word in arguments):
        raise SystemExit("train: --output_dir is missing: the folder to create")
    return run


def as_words(recipe: Mapping[str, Any]) -> list[str]:
    """A recipe as words of a command line, so that its values are read and refused as they are there."""
    words = []
    for name, value in recipe.items():
        if isinstance(value, list):
            words += [f"--{name}", *map(str, value)]
        elif value is not None:
            words.append(f"--{name}={json.dumps(value) if isinstance(value, dict) else value}")
    return words


def read_recipe(source: str) -> dict[str, Any]:
    """A recipe by its path, which ends in .json, or by the name of its folder in `hub_cards`.

    Raises:
        SystemExit: No such file or recipe.
    """
    recipes = list_recipes()
    path = Path(source) if source.endswith(".json") else recipes.get(source)
    if path is None:
        near = difflib.get_close_matches(source, recipes, n=3, cutoff=0.0)
        raise SystemExit(
            f"train: no recipe {source!r}. Expected a JSON file, whose name ends in .json, or a name such as "
            f"{', '.join(near)}; `fftp train --help` lists all"
        )
    if not path.is_file():
        raise SystemExit(f"train: {source} is not a file; expected a recipe, a JSON file of arguments")
    try:
        # With the mark that editors of Windows put before it, or without.
        recipe = json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SystemExit(f"train: {source} is not valid JSON: {error}") from error
    if not isinstance(recipe, dict):
        raise SystemExit(f"train: {source} holds a {type(recipe).__name__}; expected an object of arguments")
    return recipe


def parse_with_data(
    groups: Sequence[type],
    arguments: Sequence[str],
    command: str,
    usage: str,
    unused: Sequence[str] = (),
    **limits: str,
) -> tuple:
    """Dataclasses from the words of a command whose first word is DATA.

    Args:
        groups: Their types, one of which is for the data.
        arguments: The words.
        command: Its name.
        usage: How it is called.
        unused: Fields of the dataclasses that the command refuses, and its help leaves out.
        limits: Where values lie that `LIMITS` does not know, or has otherwise.

    Raises:
        SystemExit: Arguments that are unknown, beyond limits, or data that are missing or half chosen.
    """
    parser = HfArgumentParser(
        groups, allow_abbrev=False, prog=f"fftp {command}", usage=usage, formatter_class=HelpFormatter
    )
    for action in parser._actions:
        if action.dest in unused:
            action.help = SUPPRESS
    words = [*arguments]
    if words and not words[0].startswith("-"):
        words.insert(0, "--dataset_name")
    *parsed, unknown = parser.parse_args_into_dataclasses(words, return_remaining_strings=True)
    names = [item.name for group in groups for item in fields(group) if item.init]
    refuse_late_data(unknown, command)
    refuse_unknown([name.removeprefix("--") for name in unknown], names, "the command line", command)
    source = next(group for group in parsed if isinstance(group, SourceArguments))
    if not source.dataset_name:
        raise SystemExit(f"{command}: DATA is missing: {usage}")
    refuse_beyond_limits(command, *parsed, **limits)
    refuse_contradictions_of_data(command, source)
    return tuple(parsed)


def refuse_late_data(unknown: Sequence[str], command: str) -> None:
    """Stop on DATA that come after options: the first unknown word is DATA if it is no option."""
    if unknown and not unknown[0].startswith("-"):
        raise SystemExit(f"{command}: {unknown[0]!r} comes late: DATA must come first, before all options")


def refuse_unknown(given, names: list[str], origin: str, command: str = "train") -> None:
    """Stop on misspelt arguments, with the nearest valid name."""
    for name in given:
        if name not in names:
            if name in list_recipes():
                raise SystemExit(f"{command}: the recipe {name!r} must come first, before all options")
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise SystemExit(f"{command}: unknown argument {name!r} in {origin}{hint}")
