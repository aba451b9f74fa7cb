"""Data sets on the Hub in the forms that `datasets` cannot open, or opens a part of."""

from types import SimpleNamespace

import pytest
from datasets.exceptions import DatasetGenerationError

from modeling_fftp.training.data import hub_source
from modeling_fftp.training.data.hub_source import CONVERTED, find_builder, load_from_hub

BRANCH = "hf://datasets/someone/sounds@refs%2Fconvert%2Fparquet"


@pytest.fixture
def hub(monkeypatch):
    """Says what the Hub has of a revision: files of splits, or an error; and keeps what it was asked for."""
    has, asked = {}, []

    def load_dataset_builder(source, config_name=None, data_dir=None, revision=None):
        asked.append((config_name, data_dir, revision))
        if isinstance(has[revision], Exception):
            raise has[revision]
        return SimpleNamespace(config=SimpleNamespace(data_files=has[revision]))

    monkeypatch.setattr(hub_source, "load_dataset_builder", load_dataset_builder)
    return SimpleNamespace(has=has, asked=asked)


def test_of_a_script_its_parquet_form_is_read(hub, caplog):
    hub.has |= {
        None: RuntimeError("Dataset scripts are no longer supported, but found sounds.py"),
        CONVERTED: {"train": [f"{BRANCH}/en/train/0000.parquet"], "test": [f"{BRANCH}/en/test/0000.parquet"]},
    }
    find_builder("someone/sounds", "en", None, None)
    # A configuration is a folder there.
    assert hub.asked == [("en", None, None), (None, "en", CONVERTED)]
    assert "someone/sounds is a script, which is not run" in caplog.text


def test_another_error_is_not_taken_for_a_script(hub):
    hub.has[None] = RuntimeError("no network")
    with pytest.raises(RuntimeError, match="no network"):
        find_builder("someone/sounds", None, None, None)


def test_several_configurations_are_not_joined(hub):
    hub.has[CONVERTED] = {"train": [f"{BRANCH}/{name}/train/0000.parquet" for name in ("de", "en")]}
    with pytest.raises(ValueError, match=r"configurations \['de', 'en'\]; --dataset_config_name names one"):
        find_builder("someone/sounds", None, None, CONVERTED)


def test_a_missing_configuration_names_the_option(hub):
    hub.has[None] = ValueError("Config name is missing.\nPlease pick one among the available configs: ['de', 'en']")
    with pytest.raises(ValueError, match=r"several configurations; --dataset_config_name names one\. .*'de', 'en'"):
        find_builder("someone/sounds", None, None, None)


def test_the_first_gigabytes_are_not_taken_for_all(hub, caplog):
    hub.has[CONVERTED] = {
        "train": [f"{BRANCH}/default/partial-train/0000.parquet"],
        "test": [f"{BRANCH}/default/test/0000.parquet"],
    }
    find_builder("someone/sounds", None, None, CONVERTED)
    assert "of train the Hub converts the first gigabytes alone" in caplog.text


def test_what_needs_torchcodec_says_how_it_goes_without(hub, monkeypatch):
    def fail():
        raise DatasetGenerationError("An error occurred") from ImportError("please install 'torchcodec'.")

    monkeypatch.setattr(
        hub_source, "load_dataset_builder", lambda *_, **__: SimpleNamespace(download_and_prepare=fail)
    )
    with pytest.raises(ValueError, match=r"torchcodec.*hf download someone/sounds --repo-type dataset"):
        load_from_hub("someone/sounds", None, None, None)
