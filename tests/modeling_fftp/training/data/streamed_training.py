"""What a process of several does for `test_streaming.py`: a training on streamed clips.

torchrun --nproc_per_node 2 tests/modeling_fftp/training/data/streamed_training.py FOLDER DATA WORKERS [CHECKPOINT]

Each process leaves in FOLDER what tells apart the clips that it trained on, and those after a checkpoint, if one is
named.
"""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[4]))

from feature_extraction import FFTPFeatureExtractor, SpecMaskDataCollator
from modeling_fftp import FFTPConfig, FFTPForAudioClassification
from modeling_fftp.training.arguments import DataArguments, FFTPTrainingArguments
from modeling_fftp.training.data.plan import plan_data
from modeling_fftp.training.data.streaming import stream_clips
from modeling_fftp.training.trainer import FFTPTrainer
from tests.support import leave_group


def main(folder: Path, data: str, workers: int, *checkpoints: str) -> None:
    """Train, go on from the checkpoints, and write the log of this process."""
    arguments = FFTPTrainingArguments(
        output_dir=str(folder / "out"), num_train_epochs=2, per_device_train_batch_size=3, use_cpu=True,
        report_to="none", disable_tqdm=True, save_strategy="steps", save_steps=8, eval_strategy="no",
        load_best_model_at_end=False, save_total_limit=2, dataloader_num_workers=workers,
    )  # fmt: skip
    source = DataArguments(dataset_name=data, streaming=True)
    clips = stream_clips(plan_data(source, arguments), source, arguments)
    config = FFTPConfig(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, num_labels=len(clips.classes)
    )
    log = {}
    for name in ("whole", *checkpoints):
        model, seen = FFTPForAudioClassification(config), []

        def log_clips(model, args, inputs, seen=seen):
            seen.extend(inputs["input_values"][:, 5, 30:34].tolist())

        model.register_forward_pre_hook(log_clips, with_kwargs=True)
        collator = SpecMaskDataCollator(FFTPFeatureExtractor())
        trainer = FFTPTrainer(model, arguments, data_collator=collator, train_dataset=clips.splits["train"])
        # So that each worker of each process reads row groups of its own.
        assert trainer._get_train_sampler().streams == 2 * max(1, workers)
        trainer.train(resume_from_checkpoint=str(folder / "out" / name) if name in checkpoints else None)
        log[name] = seen
    (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(log))
    leave_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
