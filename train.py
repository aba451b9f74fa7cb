"""Train or fine-tune an FFTP model on an audio data set: the door from a checkout; `fftp train` is the same.

    python train.py fftp-ast-tiny-speech-commands-ar --dataset_name DATA --output_dir FOLDER

The first word is a recipe: a folder of hub_cards/, or a JSON file of arguments; options win over it. DATA is a Hub id,
a local data-set folder (parquet with embedded audio, or one folder of sound files per class), or a CSV or JSON file
with a column of paths. Sound of any rate and channel count is decoded by soundfile and resampled by soxr.

`run` is the whole training on one screen: modeling_fftp/training/run.py.
"""

import sys

from modeling_fftp.training.run import run

if __name__ == "__main__":
    run(sys.argv[1:])
