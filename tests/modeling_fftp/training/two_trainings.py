"""What a process of several does for `test_processes.py`: three trainings after one another, the last for two strides.

torchrun --nproc_per_node 2 tests/modeling_fftp/training/two_trainings.py FOLDER WORKERS

Each process leaves in FOLDER the clips that it trained on, by training and epoch, the masks that it drew, and weights.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
from torch.nn.utils import parameters_to_vector
from transformers import TrainingArguments, set_seed

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from feature_extraction import FFTPFeatureExtractor, SpecAugment, SpecMaskDataCollator
from modeling_fftp import FFTPConfig, FFTPForAudioClassification
from modeling_fftp.training.teaching.distillation import Distillation
from modeling_fftp.training.trainer import FFTPTrainer
from tests.support import leave_group

NUM_CLIPS, EPOCHS, NUM_FRAMES = 16, 2, 60


def log_clips(model, args, inputs):
    """Note the clips that a model trains on, by their lengths, and the bins that are masked."""
    model.seen += (inputs["attention_mask"].sum(dim=1) - NUM_FRAMES).tolist()
    model.masked += (inputs["input_values"][:, 0, 1:] != 7.0).tolist()


def main(folder: Path, workers: int) -> None:
    """Train, and write the log of this process."""
    rank, clips = int(os.environ["RANK"]), []
    for number in range(NUM_CLIPS):
        features = np.full((NUM_FRAMES + number, 128), 7.0, np.float32)
        # So that a mask, which holds the mean, is seen.
        features[:, 0] = 100.0
        clips.append({"input_values": features, "labels": number % 4})
    config = FFTPConfig(
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        max_length=NUM_FRAMES,
        num_labels=4,
    )
    log = []
    for strides in ((), (), (5, 10)):
        set_seed(0)
        config.time_strides = strides
        model = FFTPForAudioClassification(config)
        model.seen, model.masked = [], []
        model.register_forward_pre_hook(log_clips, with_kwargs=True)
        arguments = TrainingArguments(
            folder / "out", num_train_epochs=EPOCHS, per_device_train_batch_size=2, use_cpu=True, report_to="none",
            disable_tqdm=True, save_strategy="no", dataloader_num_workers=workers,
        )  # fmt: skip
        mask = SpecAugment(max_bins=60, max_frames=0)
        FFTPTrainer(
            model,
            arguments,
            data_collator=SpecMaskDataCollator(FFTPFeatureExtractor(), mask, time_strides=strides),
            train_dataset=clips,
            stride_distillation=Distillation(0.5) if strides else None,
        ).train()
        weights = parameters_to_vector(model.parameters()).tolist()
        log.append({"seen": model.seen, "masked": model.masked, "weights": weights})
    (folder / f"{rank}.json").write_text(json.dumps(log))
    leave_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
