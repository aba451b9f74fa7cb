"""WAV files that are longer than they say."""

import mmap

from .file_pieces_fftp import FilePieces

# How a WAV file says that a size stands elsewhere, and the bytes behind its sound below which they are none.
UNKNOWN_SIZE, SMALLEST_REST = b"\xff" * 4, 2**16


def finish_wav(data: bytes | mmap.mmap, claimed: int) -> FilePieces | None:
    """A WAV file that is longer than it says, as one that goes on to its end.

    Its recorder never wrote how long it is, or it is too long for the 32 bits of that number.
    """
    if (place := _find_chunk(data, b"data")) is None:
        return None
    start, said = place + 8, int.from_bytes(data[place + 4 : place + 8], "little")
    end = start + said
    rest = len(data) - end - said % 2
    # Sound of an odd number of bytes is padded, by most writers.
    is_followed = _begins_chunk(data, end) or _begins_chunk(data, end + said % 2)
    if data[:4] != b"RIFF" or rest <= 0 or is_followed or (claimed and rest < SMALLEST_REST):
        return None
    head = data[: place + 4] + UNKNOWN_SIZE
    if len(data) >= 2**32:
        # As RF64 (EBU Tech 3306), whose sizes have 64 bits: of the file, of the sound, and a number of samples.
        sizes = (len(data) + 28, len(data) - start, 0)
        ds64 = b"ds64" + (28).to_bytes(4, "little") + b"".join(size.to_bytes(8, "little") for size in sizes) + bytes(4)
        head = b"RF64" + UNKNOWN_SIZE + b"WAVE" + ds64 + head[12:]
    return FilePieces(head, data, [(start, len(data))])


def _begins_chunk(data: bytes | mmap.mmap, place: int) -> bool:
    """Whether a chunk of a WAV file, which ends in the file, begins somewhere."""
    first = place
    while place + 8 <= len(data):
        name, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        if place + 8 + size > len(data):
            return False
        if name.replace(b" ", b"a").isalnum():
            return True
        # As `_PMX`. Sound looks like such a name now and then, so nothing but chunks may follow.
        if not (name.isascii() and name.decode().isprintable()):
            return False
        place += 8 + size + size % 2
    return first < place and place >= len(data)


def _find_chunk(data: bytes | mmap.mmap, name: bytes) -> int | None:
    """Where the chunk of a name begins in a WAV file: its name, four bytes for its size, and its content."""
    place = 12
    while place + 8 <= len(data):
        if data[place : place + 4] == name:
            return place
        size = int.from_bytes(data[place + 4 : place + 8], "little")
        place += 8 + size + size % 2
    return None
