"""Small classifiers on a frozen model: from labelled sound to results, and a folder whose head is the linear probe."""

import logging
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import EvalPrediction

from feature_extraction import FFTPFeatureExtractor, SpecMaskDataCollator
from modeling_fftp import FFTPConfig, FFTPForAudioClassification
from modeling_fftp.convert.sources import find_kind
from modeling_fftp.heads_fftp import FRAMES, find_saved_task
from modeling_fftp.hub.card import write_card
from modeling_fftp.hub.efficiency import measure_efficiency
from modeling_fftp.hub.run_files import CALIBRATION, DATA, EFFICIENCY, EVALUATED, PROBE, results_of
from modeling_fftp.loss_fftp import classification_loss

from ..arguments import DataArguments, FFTPTrainingArguments, ModelArguments
from ..calibration import Calibration, apply_calibration, fit_calibration, measure_calibration
from ..command_line import parse_with_data
from ..contradictions import refuse_output_dir
from ..data.arguments import MAX_SECONDS
from ..data.decoding import clip_lengths
from ..data.description import describe_data
from ..data.loading import Clips, load_clips
from ..data.plan import plan_data
from ..data.sources import public_name
from ..evaluation import Scorer, build_scorer, only_numbers
from ..model import build_model
from ..model_arguments import find_sampling_rate, refuse_impossible
from ..results import write_per_class, write_results
from ..session import begin
from .classifiers import LinearProbe, fit_linear, neighbour_scores

logger = logging.getLogger(__name__)

# What only training does with data.
UNUSED = ("streaming", "cache_features", "features_on_device", "max_seconds")
# States and labels of a split.
Split = tuple[np.ndarray, np.ndarray]


@dataclass
class ProbeArguments:
    """Where the results go, and how."""

    output_dir: str | None = field(default=None, metadata={"help": "Folder to create."})
    batch_size: int = field(default=32, metadata={"help": "Clips at a time."})
    seed: int = field(default=42, metadata={"help": "Draws the clips that validate, where no split does."})
    target_precision: float | None = field(
        default=None, metadata={"help": "Thresholds that keep this precision; default: those of the highest F1."}
    )
    hub_license: str | None = field(default=None, metadata={"help": "Licence of the weights, for the card."})


def probe(arguments: Sequence[str]) -> None:
    """Compute the states of all clips once, fit both classifiers, and leave results, card and model in a folder.

    Args:
        arguments: Words of the command line: the data, then options.

    Raises:
        SystemExit: Arguments that are unknown or missing.
        ValueError: Data or a checkpoint that cannot be used.
    """
    groups = parse(arguments)
    with begin(groups[-1]):
        fit_and_save(*groups)


def fit_and_save(
    model_arguments: ModelArguments, data: DataArguments, own: ProbeArguments, training: FFTPTrainingArguments
) -> None:
    """The steps of a probe, into a folder that no other run writes to."""
    source = model_arguments.model_name_or_path
    refuse_untrained_state(source)
    refuse_impossible(model_arguments)
    plan = plan_data(data, training, sampling_rate=find_sampling_rate(model_arguments))
    clips = load_clips(plan, data, training)
    scorer = build_scorer(clips.classes)
    seconds = min(clips.longest_seconds, MAX_SECONDS)
    model, extractor = build_model(model_arguments, clips, seconds)
    began = time.monotonic()
    splits = find_states(model.to(training.device).eval(), extractor, clips, own.batch_size)
    described = {"model": public_name(source), "metric": clips.metric}
    described["seconds_of_states"] = time.monotonic() - began
    best, described["linear"] = choose_linear(splits, model.config)
    described["neighbours"] = measure_neighbours(splits, clips, scorer)
    states, labels = splits["validation"]
    set_head(model, best)
    calibration = fit_calibration(best(states), labels, model.config, own.target_precision)
    apply_calibration(model, calibration)
    model.save_pretrained(training.output_dir)
    extractor.save_pretrained(training.output_dir)
    logits = {name: best(states) / calibration.temperature for name, (states, _) in splits.items()}
    report(logits, splits, model.config, calibration, scorer, training, described)
    write_results(training, DATA, describe_data(data, clips))
    write_results(training, EFFICIENCY, measure_efficiency(training.output_dir, seconds))
    write_card(training.output_dir, license=own.hub_license)


def report(
    logits: dict[str, np.ndarray],
    splits: dict[str, Split],
    config: FFTPConfig,
    calibration: Calibration,
    scorer: Scorer,
    training: FFTPTrainingArguments,
    described: dict,
) -> None:
    """Write the results of the splits that are evaluated, as `fftp train` does, and what is special to a probe."""
    measured, metric = {}, described["metric"]
    for name in [name for name in EVALUATED if name in splits]:
        labels = splits[name][1]
        measured[name] = measure_calibration(logits[name], labels, config, calibration)
        results = scorer(EvalPrediction(logits[name], labels))
        metrics = {f"{name}_{key}": value for key, value in only_numbers(results).items()}
        write_results(training, results_of(name), metrics)
        write_per_class(training, name, results)
        print(describe(name, metric, results[metric], described["neighbours"][name]))
    write_results(training, PROBE, described)
    write_results(training, CALIBRATION, asdict(calibration) | measured)


def parse(
    arguments: Sequence[str],
) -> tuple[ModelArguments, DataArguments, ProbeArguments, FFTPTrainingArguments]:
    """Dataclasses from the words of the command line; the last is what loading and evaluating want to know.

    Raises:
        SystemExit: Arguments that are unknown, missing, or for training alone.
    """
    groups = (ModelArguments, DataArguments, ProbeArguments)
    words = [re.sub(r"^--model(?==|$)", "--model_name_or_path", word) for word in arguments]
    usage = "fftp probe DATA --model MODEL --output_dir FOLDER [OPTION ...]"
    model, data, own = parse_with_data(groups, words, "probe", usage, UNUSED, batch_size="[1, inf)")
    for name, value in (("--model", model.model_name_or_path), ("--output_dir", own.output_dir)):
        if value is None:
            raise SystemExit(f"probe: {name} is missing: {usage}")
    if data.task != "clips":
        raise SystemExit("probe: --task frames is for training")
    for name in UNUSED:
        if getattr(data, name):
            raise SystemExit(f"probe: --{name} is for training")
    training = FFTPTrainingArguments(own.output_dir, seed=own.seed, report_to="none")
    # As it was understood: "~" is a home folder.
    refuse_output_dir("probe", training.output_dir)
    return model, data, own, training


def refuse_untrained_state(source: str) -> None:
    """Refuse a frame classifier, whose state of a whole clip was never trained.

    Raises:
        ValueError: The source is a frame classifier.
    """
    if find_kind(source) != FFTPConfig.model_type:
        return
    if find_saved_task(FFTPConfig.from_pretrained(source)) == FRAMES:
        raise ValueError(f"{source} is a frame classifier, whose state of a whole clip was never trained")


def find_states(
    model: FFTPForAudioClassification, extractor: FFTPFeatureExtractor, clips: Clips, batch_size: int
) -> dict[str, Split]:
    """Compute what the head of a model gets, (clips, hidden) float32, and labels, for every split."""
    collator, splits = SpecMaskDataCollator(extractor), {}
    for name, split in clips.splits.items():
        # Clips of about one length share a batch: little is padded.
        order = np.argsort(clip_lengths(split), kind="stable")
        loader = DataLoader(split.select(order), batch_size, collate_fn=collator)
        parts = [states_of(model, batch) for batch in loader]
        places = np.argsort(order)
        splits[name] = tuple(np.concatenate(columns)[places] for columns in zip(*parts, strict=True))
    return splits


@torch.inference_mode()
def states_of(model: FFTPForAudioClassification, batch: dict[str, torch.Tensor]) -> Split:
    """States and labels of a batch."""
    labels = batch.pop("labels").numpy()
    pooled = model.base_model(**{name: value.to(model.device) for name, value in batch.items()}, pooled_only=True)
    return model.classifier.normalize(pooled.pooler_output).float().cpu().numpy(), labels


def choose_linear(splits: dict[str, Split], config: FFTPConfig) -> tuple[LinearProbe, dict]:
    """The probe with the lowest loss on validation, which makes its scores mean something too, and what was tried."""
    began = time.monotonic()
    probes = fit_linear(*splits["train"], config.num_labels)
    states, labels = map(torch.from_numpy, splits["validation"])
    losses = {
        strength: classification_loss(labels, torch.from_numpy(probe(states.numpy())), config).item()
        for strength, probe in probes.items()
    }
    chosen = min(losses, key=losses.get)
    return probes[chosen], {"C": chosen, "validation_loss": losses, "seconds": time.monotonic() - began}


def measure_neighbours(splits: dict[str, Split], clips: Clips, scorer: Scorer) -> dict:
    """Measure nearest neighbours on each split, as many as do best on validation."""

    def scores_of(name: str) -> dict[int, np.ndarray]:
        return neighbour_scores(*splits["train"], len(clips.classes), splits[name][0])

    def measure(scores: np.ndarray, name: str) -> float | None:
        return scorer(EvalPrediction(scores, splits[name][1]))[clips.metric]

    tried = {count: measure(scores, "validation") for count, scores in scores_of("validation").items()}
    chosen = max(tried, key=lambda count: tried[count] or 0.0)
    result = {"k": chosen, "validation": tried[chosen]}
    if "test" in splits:
        result["test"] = measure(scores_of("test")[chosen], "test")
    return result


def set_head(model: FFTPForAudioClassification, probe: LinearProbe) -> None:
    """Let the head of a model compute what a probe does."""
    with torch.no_grad():
        model.classifier.dense.weight.copy_(torch.from_numpy(probe.weight))
        model.classifier.dense.bias.copy_(torch.from_numpy(probe.bias))


def describe(name: str, metric: str, linear: float | None, neighbours: float | None) -> str:
    """Results of a split in a line."""
    linear, neighbours = ("not defined" if value is None else f"{value:.4f}" for value in (linear, neighbours))
    return f"{name} {metric}: linear {linear}, nearest neighbours {neighbours}"
