"""Data sets on the Hub: what `datasets` opens of them, or else the parquet files that the Hub made of them."""

import logging
from pathlib import Path, PurePosixPath

from datasets import DatasetBuilder, DatasetDict, load_dataset_builder
from datasets.exceptions import DatasetGenerationError
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from .tables import is_table

logger = logging.getLogger(__name__)

# The branch of what the Hub converts to parquet, as CONFIGURATION/SPLIT/0000.parquet.
CONVERTED = "refs/convert/parquet"
# How a split's folder there is called where it holds the first gigabytes alone.
PARTIAL = "partial-"


def load_from_hub(source: str, config_name: str | None, data_dir: str | None, revision: str | None) -> DatasetDict:
    """The splits of a data set on the Hub, copied into the cache of `datasets`.

    Raises:
        ValueError: `datasets` cannot load it.
    """
    builder = find_builder(source, config_name, data_dir, revision)
    try:
        builder.download_and_prepare()
    except DatasetGenerationError as error:
        way_out = (
            f". Sound files need no torchcodec in a local folder: `hf download {source} --repo-type dataset "
            "--local-dir FOLDER`, unpack what is packed, and pass FOLDER"
            if isinstance(error.__cause__, ImportError)
            else ""
        )
        raise ValueError(f"{source} cannot be loaded: {error.__cause__ or error}{way_out}") from error
    return builder.as_dataset()


def find_builder(source: str, config_name: str | None, data_dir: str | None, revision: str | None) -> DatasetBuilder:
    """What `datasets` opens a data set of the Hub with; of one that is a script, its parquet form.

    Raises:
        FileNotFoundError: `source` cannot be a Hub id.
        ValueError: It has several configurations, and none is named.
    """
    refuse_paths(source)
    if revision == CONVERTED:
        return find_converted(source, config_name, data_dir)
    try:
        return load_dataset_builder(source, config_name, data_dir=data_dir, revision=revision)
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error) or revision is not None:
            raise
        logger.warning("%s is a script, which is not run; the parquet form that the Hub made of it is read", source)
        return find_converted(source, config_name, data_dir)
    except ValueError as error:
        if "Config name is missing" not in str(error):
            raise
        choice = str(error).splitlines()[1]
        raise ValueError(f"{source} has several configurations; --dataset_config_name names one. {choice}") from error


def find_converted(source: str, config_name: str | None, data_dir: str | None) -> DatasetBuilder:
    """The same for what the Hub made of a data set, where a configuration is a folder.

    Raises:
        ValueError: It has several configurations, and none is named.
    """
    builder = load_dataset_builder(source, data_dir=data_dir or config_name, revision=CONVERTED)
    folders = {PurePosixPath(file).parent for files in builder.config.data_files.values() for file in files}
    names = sorted({folder.parent.name for folder in folders})
    if len(names) > 1:
        raise ValueError(f"{source} has the configurations {names}; --dataset_config_name names one")
    partial = sorted(folder.name.removeprefix(PARTIAL) for folder in folders if folder.name.startswith(PARTIAL))
    if partial:
        logger.warning(
            "%s: of %s the Hub converts the first gigabytes alone, and only those are read; download the data set "
            "and pass its folder to use all",
            source, " and ".join(partial),
        )  # fmt: skip
    return builder


def refuse_paths(source: str) -> None:
    """Stop on what cannot be a Hub id, rather than ask the Hub for it."""
    try:
        validate_repo_id(source)
        is_id = not is_table(Path(source))
    except HFValidationError:
        is_id = False
    if not is_id:
        raise FileNotFoundError(f"{source} is neither a folder or a file here nor a Hub id")
