"""Live sound: a microphone, raw PCM from another program, or a file, and the events in it as they begin and end."""

import json
import logging
import queue
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soxr

from modeling_fftp.audio_stream_fftp import path_in_errors, read_blocks, resampled
from modeling_fftp.events_fftp import EventChange
from modeling_fftp.stream_fftp import FFTPStream
from modeling_fftp.times_fftp import refuse_wide_stride

from .load import warn_of_gaps
from .tag import load_tagger
from .texts import in_one_line, printable

logger = logging.getLogger(__name__)

# Sound that a program sends or a microphone gives at a time.
BLOCK_SECONDS = 0.05
# Sound of a microphone that may wait to be heard; more is dropped.
MOST_BEHIND_SECONDS = 10.0
BYTES_PER_SAMPLE = 2


def load_stream(
    model: str | Path,
    hop_seconds: float | None = None,
    memory_seconds: float | None = None,
    time_stride: int | None = None,
    threshold: float | None = None,
) -> FFTPStream:
    """A stream for a model that runs for hours: it forgets, by default in the time that it was trained to hear.

    Args:
        model: Folder or Hub id.
        hop_seconds: See `FFTPStream`.
        memory_seconds: See `FFTPStream`; default: the length of the pipeline's windows.
        time_stride: Frames between patches; default: the model's.
        threshold: See `FFTPStream`.

    Raises:
        OSError: There is no such model.
        ValueError: It is no clip classifier of this package.
    """
    tagger = load_tagger(model)
    if tagger.is_framewise:
        raise ValueError(f"{model} is a frame classifier; live sound needs a clip classifier")
    if time_stride is not None:
        refuse_wide_stride(tagger.model.config, time_stride, tagger.window_seconds)
        warn_of_gaps(tagger.model.config, time_stride)
        tagger.model.set_time_stride(time_stride)
    if memory_seconds is None:
        memory_seconds = tagger.window_seconds
    return tagger.model.stream(
        tagger.feature_extractor, hop_seconds=hop_seconds, memory_seconds=memory_seconds, threshold=threshold
    )


class LiveBuffer:
    """Sound between a device that does not wait and a model that may be slow.

    A device calls `put` from its own thread; iterating gives the blocks. Where too much waits, all of it is dropped
    and counted: one gap, after which the model hears what sounds now. The number of its samples stands in its place,
    so that times stay right; how many a device itself lost, it does not say.

    Args:
        sampling_rate: Rate of the sound in Hz.
        most_seconds: Sound that may wait.
    """

    def __init__(self, sampling_rate: int, most_seconds: float = MOST_BEHIND_SECONDS):
        self.sampling_rate = sampling_rate
        self.blocks: queue.Queue[tuple[int, np.ndarray] | None] = queue.Queue(round(most_seconds / BLOCK_SECONDS))
        self.dropped_seconds, self.gaps, self.overflows, self.is_closed = 0.0, 0, 0, False

    def put(self, samples: np.ndarray, overflowed: bool = False) -> None:
        """Take a block (samples,) from a device, which says whether it has lost some before."""
        if self.is_closed:
            return
        self.overflows += overflowed
        missing = self._drop_all() if self.blocks.full() else 0
        self.blocks.put_nowait((missing, samples))

    def _drop_all(self) -> int:
        """Drop what waits; how many samples are missing for that, those that had been before among them."""
        missing = dropped = 0
        # Who iterates may take some meanwhile.
        with suppress(queue.Empty):
            while True:
                before, samples = self.blocks.get_nowait()
                missing, dropped = missing + before + len(samples), dropped + len(samples)
        self.dropped_seconds, self.gaps = self.dropped_seconds + dropped / self.sampling_rate, self.gaps + 1
        return missing

    def close(self) -> None:
        """End the iteration, after what waits; a device may call this when nobody iterates any more."""
        self.is_closed = True
        # Wakes whoever waits; a full queue keeps nobody waiting.
        with suppress(queue.Full):
            self.blocks.put_nowait(None)

    def __iter__(self) -> Iterator[np.ndarray | int]:
        told = 0
        while not (self.is_closed and self.blocks.empty()):
            waiting = self.blocks.get()
            if waiting is None:
                continue
            missing, block = waiting
            if missing:
                yield missing
            yield block
            lost = self.gaps + self.overflows
            # Whenever it has doubled, so that nobody is flooded.
            if lost > 2 * told:
                logger.warning(
                    "Too slow: %.2f s of sound dropped so far; the device lost some %d times. A larger --time_stride "
                    "or --hop_seconds is faster",
                    self.dropped_seconds,
                    self.overflows,
                )
                told = lost


def read_pcm(file: BinaryIO, rate: int, channels: int, sampling_rate: int) -> Iterator[np.ndarray]:
    """Raw PCM as programs send it, such as `arecord -t raw -f S16_LE -r 16000`, as one channel at another rate.

    Args:
        file: 16-bit signed little-endian samples, channels side by side.
        rate: Rate of the file in Hz.
        channels: Channels of the file.
        sampling_rate: Wanted rate in Hz.

    Yields:
        (samples,), float32, as they come.
    """
    size = BYTES_PER_SAMPLE * channels

    def read() -> Iterator[tuple[np.ndarray, int]]:
        rest = b""
        while data := file.read(round(BLOCK_SECONDS * rate) * size):
            data = rest + data
            # What a pipe has at a time may end within a sample, and so may what a killed program leaves.
            whole = len(data) // size * size
            samples, rest = np.frombuffer(data[:whole], "<i2").reshape(-1, channels), data[whole:]
            yield samples.mean(axis=1, dtype=np.float32) / np.float32(2**15), rate

    yield from resampled(read(), sampling_rate)


def find_format(device: str | int | None, sampling_rate: int) -> tuple[int, int]:
    """Rate in Hz and channels that a microphone records: the wanted rate and one channel, or else its own."""
    import sounddevice

    own = sounddevice.query_devices(device, "input")
    own_rate = round(own["default_samplerate"])
    for rate, channels in ((sampling_rate, 1), (own_rate, 1), (own_rate, own["max_input_channels"])):
        with suppress(sounddevice.PortAudioError):
            sounddevice.check_input_settings(device, channels, "int16", samplerate=rate)
            return rate, channels
    # Opening it says what is wrong.
    return sampling_rate, 1


def open_microphone(buffer: LiveBuffer, device: str | int | None = None):
    """A microphone that fills a buffer with one channel at the buffer's rate; a context manager.

    Args:
        buffer: Buffer that takes the sound.
        device: Number or a part of the name, as `python -m sounddevice` lists them; None is the default.

    Raises:
        ModuleNotFoundError: sounddevice is not installed.
        OSError: PortAudio, which sounddevice needs, is not installed, or there is no such device.
    """
    try:
        import sounddevice
    except OSError as error:
        raise OSError("the microphone needs PortAudio: apt-get install libportaudio2") from error
    try:
        rate, channels = find_format(device, buffer.sampling_rate)
        logger.info("Microphone: %d Hz, channels: %d", rate, channels)
        resampler = soxr.ResampleStream(rate, buffer.sampling_rate, 1, dtype="float32")

        def take(data: np.ndarray, frames: int, time: Any, status: Any) -> None:
            samples = data.mean(axis=1, dtype=np.float32) / np.float32(2**15)
            buffer.put(resampler.resample_chunk(samples), status.input_overflow)

        return sounddevice.InputStream(
            samplerate=rate,
            blocksize=round(BLOCK_SECONDS * rate),
            device=device,
            channels=channels,
            # Integers cannot be NaN.
            dtype="int16",
            callback=take,
            # A device that goes away ends the sound.
            finished_callback=buffer.close,
        )
    except (ValueError, sounddevice.PortAudioError) as error:
        raise OSError(f"no microphone: {error}; `python -m sounddevice` lists what there is") from error


@contextmanager
def open_sound(
    source: str | None,
    sampling_rate: int,
    device: str | None = None,
    rate: int | None = None,
    channels: int | None = None,
) -> Iterator[Iterable[np.ndarray | int]]:
    """Blocks of live sound.

    Args:
        source: "-" for raw PCM on standard input, or a file; None is the microphone.
        sampling_rate: Wanted rate in Hz.
        device: The microphone, see `open_microphone`.
        rate: Rate of raw PCM in Hz; default: the wanted one.
        channels: Channels of raw PCM; default: 1.

    Raises:
        ModuleNotFoundError, OSError: As `open_microphone`; a file is opened later.
        ValueError: Options of another source.
    """
    if source != "-" and (rate or channels):
        raise ValueError("--rate and --channels are those of raw PCM, whose source is -")
    if source is not None and device is not None:
        raise ValueError(f"--device is a microphone's; the source is {source}")
    if source == "-":
        if sys.stdin is None:
            raise ValueError("standard input is closed; expected raw PCM there")
        yield read_pcm(sys.stdin.buffer, rate or sampling_rate, channels or 1, sampling_rate)
    elif source is not None:
        with path_in_errors(source):
            yield read_blocks(source, sampling_rate)
    else:
        buffer = LiveBuffer(sampling_rate)
        with open_microphone(buffer, int(device) if device and device.isdigit() else device):
            yield buffer


def listen(stream: FFTPStream, blocks: Iterable[np.ndarray | int]) -> Iterator[EventChange]:
    """Events of live sound, as they begin and end; an interruption from the keyboard ends it.

    Args:
        stream: Stream of a model.
        blocks: The sound, (samples,) each; a number stands for so many samples that were lost.

    Raises:
        ValueError: There is no sound.
    """
    try:
        for block in blocks:
            answers = stream.skip(block) if isinstance(block, (int, np.integer)) else stream.iterate(block)
            for answer in answers:
                yield from answer.changes
        if not stream.num_samples:
            raise ValueError("no samples")
    except KeyboardInterrupt:
        # The way to end it.
        pass
    yield from stream.finish()


def render_change(change: EventChange) -> str:
    """One line to read."""
    label = printable(in_one_line(change.label))
    return f"{change.seconds:>9.2f} s  {change.kind:<5}  {label}  {change.score:.3f}"


def render_change_json(change: EventChange) -> str:
    """A change as one line of JSON."""
    rounded = {"seconds": round(change.seconds, 3), "score": round(change.score, 4)}
    return json.dumps(change._asdict() | rounded, ensure_ascii=False)
