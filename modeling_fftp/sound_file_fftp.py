"""Sound files by libsndfile, read to where they end: what a header claims is not trusted."""

import io
import logging
import mmap
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
from transformers.utils.logging import get_logger

from .file_pieces_fftp import FilePieces
from .mpeg_fftp import repair
from .wav_fftp import finish_wav

try:
    import soundfile
except ImportError:
    soundfile = None

logger = get_logger(__name__)

# Samples of all channels in a block at most.
BLOCK_SAMPLES = 2**22
OGG_PAGE = b"OggS\0"
# An error of libsndfile.
NOT_A_FILE = 7
# Sizes of sound in a header that libsndfile corrects, as its log has them: said, and true.
CORRECTED_SIZE = re.compile(
    r"^\s*(?:data|SSND|Data Size|BODY|Riff size|riff)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE
)
# What recorders write in place of a size that they do not know yet, and the share of the sound that may be missing
# without a word.
UNKNOWN_SIZES, NEGLIGIBLE = (range(0x7FFF0000, 0x80010000), range(0xFFFF0000, 2**32)), 0.01
# Seconds of an Ogg stream that its decoder may pass over.
PASSED_OVER = 0.1
# What a FLAC can count to at most, as some encoders write it; libsndfile says more where the header says nothing.
UNKNOWN_FRAMES = 2**36 - 1


class SequentialFile(object if soundfile is None else soundfile.SoundFile):
    """A sound file that is read from its beginning: soundfile seeks after every read of one where it can.

    That fails where a FLAC does not say how long it is.
    """

    # What its header says of its length, where that is not so: a level of the log, and words.
    doubt: tuple[int, str] | None = None

    def seekable(self) -> bool:
        """Never."""
        return False


def decode_file(source: str | bytes | os.PathLike, block_seconds: float) -> Iterator[tuple[np.ndarray, int]]:
    """Decode a file, mixed down to one channel.

    Args:
        source: A path, or the bytes of a file.
        block_seconds: Length of a block.

    Yields:
        (samples,), float32, and their rate in Hz.

    Raises:
        ValueError: It cannot be decoded.
        ImportError: soundfile is not installed.
    """
    with open_file(source) as file:
        if file.doubt is not None:
            level, words = file.doubt
            logger.log(level, "%s: %s", "audio bytes" if isinstance(source, bytes) else os.fspath(source), words)
        length = min(int(block_seconds * file.samplerate), BLOCK_SAMPLES // file.channels)
        buffer, count = np.empty((length, file.channels), np.float32), 0
        while True:
            with _decoding_errors():
                block = file.read(out=buffer)
            if not len(block):
                break
            count += len(block)
            yield block.mean(axis=1), file.samplerate
        # libvorbis and libopus pass over damaged pages without a word, and all that follows comes too early.
        # A FLAC may break off between two frames, which libFLAC takes for its end.
        is_known = file.subtype in ("VORBIS", "OPUS") or (file.format == "FLAC" and file.frames < UNKNOWN_FRAMES)
        if is_known and file.frames - count > PASSED_OVER * file.samplerate:
            seconds, whole = count / file.samplerate, file.frames / file.samplerate
            raise ValueError(f"cannot decode: damaged, {seconds:.1f} of {whole:.1f} s of sound can be read")


@contextmanager
def open_file(source: str | bytes | os.PathLike) -> Iterator[SequentialFile]:
    """Open a file, as `decode_file` does; `frames` is what its header claims, or of an MP3 what there is."""
    if soundfile is None:
        raise ImportError("reading sound files needs soundfile: pip install soundfile")
    with ExitStack() as stack:
        if not isinstance(source, bytes) and is_pipe(source):
            with _decoding_errors(), open(source, "rb") as pipe:
                source = pipe.read()
        if not isinstance(source, bytes) and os.fsdecode(source).lower().endswith(".raw"):
            # soundfile asks for a rate then.
            raise ValueError("cannot decode: raw samples, without a header")
        with _decoding_errors():
            file = stack.enter_context(SequentialFile(_for_libsndfile(source)))
            if file.format in REPAIRS:
                file = _repaired(file, source, stack)
            file.doubt = file.doubt or _find_lost_end(file)
        yield file


def _for_libsndfile(source: str | bytes | os.PathLike) -> str | bytes | os.PathLike | io.BytesIO:
    """A source as soundfile takes it: of a path its bytes, which need not be UTF-8, where paths are bytes."""
    if isinstance(source, bytes):
        return io.BytesIO(source)
    return os.fsencode(source) if os.name == "posix" else source


def is_pipe(path: str | os.PathLike) -> bool:
    """Whether a path can be read once only, from its beginning.

    Raises:
        ValueError: There is nothing to read.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        hint = "; URLs are not read, download the file" if "://" in os.fsdecode(path) else ""
        raise ValueError(f"cannot decode: {error.strerror}{hint}") from error
    if stat.S_ISDIR(mode):
        raise ValueError("cannot decode: a folder")
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise ValueError("cannot decode: a device, which has no end")
    return not stat.S_ISREG(mode)


def _repaired(file: SequentialFile, source: str | bytes | os.PathLike, stack: ExitStack) -> SequentialFile:
    """A file, opened anew where its header is wrong.

    Raises:
        ValueError: It holds what libsndfile would pass over.
    """
    data = source
    if not isinstance(source, bytes):
        with open(source, "rb") as binary:
            try:
                data = stack.enter_context(mmap.mmap(binary.fileno(), 0, access=mmap.ACCESS_READ))
            except OSError:
                # Some network drives cannot map files.
                data = binary.read()
    repaired = REPAIRS[file.format](data, file.frames)
    if repaired is None:
        if file.format == "OGG" and not ends_ogg(data):
            file.doubt = logging.WARNING, f"the stream breaks off after {file.frames / file.samplerate:.1f} s of sound"
        return file
    true = stack.enter_context(SequentialFile(repaired))
    true.doubt = _differ(file.frames / file.samplerate, true)
    return true


def _find_lost_end(file: SequentialFile) -> tuple[int, str] | None:
    """What the header of a file that was cut off says, by what libsndfile found wrong with it."""
    for said, true in CORRECTED_SIZE.findall(file.extra_info):
        is_known = not any(int(said) in sizes for sizes in UNKNOWN_SIZES)
        if is_known and int(true) < (1 - NEGLIGIBLE) * int(said):
            return _differ(file.frames / file.samplerate * int(said) / max(1, int(true)), file)
    return None


def _differ(claimed_seconds: float, file: SequentialFile) -> tuple[int, str]:
    """How much sound a header claims, and how much there is; what is less is a warning."""
    seconds = file.frames / file.samplerate
    words = f"the header claims {claimed_seconds:.1f} s of sound, the file holds {seconds:.1f} s"
    return logging.WARNING if seconds < claimed_seconds else logging.INFO, words


def refuse_chained_ogg(data: bytes | mmap.mmap, claimed: int) -> None:
    """Stop on several streams one after another, of which libsndfile reads the first.

    Raises:
        ValueError: The file holds several.
    """
    begun, place = False, data.find(OGG_PAGE)
    while place >= 0 and place + 5 < len(data):
        # The first page of a stream (RFC 3533, section 6).
        is_first = bool(data[place + 5] & 2)
        if is_first and begun:
            raise ValueError("cannot decode: several Ogg streams, one after another; expected one")
        begun = begun or not is_first
        place = data.find(OGG_PAGE, place + 1)


def ends_ogg(data: bytes | mmap.mmap) -> bool:
    """Whether the last page of an Ogg file is the last of its stream (RFC 3533, section 6)."""
    place = data.rfind(OGG_PAGE)
    return place + 5 < len(data) and bool(data[place + 5] & 4)


# By format, what finds out whether the header tells the truth: from the data and the samples that libsndfile finds.
REPAIRS: dict[str, Callable[[bytes | mmap.mmap, int], FilePieces | None]] = {
    "MP3": repair, "WAV": finish_wav, "WAVEX": finish_wav, "OGG": refuse_chained_ogg,
}  # fmt: skip


@contextmanager
def _decoding_errors() -> Iterator[None]:
    try:
        yield
    except soundfile.SoundFileError as error:
        # Of a file that is there, this means that no decoder knows it.
        is_unknown = getattr(error, "code", None) == NOT_A_FILE
        problem = "format not recognised" if is_unknown else getattr(error, "error_string", error)
        raise ValueError(f"cannot decode: {problem}") from error
    except OSError as error:
        # A disk or drive that fails at one file of many.
        raise ValueError(f"cannot decode: {error.strerror or error}") from error
