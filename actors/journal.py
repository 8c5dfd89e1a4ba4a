"""A sender's journal: what it has written to its provider, and how each request ended.

A ring of cells in memory that is shared with a file, so what was stored there outlives a process that is killed: the
pages are the kernel's, and the next process under this name reads them. The crash of the machine they do not outlive in
order (the kernel writes them back when it likes), so a ring of another boot is not read.

| bytes | hold |
|---|---|
| 0-7 | `MAGIC`, the form of the file |
| 8-23 | the ring's own number, which the store keeps for this sender: no other ring is its predecessor's |
| 24-63 | the boot of the machine |
| 64-73 | the start of the first message id of the ring's time |
| 120-127 | the cells being written now: their number in the upper 24 bits, the first of them in the lower 40 |
| 128- | cells of 40 bytes: message id (26), answer (1), 5 unused, attempt (8) |

A cell's answer is 0 while its request is in the air, then the answer's place in `ANSWERS`, from 1.
"""

import fcntl
import logging
import mmap
import os
import re
import secrets
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from struct import Struct as Layout
from typing import Final, NamedTuple

from actors.attempts import REMEMBERED, Slot
from dispatcher.ident import time_prefix
from dispatcher.receipt import ANSWERS, Answer, Receipt

MAGIC: Final = b"SENT\x00\x00\x00\x01"
_HEAD: Final = Layout("<8s16s40s10s")
_WRITING: Final = slice(120, 128)
_CELLS_AT: Final = 128
_CELL: Final = Layout("<26sB5xQ")
_CELL_BYTES: Final = _CELL.size
_pack_into: Final = _CELL.pack_into
_ANSWER_AT: Final = 26  # within a cell
_CELL_BITS: Final = 40
_CELL_MASK: Final = (1 << _CELL_BITS) - 1
_NUMBER: Final[dict[str, int]] = {answer: number for number, answer in enumerate(ANSWERS, 1)}
_ZEROS: Final = bytes(1 << 20)
_log = logging.getLogger(__name__)


class Entry(NamedTuple):
    """A message that was written under this attempt. `answer` is None when its request was in the air."""

    id: str
    attempt: int
    answer: Answer | None


class Unreadable(Exception):
    """The file is no ring, or not the one that was expected; the text says why."""


class Journal:
    """Cells of one ring. A request keeps its cells while it is in the air; behind it the ring goes on."""

    def __init__(self, memory: mmap.mmap, fd: int | None) -> None:
        """A ring whose header stands. `fd`: its file, locked until `close`; None: this memory is all there is."""
        _, self.ring, _, since = _HEAD.unpack_from(memory)
        self.since = since.decode("ascii")
        self._memory = memory
        self._fd = fd
        self._writing = memoryview(memory)[_WRITING].cast("Q")
        self._cells = (len(memory) - _CELLS_AT) // _CELL_BYTES
        self._at = (self._writing[0] & _CELL_MASK) % self._cells
        self._open: dict[int, int] = {}  # requests in the air: first cell -> number of cells
        self._ahead: list[int] = []  # those of earlier laps that the ring comes to, nearest last
        self._free_to = self._cells

    @property
    def kept(self) -> bool:
        """Whether it outlives the process."""
        return self._fd is not None

    def covers(self, ids: Sequence[str]) -> bool:
        """Whether this ring would know of all these messages, had they been sent under this sender's name: ids start
        with their time, and none is older than the ring."""
        return not ids or min(ids) >= self.since

    def write(self, slots: Sequence[Slot]) -> int:
        """A request of these messages is about to be written; returns its first cell, for `end`.

        The header says which cells are being written, so a kill within leaves no half of them to be believed.
        """
        n, first = len(slots), self._at
        if first + n > self._free_to:
            first = self._room(n)
        memory, writing = self._memory, self._writing
        writing[0] = n << _CELL_BITS | first
        at = _CELLS_AT + first * _CELL_BYTES
        for slot in slots:
            if slot.message is None:
                raise RuntimeError("a message ended before it was sent")
            _pack_into(memory, at, slot.message.id.encode(), 0, slot.attempt)
            at += _CELL_BYTES
        self._open[first] = n
        self._at = writing[0] = first + n
        return first

    def end(self, first: int, receipts: Sequence[Receipt]) -> None:
        """The request came to these receipts."""
        memory = self._memory
        at = _CELLS_AT + first * _CELL_BYTES + _ANSWER_AT
        for receipt in receipts:
            memory[at] = _NUMBER[receipt.answer]
            at += _CELL_BYTES
        del self._open[first]

    def entries(self) -> list[Entry]:
        """Every cell that was ever written, about oldest first. Raises Unreadable."""
        cells = list(_CELL.iter_unpack(self._memory[_CELLS_AT : _CELLS_AT + self._cells * _CELL_BYTES]))
        at = self._at
        return [
            Entry(_text(id_), attempt, _answer(answer)) for id_, answer, attempt in (*cells[at:], *cells[:at]) if id_[0]
        ]

    def mend(self) -> None:
        """Empty the cells that were being written when the process was killed: their request was not."""
        n, first = self._writing[0] >> _CELL_BITS, self._writing[0] & _CELL_MASK
        if first + n > self._cells:
            raise Unreadable(f"its header names {n} cells from {first}")
        at = _CELLS_AT + first * _CELL_BYTES
        self._memory[at : at + n * _CELL_BYTES] = bytes(n * _CELL_BYTES)
        self._writing[0] = first

    def close(self) -> None:
        """Give the file to the next of this name. Nothing may be written any more."""
        self._writing.release()
        self._memory.close()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    # -- room

    def _room(self, n: int) -> int:
        """The next `n` cells in a row that no request in the air holds. A ring half full of such requests grows."""
        first = self._at
        while True:
            while self._ahead and self._ahead[-1] < first + n:
                start = self._ahead.pop()
                first = max(first, start + self._open.get(start, 0))
            if first + n <= self._cells:
                break
            held = sum(self._open.values()) + n * (len(self._open) + 1)  # a gap of less than n is of no use either
            if 2 * held > self._cells:
                first = self._cells
                self._grow(2 * held)
            else:
                first, self._ahead = 0, sorted(self._open, reverse=True)
        self._free_to = self._ahead[-1] if self._ahead else self._cells
        return first

    def _grow(self, cells: int) -> None:
        """So many more cells at the end. Where the file cannot have them it ends, and the ring lives in memory."""
        size = len(self._memory) + cells * _CELL_BYTES
        old, fd = self._memory, self._fd
        try:
            memory = _larger(fd, len(old), size)
        except OSError:
            old[: len(MAGIC)] = bytes(len(MAGIC))  # nobody may take it for whole
            memory = mmap.mmap(-1, size)
            memory[: len(old)] = old[:]
            self._fd = None
        else:
            if fd is None:
                memory[: len(old)] = old[:]
        self._writing.release()
        old.close()
        if fd is not None and self._fd is None:
            os.close(fd)
        self._memory = memory
        self._writing = memoryview(memory)[_WRITING].cast("Q")
        self._cells += cells


def path_of(directory: Path, name: str) -> Path:
    """Where the journal of the sender of this name is."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:80]
    return directory / f"{plain}.{blake2b(name.encode(), digest_size=6).hexdigest()}"


def boot_of(otherwise: str) -> str:
    """What tells this boot of the machine from others; `otherwise` where Linux does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return otherwise


def in_memory(now_ms: int, cells: int = REMEMBERED) -> Journal:
    """A journal that ends with the process."""
    memory = mmap.mmap(-1, _CELLS_AT + cells * _CELL_BYTES)
    _begin(memory, "", now_ms)
    return Journal(memory, None)


def begin(path: Path, boot: str, now_ms: int, cells: int = REMEMBERED) -> Journal:
    """An empty one in this file, whatever was there. Raises OSError, BlockingIOError when another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = _locked(path, os.O_RDWR | os.O_CREAT)
    try:
        os.ftruncate(fd, 0)
        memory = _larger(fd, 0, _CELLS_AT + cells * _CELL_BYTES)
        _begin(memory, boot, now_ms)
    except OSError:
        os.ftruncate(fd, 0)
        os.close(fd)
        raise
    return Journal(memory, fd)


def go_on(path: Path, boot: str, ring: bytes) -> tuple[Journal, list[Entry]]:
    """The journal of the predecessor to go on with, and what it says. Raises Unreadable, or OSError as `begin`."""
    fd = _locked(path, os.O_RDWR)
    size = os.fstat(fd).st_size
    if size < _CELLS_AT + _CELL_BYTES:
        os.close(fd)
        raise Unreadable(f"it has {size} bytes")
    memory = mmap.mmap(fd, size)
    try:
        _check(memory, boot, ring)
    except Unreadable:
        memory.close()  # it holds the file's lock, too
        os.close(fd)
        raise
    journal = Journal(memory, fd)
    try:
        journal.mend()
        return journal, journal.entries()
    except Unreadable:
        journal.close()
        raise


def open_journal(path: Path, boot: str, ring: bytes | None, now_ms: int) -> tuple[Journal, list[Entry]]:
    """The journal of a sender that starts: its predecessor's, where that can be read; else an empty one, in memory only
    where there can be no file. `ring`: the number of its predecessor's, None when it had none. Raises BlockingIOError
    while another process has the file."""
    try:
        if ring is not None:
            return go_on(path, boot, ring)
    except BlockingIOError:
        raise
    except (OSError, Unreadable) as error:
        _log.warning("%s cannot be read (%s): what its sender had in the air before is known to nobody", path, error)
    try:
        return begin(path, boot, now_ms), []
    except BlockingIOError:
        raise
    except OSError as error:
        _log.warning("%s cannot be written (%s): when its sender dies, all that it has in hand is unknown", path, error)
        return in_memory(now_ms), []


def _check(memory: mmap.mmap, boot: str, ring: bytes) -> None:
    magic, found, booted, since = _HEAD.unpack_from(memory)
    if magic != MAGIC:
        raise Unreadable("it is not in a form this version reads")
    if found != ring:
        raise Unreadable("it is not the last one of this sender")
    if booted.rstrip(b"\0") != boot.encode()[:40]:
        raise Unreadable("the machine was started since")
    _text(since)


def _begin(memory: mmap.mmap, boot: str, now_ms: int) -> None:
    """An empty ring's header, its magic last."""
    _HEAD.pack_into(memory, 0, bytes(8), secrets.token_bytes(16), boot.encode()[:40], time_prefix(now_ms).encode())
    memory[: len(MAGIC)] = MAGIC


def _locked(path: Path, flags: int) -> int:
    """The file, for this process alone: the lock ends with it."""
    fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise
    return fd


def _larger(fd: int | None, size: int, larger: int) -> mmap.mmap:
    """This file as memory of that size. Written out, not only declared: a store into a page for which the disk has no
    room would kill the process."""
    if fd is None:
        return mmap.mmap(-1, larger)
    while size < larger:
        size += os.pwrite(fd, _ZEROS[: larger - size], size)
    return mmap.mmap(fd, larger)


def _text(id_: bytes) -> str:
    try:
        return id_.rstrip(b"\0").decode("ascii")
    except UnicodeDecodeError as error:
        raise Unreadable(f"it holds {id_!r}") from error


def _answer(number: int) -> Answer | None:
    if number > len(ANSWERS):
        raise Unreadable(f"it holds the answer {number}")
    return ANSWERS[number - 1] if number else None
