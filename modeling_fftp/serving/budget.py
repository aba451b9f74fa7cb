"""The time stride that a machine can afford."""

import logging
import statistics
import time

import numpy as np

from modeling_fftp import FFTPConfig
from modeling_fftp.audio_tagging_fftp import FFTPAudioTaggingPipeline

logger = logging.getLogger(__name__)

# Windows of sound that a measurement tags, and how often; the result is the median.
WINDOWS = 4
ROUNDS = 3


def candidate_strides(config: FFTPConfig) -> list[int]:
    """Strides to choose from: those that a model was trained for, else its own, twice and four times that."""
    if config.time_strides:
        return [*config.time_strides]
    logger.warning("The model was trained for one stride, %d; others cost accuracy", config.time_stride)
    return [config.time_stride * factor for factor in (1, 2, 4)]


def real_time_factors(tagger: FFTPAudioTaggingPipeline, batch_size: int = 1) -> dict[int, float]:
    """Seconds that this machine takes for a second of sound, features included, at each of `candidate_strides`.

    Args:
        tagger: The pipeline "audio-tagging".
        batch_size: Windows at a time.
    """
    config = tagger.model.config
    seconds = WINDOWS * tagger.window_seconds
    noise = np.random.default_rng(0).normal(size=round(seconds * config.sampling_rate)).astype(np.float32)
    factors = {}
    for stride in candidate_strides(config):
        times = []
        # The first call prepares what later ones find.
        for _ in range(1 + ROUNDS):
            started = time.perf_counter()
            tagger(noise, time_stride=stride, batch_size=batch_size)
            times.append(time.perf_counter() - started)
        factors[stride] = statistics.median(times[1:]) / seconds
    return factors


def choose_time_stride(factors: dict[int, float], budget: float) -> int:
    """The densest stride that keeps a budget.

    Args:
        factors: Real-time factor of each stride.
        budget: Highest real-time factor: 0.01 is a hundred times faster than the sound.

    Raises:
        ValueError: No stride keeps the budget.
    """
    affordable = [stride for stride, factor in factors.items() if factor <= budget]
    if not affordable:
        stride = min(factors, key=factors.__getitem__)
        raise ValueError(
            f"real_time_factor={budget:g} is out of reach on this machine: stride {stride}, the fastest, takes "
            f"{factors[stride]:.2g}"
        )
    return min(affordable)
