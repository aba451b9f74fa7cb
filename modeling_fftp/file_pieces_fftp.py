"""A file made of pieces of another, for decoders that must not see the rest."""

import io
import mmap
from bisect import bisect_right
from itertools import accumulate


class FilePieces(io.RawIOBase):
    """Some bytes, then pieces of others, as one binary file.

    Args:
        head: What comes first.
        data: What the pieces are of; it is not copied.
        pieces: Their (start, end).
    """

    def __init__(self, head: bytes, data: bytes | mmap.mmap, pieces: list[tuple[int, int]]):
        super().__init__()
        self.sources = [(head, 0, len(head)), *((data, start, end) for start, end in pieces)]
        # Where each begins in this file, and where the last one ends.
        self.begins = [0, *accumulate(end - start for _, start, end in self.sources)]
        self.size = self.begins[-1]
        self.place = 0

    def seekable(self) -> bool:
        """Always."""
        return True

    def readable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Bytes before the next one to read."""
        return self.place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As for any file."""
        self.place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.size}[whence]
        return self.place

    def readinto(self, buffer) -> int:
        """As for any file."""
        filled, index = 0, bisect_right(self.begins, self.place) - 1
        while filled < len(buffer) and 0 <= index < len(self.sources):
            data, start, end = self.sources[index]
            low = start + self.place + filled - self.begins[index]
            part = data[low : min(end, low + len(buffer) - filled)]
            buffer[filled : filled + len(part)] = part
            filled += len(part)
            index += 1
        self.place += filled
        return filled
