"""MP3 files as their frames are, since their headers may be missing, wrong, or those of a part.

libsndfile takes the length from a Xing header, or guesses it from the first frame, and reads no further. But every
frame says where the next one begins (ISO 11172-3, 2.4.2.3; ISO 13818-3), so they can be counted without decoding.
"""

import mmap
import re
import struct
from functools import lru_cache
from typing import NamedTuple

from .file_pieces_fftp import FilePieces

# kbit/s of layer 3 by index, of MPEG 1 and of MPEG 2 and 2.5. Free bit rates, index 0, give frames no length.
BIT_RATES = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
}
# Hz by index of MPEG 1; the versions by their bits, and what they divide that by.
SAMPLING_RATES = (44100, 48000, 32000, 0)
DIVISORS = {3: 1, 2: 2, 0: 4}
# What looks like a frame amid other bytes is one if so many more follow.
CONFIRMATIONS = 2
TAGS = (b"ID3", b"TAG", b"APE")
# How a frame or a tag in front of one begins.
BEGINNING = re.compile(rb"\xff[\xe0-\xff]|ID3")
# Encoders announce a delay and a padding, which decoders cut off: no more than this.
TRIMMED_FRAMES = 4
# Of the header that says how many frames there are: its mark by the kind of encoding, and flags of what it holds.
XING, COUNTS_FRAMES, COUNTS_BYTES = (b"Xing", b"Info"), 1, 2


class Frame(NamedTuple):
    """A frame's header, its first four bytes."""

    size: int
    samples: int
    sampling_rate: int
    is_mono: bool
    # Where a Xing header would stand.
    info: int

    @property
    def form(self) -> tuple[int, int, bool]:
        """The fields that are the same in all frames of a stream."""
        return self.samples, self.sampling_rate, self.is_mono


class Stream(NamedTuple):
    """The frames that hold sound: where they lie in bytes, their number, the first, and the place of a Xing header."""

    pieces: list[tuple[int, int]]
    count: int
    first: Frame
    first_place: int
    info_place: int | None


@lru_cache(maxsize=4096)
def read_frame(header: bytes) -> Frame | None:
    """The frame of layer 3 that begins with four bytes, or None."""
    if len(header) < 4 or header[0] != 0xFF or header[1] >> 5 != 7 or header[1] >> 1 & 3 != 1:
        return None
    divisor = DIVISORS.get(header[1] >> 3 & 3)
    if divisor is None:
        return None
    is_mpeg1, is_mono = divisor == 1, header[3] >> 6 == 3
    bit_rate, rate = 1000 * BIT_RATES[is_mpeg1][header[2] >> 4], SAMPLING_RATES[header[2] >> 2 & 3] // divisor
    if not bit_rate or not rate:
        return None
    samples = 1152 if is_mpeg1 else 576
    size = samples // 8 * bit_rate // rate + (header[2] >> 1 & 1)
    checksum = 0 if header[1] & 1 else 2
    side_information = (17 if is_mono else 32) if is_mpeg1 else (9 if is_mono else 17)
    return Frame(size, samples, rate, is_mono, 4 + checksum + side_information)


def find_frames(data: bytes | mmap.mmap) -> Stream | None:
    """Walk over all frames; what stands between them, like tags and pictures, is passed over. None without frames.

    Raises:
        ValueError: The rate or the number of channels changes on the way.
    """
    pieces, count, first, info_place, place = [], 0, None, None, 0
    first_place = follows = -1
    while place + 4 <= len(data):
        frame = read_frame(data[place : place + 4])
        is_known = frame is not None and first is not None and frame.form == first.form and place == follows
        if frame is None or not (is_known or _is_confirmed(data, place, frame)):
            place = _skip(data, place)
            continue
        if first is None:
            first, first_place = frame, place
        elif frame.form != first.form:
            raise ValueError(
                f"the sound changes after {count * first.samples / first.sampling_rate:.1f} s from "
                f"{_describe(first)} to {_describe(frame)}: two files in one; expected one form"
            )
        end = follows = place + frame.size
        if data[place + frame.info : place + frame.info + 4] in XING:
            info_place = place if not count and info_place is None else info_place
        elif end <= len(data):
            count += 1
            if pieces and pieces[-1][1] == place:
                pieces[-1] = (pieces[-1][0], end)
            else:
                pieces.append((place, end))
        place = end
    return Stream(pieces, count, first, first_place, info_place) if count else None


def _describe(frame: Frame) -> str:
    return f"{frame.sampling_rate} Hz, {'one channel' if frame.is_mono else 'two channels'}"


def _is_confirmed(data: bytes | mmap.mmap, place: int, frame: Frame) -> bool:
    """Whether more frames of its form follow, or the end."""
    for _ in range(CONFIRMATIONS):
        place += frame.size
        following = read_frame(data[place : place + 4])
        if following is None:
            return place + 4 > len(data) or data[place : place + 3] in TAGS
        if following.form != frame.form:
            return False
        frame = following
    return True


def _skip(data: bytes | mmap.mmap, place: int) -> int:
    """The next place where a frame may begin."""
    if data[place : place + 3] == b"ID3" and place + 10 <= len(data):
        # Seven bits of each byte.
        size = sum((byte & 0x7F) << 7 * shift for shift, byte in enumerate(reversed(data[place + 6 : place + 10])))
        if place + 10 + size <= len(data):
            return place + 10 + size
    found = BEGINNING.search(data, place + 1)
    return found.start() if found else len(data)


def repair(data: bytes | mmap.mmap, claimed: int) -> FilePieces | None:
    """The same sound as a file whose header tells the truth.

    Args:
        data: An MP3 file.
        claimed: Samples that libsndfile finds in it.

    Returns:
        A binary file that refers to the data; None where the header is right, or nothing can be said.

    Raises:
        ValueError: As `find_frames`.
    """
    stream = find_frames(data)
    if stream is None:
        return None
    difference = abs(stream.count * stream.first.samples - claimed) / stream.first.samples
    # libsndfile stops where frames do not follow one another, too.
    if difference <= TRIMMED_FRAMES and len(stream.pieces) == 1:
        return None
    return FilePieces(_info_frame(data, stream), data, stream.pieces)


def _info_frame(data: bytes | mmap.mmap, stream: Stream) -> bytes:
    """A frame that says how many follow: that of the file, which may hold the encoder's delay, or a new one."""
    num_bytes = sum(end - start for start, end in stream.pieces)
    if stream.info_place is not None:
        frame = read_frame(data[stream.info_place : stream.info_place + 4])
        info = bytearray(data[stream.info_place : stream.info_place + frame.size])
        # What calls itself such a frame may be too short for one.
        has_room = frame.info + 16 <= len(info)
        flags = struct.unpack_from(">I", info, frame.info + 4)[0] if has_room else 0
        if flags & COUNTS_FRAMES:
            struct.pack_into(">I", info, frame.info + 8, stream.count)
            if flags & COUNTS_BYTES:
                struct.pack_into(">I", info, frame.info + 12, num_bytes)
            return bytes(info)
    # The highest bit rate, so that there is room, and no checksum.
    _, second, third, fourth = data[stream.first_place : stream.first_place + 4]
    header = bytes((0xFF, second | 1, third & 0x0C | 0xE0, fourth))
    frame = read_frame(header)
    info = bytearray(frame.size)
    info[:4] = header
    struct.pack_into(">4sII", info, frame.info, XING[0], COUNTS_FRAMES, stream.count)
    return bytes(info)
