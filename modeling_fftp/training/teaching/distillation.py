"""Distillation: a student learns from a teacher's answers to the sound that it hears itself."""

import inspect
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import soxr
import torch
from datasets import Dataset, Features, List, Value, concatenate_datasets
from datasets.fingerprint import Hasher
from torch import nn
from transformers import AutoConfig, AutoFeatureExtractor, AutoModelForAudioClassification, BatchFeature

from modeling_fftp.configuration_fftp import MULTI_LABEL, FFTPConfig
from modeling_fftp.convert.audioset import find_problem_type
from modeling_fftp.convert.sources import refuse_missing
from modeling_fftp.pretrained import load_pretrained
from modeling_fftp.scores_fftp import label_names, label_thresholds
from modeling_fftp.serving.load import hash_model

logger = logging.getLogger(__name__)

# Clips at a time where a teacher answers beforehand.
BATCH = 16


@dataclass
class Distillation:
    """How much a student learns from a teacher, and how soft the teacher's answers are.

    Args:
        share: Share of the teacher in the loss; the rest is that of the labels.
        temperature: Divides the logits of both.
    """

    share: float = 0.5
    temperature: float = 1.0

    def loss(self, logits: torch.Tensor, teacher_logits: torch.Tensor, is_multi_label: bool) -> torch.Tensor:
        """The cross entropy of the student's answers with the teacher's, a scalar in float32.

        Source: Hinton et al. 2015, section 2: the cross entropy at a temperature, times its square. Where a clip can
        have several classes, each is a distribution of its own.

        Args:
            logits: (batch, labels).
            teacher_logits: Logits of the same labels in the same order.
            is_multi_label: Whether a clip can have several.
        """
        student, teacher = (x.float() / self.temperature for x in (logits, teacher_logits))
        if is_multi_label:
            loss = nn.functional.binary_cross_entropy_with_logits(student, teacher.sigmoid())
        else:
            loss = nn.functional.cross_entropy(student, teacher.softmax(dim=-1))
        return loss * self.temperature**2


class Teacher:
    """An audio classifier that answers for its own classes, or for those that a student chooses.

    It hears sound by its own extractor, at its own rate and length.

    Args:
        source: Folder or Hub id of any that `AutoModelForAudioClassification` loads.
        sampling_rate: Rate of the sound that it will be given, in Hz.
        device: Device that it runs on.
        dtype: Type of its matrix products, where they are not in float32.
        trust_remote_code: Whether code that comes with it may run.
    """

    def __init__(
        self,
        source: str,
        sampling_rate: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        trust_remote_code: bool = False,
    ):
        refuse_missing(source)
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
        self.source, self.known = source, label_names(config)
        # Score from which each counts as heard; models from elsewhere have none of their own.
        own = config.thresholds if config.model_type == FFTPConfig.model_type else None
        self.known_thresholds = label_thresholds(self.known, own)
        self.choose(self.known)
        self.problem_type = find_problem_type(config)
        self.extractor = AutoFeatureExtractor.from_pretrained(source, trust_remote_code=trust_remote_code)
        # In float32, whatever type it was saved in: the extractor's output is, and `dtype` is asked for besides.
        model, _ = load_pretrained(
            AutoModelForAudioClassification, source, dtype=torch.float32, trust_remote_code=trust_remote_code
        )
        self.model = model.requires_grad_(False).to(device)
        self.sampling_rate, self.device, self.dtype = sampling_rate, torch.device(device), dtype
        # Some extractors pad by themselves, to the length that their models need; others only where they are asked to.
        padding = inspect.signature(self.extractor.__call__).parameters.get("padding")
        self.pads = padding is None or padding.default is not False

    def choose(self, classes: Sequence[str]) -> None:
        """Answer for these classes from now on, in their order.

        Raises:
            ValueError: The teacher does not know a class.
        """
        self.classes, self.order = [*classes], find_order(self.source, self.known, classes)

    @property
    def thresholds(self) -> list[float]:
        """Score from which each of the classes that it answers for counts as heard."""
        return [self.known_thresholds[place] for place in self.order]

    @property
    def is_multi_label(self) -> bool:
        """Whether it finds several classes in one clip; where its config does not say, it does not."""
        return self.problem_type == MULTI_LABEL

    def refuse_other_kind(self, is_multi_label: bool) -> None:
        """Stop where its answers mean something else than the student's.

        Raises:
            ValueError: It was trained for one class per clip and the student for several, or the other way round.
        """
        if self.problem_type is not None and self.is_multi_label != is_multi_label:
            kinds = ["one class per clip", "several"]
            raise ValueError(
                f"the teacher {self.source} is for {kinds[self.is_multi_label]}, the data for {kinds[is_multi_label]}"
            )

    @torch.no_grad()
    def __call__(self, waveforms: Sequence[np.ndarray | torch.Tensor]) -> torch.Tensor:
        """Logits (clips, labels), float32, of clips (samples,), in the student's order."""
        rate = self.extractor.sampling_rate
        clips = [wave.cpu().numpy() if isinstance(wave, torch.Tensor) else wave for wave in waveforms]
        if rate != self.sampling_rate:
            clips = [soxr.resample(clip, self.sampling_rate, rate) for clip in clips]
        if self.pads:
            return self._answer(clips)
        # Padding that nobody masks would change the answers: only clips of one length go together.
        groups: dict[int, list[int]] = {}
        for index, clip in enumerate(clips):
            groups.setdefault(len(clip), []).append(index)
        logits = torch.cat([self._answer([clips[index] for index in group]) for group in groups.values()])
        order = [index for group in groups.values() for index in group]
        return logits[torch.tensor(order, device=logits.device).argsort()]

    def _answer(self, clips: list[np.ndarray]) -> torch.Tensor:
        """Logits (clips, labels) of clips at the teacher's rate."""
        try:
            features = self.extractor(clips, sampling_rate=self.extractor.sampling_rate, return_tensors="pt")
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
                logits = self.model(**BatchFeature(features).to(self.device)).logits
        except torch.OutOfMemoryError:
            # Of the device, not of these clips; `auto_find_batch_size` knows it by its type.
            raise
        except (ValueError, RuntimeError) as error:
            lengths = sorted(len(clip) for clip in clips)
            raise ValueError(
                f"the teacher {self.source} cannot hear clips of {lengths[0]} to {lengths[-1]} samples: {error}"
            ) from error
        return logits.float()[:, self.order]

    def report(self, waveforms: Sequence[np.ndarray | torch.Tensor]) -> None:
        """Say in the log what it costs on clips like these."""
        size = sum(parameter.numel() * parameter.element_size() for parameter in self.model.parameters())
        self(waveforms)
        start = time.perf_counter()
        self(waveforms).cpu()
        milliseconds = 1000 * (time.perf_counter() - start) / len(waveforms)
        logger.info("Teacher %s: %.1f MiB of weights, %.1f ms per clip", self.source, size / 2**20, milliseconds)

    @cached_property
    def digest(self) -> str:
        """Digest of its model, type and extractor."""
        return Hasher.hash((self.dtype, self.extractor.to_dict(), hash_model(self.model)))

    def answer(self, clips: Dataset) -> Dataset:
        """`teacher_logits`, (labels,), of each clip, in the cache of `datasets`."""
        sounds = clips.select_columns("audio")
        return sounds.map(
            lambda batch: {"teacher_logits": self(batch["audio"]).cpu().numpy()},
            batched=True,
            batch_size=BATCH,
            remove_columns="audio",
            features=Features({"teacher_logits": List(Value("float32"))}),
            new_fingerprint=Hasher.hash((sounds._fingerprint, self.classes, self.digest)),
            desc="The teacher answers",
        ).with_format("numpy")


def find_order(source: str, known: Sequence[str], classes: Sequence[str]) -> list[int]:
    """Place of each class among those that a teacher knows.

    Raises:
        ValueError: The teacher does not know a class.
    """
    places = {name: index for index, name in enumerate(known)}
    unknown = [name for name in classes if name not in places]
    if unknown:
        raise ValueError(
            f"the teacher {source} does not know {len(unknown)} of {len(classes)} classes, such as {unknown[0]!r}; it "
            f"tells apart {[*known[:10]]}{' and others' if len(known) > 10 else ''}"
        )
    return [places[name] for name in classes]


def add_answers(clips: Dataset, teacher: Teacher) -> Dataset:
    """The clips with `teacher_logits`, (labels,), of each: they stay what they are where no sound is changed."""
    logger.info("The teacher answers once for each of %d clips, since none is changed", len(clips))
    return concatenate_datasets([clips, teacher.answer(clips)], axis=1).with_format("numpy")
