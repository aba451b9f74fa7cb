"""Train or fine-tune an FFTP model on an audio data set: the door from a checkout; `fftp train` is the same.

    python train.py fftp-ast-tiny-speech-commands-ar --dataset_name DATA --output_dir FOLDER

The first word is a recipe: a folder of hub_cards/, or a JSON file of arguments; options win over it. DATA is a Hub id,
a local folder (parquet with embedded audio, or sound files in a folder per class), or a table with a column of paths.
Sound of any rate and channel count is decoded by soundfile and resampled by soxr.

The whole run is one screen, at the top of modeling_fftp/training/run.py. Its steps, and the files beside it that hold
them:

    parse_arguments   command_line.py   the recipe and the options, which win
    load_data         run.py            decode, split and report, by `load_clips` or its kin; and who teaches
    build_model       model.py          a new model or a checkpoint, with its feature extractor
    build_collator    collator.py       what the recipe turns on
    build_trainer     run.py            transformers' Trainer, and what it lacks
    train             run.py            leaves model, extractor and results in the output folder
    evaluate_splits   run.py            results of every split, of each class, and of the calibration
    finish            run.py            what the model costs and listens to, the card, and the push if that is wanted
"""

import sys

from modeling_fftp.training.run import run

if __name__ == "__main__":
    run(sys.argv[1:])
