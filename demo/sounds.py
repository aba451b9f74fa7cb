"""Ten kinds of sound, synthesised with random pitch, timing, loudness and background."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import butter, lfilter, sosfilt

SAMPLING_RATE = 16000
DTMF_ROWS = (697, 770, 852, 941)
DTMF_COLUMNS = (1209, 1336, 1477, 1633)
BELL_PARTIALS = (0.56, 0.92, 1.19, 1.71, 2.0, 2.74, 3.0, 3.76)


def times(seconds: float) -> np.ndarray:
    """Moments of the samples of a sound, in seconds."""
    return np.arange(int(seconds * SAMPLING_RATE)) / SAMPLING_RATE


def glide(frequency: np.ndarray) -> np.ndarray:
    """Phase in radians of a tone whose frequency in Hz changes from sample to sample."""
    return 2 * np.pi * np.cumsum(frequency) / SAMPLING_RATE


def band(noise: np.ndarray, low: float, high: float) -> np.ndarray:
    """Noise between two frequencies in Hz."""
    return sosfilt(butter(2, (low, high), "bandpass", fs=SAMPLING_RATE, output="sos"), noise)


def repeat(rng: np.random.Generator, seconds: float, period: float, jitter: float, make: Callable) -> np.ndarray:
    """Sounds from `make()` every `period` seconds, each up to `jitter` seconds late."""
    sound = np.zeros(len(times(seconds)))
    for start in np.arange(rng.uniform(0, period / 2), seconds, period):
        piece = make()
        first = int((start + rng.uniform(0, jitter)) * SAMPLING_RATE)
        room = max(0, len(sound) - first)
        sound[first : first + len(piece)] += piece[:room]
    return sound


def siren(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """A tone that wails up and down."""
    t = times(seconds)
    middle, depth, rate = rng.uniform(700, 1100), rng.uniform(0.25, 0.45), rng.uniform(0.5, 1.2)
    phase = glide(middle * (1 + depth * np.sin(2 * np.pi * (rate * t + rng.uniform()))))
    return np.sin(phase) + 0.4 * np.sin(2 * phase) + 0.2 * np.sin(3 * phase)


def bell(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Struck metal: inharmonic partials, high ones dying first."""
    t, pitch = times(seconds), rng.uniform(350, 900)
    decay = rng.uniform(1.5, 3.0)
    return sum(np.sin(2 * np.pi * pitch * p * t + rng.uniform(0, 6.3)) * np.exp(-decay * p * t) for p in BELL_PARTIALS)


def dtmf(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Keys of a telephone: two tones at a time."""
    length = rng.uniform(0.08, 0.16)

    def key() -> np.ndarray:
        return sum(np.sin(2 * np.pi * rng.choice(tones) * times(length)) for tones in (DTMF_ROWS, DTMF_COLUMNS))

    return repeat(rng, seconds, length * rng.uniform(1.4, 2.0), 0.0, key)


def engine(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Many harmonics of a low, unsteady pitch."""
    t = times(seconds)
    phase = glide(
        rng.uniform(35, 80) * (1 + 0.15 * np.sin(2 * np.pi * rng.uniform(0.2, 0.6) * t + rng.uniform(0, 6.3)))
    )
    return sum(np.sin(k * phase + rng.uniform(0, 6.3)) / k**0.7 for k in range(1, 25))


def rain(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Hiss of high frequencies with single drops."""
    noise = band(rng.normal(size=len(times(seconds))), 1500, 7500)
    drops = (rng.uniform(size=len(noise)) < rng.uniform(0.002, 0.006)) * rng.exponential(6.0, len(noise))
    return noise + band(drops, 2000, 7000)


def wind(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Low noise in slow gusts."""
    t = times(seconds)
    gusts = 1 + 0.8 * np.sin(2 * np.pi * rng.uniform(0.3, 0.8) * t + rng.uniform(0, 6.3))
    return gusts * band(rng.normal(size=len(t)), 60, rng.uniform(350, 600))


def bird(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Chirps that glide between high pitches."""
    top = rng.uniform(3000, 5500)

    def chirp() -> np.ndarray:
        t = times(rng.uniform(0.05, 0.12))
        progress = t / t[-1]
        return np.sin(glide(top * (1 - rng.uniform(0.15, 0.4) * progress))) * np.sin(np.pi * progress)

    return repeat(rng, seconds, rng.uniform(0.14, 0.3), 0.05, chirp)


def alarm(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Steady beeps of one high pitch."""
    pitch, length = rng.uniform(2400, 3400), rng.uniform(0.1, 0.25)
    return repeat(rng, seconds, 2 * length, 0.0, lambda: np.sign(np.sin(2 * np.pi * pitch * times(length))))


def knock(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Blows on wood: short low thuds."""
    pitch = rng.uniform(120, 260)

    def thud() -> np.ndarray:
        t = times(0.12)
        body = np.sin(2 * np.pi * pitch * t) + 0.5 * np.sin(2 * np.pi * 2.3 * pitch * t)
        return body * np.exp(-40 * t) * rng.uniform(0.7, 1.0)

    return repeat(rng, seconds, rng.uniform(0.18, 0.35), 0.03, thud)


def clock(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Ticks: very short clicks of high resonances, evenly spaced."""
    pitch = rng.uniform(2500, 4500)

    def tick() -> np.ndarray:
        t = times(0.02)
        return (np.sin(2 * np.pi * pitch * t) + 0.5 * rng.normal(size=len(t))) * np.exp(-300 * t)

    return repeat(rng, seconds, rng.uniform(0.2, 0.5), 0.0, tick)


KINDS = {make.__name__: make for make in (alarm, bell, bird, clock, dtmf, engine, knock, rain, siren, wind)}


def background(rng: np.random.Generator, num_samples: int) -> np.ndarray:
    """Noise between white and brown."""
    return lfilter([1.0], [1.0, -rng.uniform(0.0, 0.97)], rng.normal(size=num_samples))


def make_clip(kind: str, rng: np.random.Generator) -> np.ndarray:
    """One clip of a kind: 1 to 2.5 s, a random part of it silent, over a background 10 to 30 dB down.

    Returns:
        Samples in [-1, 1], (samples,), float32.
    """
    total = rng.uniform(1.0, 2.5)
    sounding = total * rng.uniform(0.6, 1.0)
    sound = KINDS[kind](rng, sounding)
    clip = np.zeros(len(times(total)))
    first = rng.integers(0, len(clip) - len(sound) + 1)
    clip[first : first + len(sound)] = sound / np.sqrt(np.mean(sound**2))
    noise = background(rng, len(clip))
    clip += noise / np.sqrt(np.mean(noise**2)) * 10 ** (-rng.uniform(10, 30) / 20)
    peak = 10 ** (-rng.uniform(1, 20) / 20)
    return (clip * peak / np.abs(clip).max()).astype(np.float32)


def write_sounds(folder: Path, clips_per_split: dict[str, int], seed: int) -> None:
    """Write `folder/SPLIT/KIND/NUMBER.wav`; the same seed writes the same files."""
    rng = np.random.default_rng(seed)
    for split, count in clips_per_split.items():
        for kind in KINDS:
            (folder / split / kind).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                path = folder / split / kind / f"{index:03d}.wav"
                soundfile.write(path, make_clip(kind, rng), SAMPLING_RATE, subtype="PCM_16")


def write_recording(path: Path, kinds: Sequence[str], seconds: float, seed: int) -> None:
    """Write a recording of so many seconds of each kind, one after the other, each of several clips."""
    rng, pieces = np.random.default_rng(seed), []
    for kind in kinds:
        length = 0
        while length < seconds * SAMPLING_RATE:
            clip = make_clip(kind, rng)
            pieces.append(0.3 * clip / np.abs(clip).max())
            length += len(clip)
    soundfile.write(path, np.concatenate(pieces), SAMPLING_RATE, subtype="PCM_16")
