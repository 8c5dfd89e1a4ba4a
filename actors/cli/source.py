"""The lines of a file that a command streams, and how far it has been read."""

import asyncio
import os
import stat
import threading
from array import array
from bisect import bisect_right
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import BinaryIO, Final

from dispatcher.trigger import MAX_TRIGGER_BYTES

READ_BYTES: Final = 256 * 1024
BOM: Final = b"\xef\xbb\xbf"


class Source:
    """The lines of a file that are not blank; knows which line of the file each was."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._skips = array("Q")  # for each blank line: how many others came before it
        self._taken = 0
        self.read_bytes = 0
        mode = os.fstat(file.fileno())
        self._is_regular = stat.S_ISREG(mode.st_mode)
        self.size_bytes = mode.st_size if self._is_regular else None

    def line_number(self, seq: int) -> int:
        """The line (from 1) of what came at position `seq` (from 0)."""
        return seq + 1 + bisect_right(self._skips, seq)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The lines, without their ends. Of a line that is too long only the beginning, which will be refused."""
        rest = b""
        cut = False  # inside a line that is too long
        while chunk := await self._read():
            chunk = chunk.removeprefix(BOM) if not self.read_bytes else chunk
            self.read_bytes += len(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if not cut and self._counts(line):
                    yield line
                cut = False
            if not cut and len(rest) > MAX_TRIGGER_BYTES and self._counts(rest):
                yield rest
                cut = True
            rest = b"" if cut else rest
        if self._counts(rest):
            yield rest

    def _counts(self, line: bytes) -> bool:
        if line.strip():
            self._taken += 1
            return True
        self._skips.append(self._taken)
        return False

    async def _read(self) -> bytes:
        if self._is_regular:
            return self._file.read(READ_BYTES)
        # A thread of its own for each read: one of the loop's pool would hold up the exit while standard input is idle.
        loop = asyncio.get_running_loop()
        done: asyncio.Future[bytes] = loop.create_future()

        def hand_over(data: bytes) -> None:
            if not done.done():
                done.set_result(data)

        def read() -> None:
            data = os.read(self._file.fileno(), READ_BYTES)
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(hand_over, data)

        threading.Thread(target=read, daemon=True).start()
        return await done
