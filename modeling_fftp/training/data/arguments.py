"""Where sound and labels come from, as the command line says it."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from .sources import AUDIO_COLUMNS, LABEL_COLUMNS

# Rate in Hz that sound is resampled to, and the longest clip that a model is shown in training, unless somebody says
# otherwise.
SAMPLING_RATE, MAX_SECONDS = 16000, 10.0


@dataclass
class SourceArguments:
    """Where sound comes from."""

    dataset_name: str | None = field(
        default=None, metadata={"help": "Hub id, local folder, or table: CSV, TSV, JSON, JSON lines or parquet."}
    )
    dataset_config_name: str | None = field(default=None, metadata={"help": "Configuration of a Hub data set."})
    dataset_data_dir: str | None = field(
        default=None, metadata={"help": "Folder inside the Hub data set, or of the sound of a table."}
    )
    dataset_revision: str | None = field(
        default=None, metadata={"help": "Hub revision; refs/convert/parquet is what the Hub made of other forms."}
    )
    audio_column_name: str | None = field(default=None, metadata={"help": f"Default: one of {AUDIO_COLUMNS}."})
    validation_fraction: float | None = field(
        default=None,
        metadata={"help": "Share of the training clips to validate on where there is no such split; default: 0.1."},
    )
    validation_column: str | None = field(
        default=None,
        metadata={"help": "Column that groups clips (fold, speaker), or folder: one group validates instead."},
    )
    validation_value: str | None = field(default=None, metadata={"help": "The group that validates."})
    max_seconds: float | None = field(
        default=None,
        metadata={"help": "Length of training clips; longer ones are cropped. Default: the longest, <= 10."},
    )
    max_left_out: float = field(
        default=0.05,
        metadata={"help": "Largest share of undecodable or mislabelled clips to go on without."},
    )
    num_proc: int | None = field(default=None, metadata={"help": "Processes that decode the sound."})


@dataclass
class DataArguments(SourceArguments):
    """Where sound and labels come from."""

    task: Literal["clips", "frames"] = field(
        default="clips",
        metadata={"help": "clips: which sounds a clip has; frames: when each begins and ends, learned from events."},
    )
    label_column_name: str | None = field(default=None, metadata={"help": f"Default: one of {LABEL_COLUMNS}."})
    train_split_name: str = field(default="train", metadata={"help": "Split to train on."})
    validation_split_name: str = field(default="validation", metadata={"help": "Split to validate on."})
    test_split_name: str = field(default="test", metadata={"help": "Split to test on."})
    max_train_samples: int | None = field(
        default=None, metadata={"help": "Clips to train on, drawn with the seed; default: all."}
    )
    label_separator: str | None = field(
        default=None,
        metadata={"help": "What stands between classes where one string holds several."},
    )
    class_names_file: str | None = field(
        default=None,
        metadata={"help": "CSV of index, id and display name, like AudioSet's; the labels are ids."},
    )
    exclude_labels: list[str] = field(default_factory=list, metadata={"help": "Classes whose clips are not used."})
    none_labels: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Labels that stand for none of the classes, such as background; '' is an empty label. Every class "
            "then has a score of its own, and all may be low."
        },
    )
    cache_features: bool = field(
        default=False,
        metadata={"help": "Compute features once, not per batch; without mixup, speed, colored noise and crops."},
    )
    features_on_device: bool = field(
        default=False,
        metadata={
            "help": "Compute, change and mask features on the GPU, not in the data loader; random numbers are still "
            "drawn on the CPU, so with loader workers this may be slower. Not measured."
        },
    )
    streaming: bool = field(
        default=False,
        metadata={
            "help": "Decode clips in the workers of the loader, each time anew, and write none: for data that fits on "
            "no disk. Parquet files, here or on the Hub, are read by row groups."
        },
    )

    def __post_init__(self):
        """Refuse a task that is unknown; from the command line argparse does.

        Raises:
            ValueError: The task is unknown.
        """
        tasks = get_args(type(self).__annotations__["task"])
        if self.task not in tasks:
            raise ValueError(f"task={self.task!r} is unknown; expected one of {', '.join(tasks)}")
