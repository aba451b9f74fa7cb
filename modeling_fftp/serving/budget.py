"""The time stride that a machine can afford."""

import logging
import statistics
import time
from typing import Any

import numpy as np

from modeling_fftp import FFTPConfig
from modeling_fftp.audio_tagging_fftp import FFTPAudioTaggingPipeline
from modeling_fftp.times_fftp import frame_seconds

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


def real_time_factors(
    tagger: FFTPAudioTaggingPipeline, window_seconds: float | None = None, **options: Any
) -> dict[int, float]:
    """Seconds that this machine takes for a second of sound, features included, at each of `candidate_strides`.

    Args:
        tagger: The pipeline "audio-tagging".
        window_seconds: Length of a window; None is the pipeline's.
        **options: Others of the pipeline that its cost depends on.
    """
    config, (window, _) = tagger.model.config, tagger.check_windows(window_seconds=window_seconds)
    seconds, step = WINDOWS * window, frame_seconds(config.sampling_rate)[1]
    noise = np.random.default_rng(0).normal(size=round(seconds * config.sampling_rate)).astype(np.float32)
    factors = {}
    # No other stride may be as long as a window.
    fitting = [
        stride for stride in candidate_strides(config) if stride == config.time_stride or stride * step < window
    ]
    for stride in fitting:
        times = []
        # The first call prepares what later ones find.
        for _ in range(1 + ROUNDS):
            started = time.perf_counter()
            tagger(noise, time_stride=stride, window_seconds=window, **options)
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
