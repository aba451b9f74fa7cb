"""Clips of a run that are streamed: labels are read beforehand, and some clips decoded to tell what all are like."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import TrainingArguments

from .arguments import DataArguments
from .clip_decoder import ClipDecoder
from .held_out import hold_out
from .left_out import left_out_clip, report_left_out
from .loading import Clips
from .parquet_rows import ParquetRows
from .plan import DataPlan, decoders_of
from .report import SplitFacts, count_classes, refuse_unusable, write_report
from .streamed_clips import StreamedClips


def stream_clips(plan: DataPlan, arguments: DataArguments, training: TrainingArguments) -> Clips:
    """Like `load_clips`, but labels alone are read, and some clips decoded to tell what all are like."""
    clips, left_out = {}, {}
    for role, decoder in decoders_of(plan.splits, plan.decoder).items():
        clips[role], left_out[role] = read_clips(plan.splits[role], decoder, arguments.max_left_out)
    labelled = {role: len(split) / (len(split) + len(left_out[role])) for role, split in clips.items()}
    # Where clips of each role come from: those that are held out, from those to train on.
    source_of = {role: role for role in clips} | ({} if "validation" in clips else {"validation": "train"})
    clips = hold_out(clips, arguments, training.seed)
    if arguments.max_train_samples and "train" in clips:
        order = np.random.default_rng(training.seed).permutation(len(clips["train"]))
        clips["train"] = clips["train"].select(order[: arguments.max_train_samples])
    looked, broken = dict.fromkeys(left_out, 0), dict.fromkeys(left_out, 0)
    for role, split in clips.items():
        # Processes gather as many results each: a clip that only one of them leaves out would end the evaluation.
        at_all = role != "train" and training.world_size > 1
        clips[role], unusable = split.look(at_all)
        clips[role].may_repeat = role == "train"
        left_out[source_of[role]] += unusable
        broken[source_of[role]] += len(unusable)
        looked[source_of[role]] += len(unusable) + len(clips[role].sample)
    # All labels were read, but only some clips decoded.
    shares = {role: 1 - labelled[role] * (1 - broken[role] / looked[role]) for role in left_out}
    facts = {role: find_sampled_facts(split, plan.classes, left_out.get(role, [])) for role, split in clips.items()}
    with training.main_process_first(desc="report"):
        report_left_out(left_out, shares, arguments.max_left_out, training)
        write_report(facts, arguments.dataset_name, training, plan.decoder.sampling_rate)
        refuse_unusable(facts, plan.decoder.is_multi_label)
    lengths = {
        role: [round(seconds * plan.decoder.sampling_rate) for seconds in split.values("seconds")]
        for role, split in facts.items()
    }
    return Clips.of(plan, clips, left_out, lengths)


def read_clips(
    source: ParquetRows | Dataset, decoder: ClipDecoder, largest_share: float
) -> tuple[StreamedClips, list[dict[str, Any]]]:
    """The clips whose labels can be used, and those that are left out, as `decode_dataset` names them."""
    rows, labels, left_out = [], [], []
    for row, label in enumerate(source[decoder.label_column][:]):
        try:
            encoded = decoder.encode(label)
        except ValueError as error:
            left_out.append(left_out_clip(row, None, str(error)))
            continue
        if encoded is not None:
            rows.append(row)
            labels.append(encoded)
    if not rows:
        problem = left_out[0]["problem"] if left_out else "their classes are excluded"
        raise ValueError(f"no clips are left of {len(source)}: {problem}")
    return StreamedClips(source, decoder, np.array(rows), np.stack(labels), largest_share), left_out


def find_sampled_facts(clips: StreamedClips, classes: Sequence[str], left_out: list[dict[str, Any]]) -> SplitFacts:
    """What is known of clips: classes of all, and facts of those that were looked at."""
    rows = [clips.facts[row] for row in clips.rows.tolist() if row in clips.facts]
    return SplitFacts(count_classes(clips.labels, classes), rows, left_out, len(clips))
