"""Appending rows to the streams: fenced, repeatable, for as long as it takes.

Entry ids are our own sequence numbers, so an append whose reply was lost is repeated without harm. A server that came
back without its last second is found out by its empty script cache (the script of every Appender is its own, so only a
server that has not restarted knows it) and is given those rows again before anything new.
"""

import asyncio
import hashlib
import logging
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from dispatcher.store import keys
from dispatcher.store.connection import describe, telling
from dispatcher.store.deadletters import LETTERS
from dispatcher.store.errors import StoreError

MOST_CALL_BYTES: Final = 4 * 1024 * 1024
KEEP_S: Final = 3.0  # everysec loses at most the last two seconds (redis.io, "Redis persistence"), and one to spare
KEEP_BYTES: Final = 64 * 1024 * 1024
RETRY_S: Final = (0.02, 0.5)
#: A call in the air for longer than this counts as stalled; WAITAOF waits for the server's fsync of once a second.
SLOW_S: Final = 0.25
SLOW_WAITAOF_S: Final = 3.0

#: KEYS: epoch and log of each row, then index and letters of each row that changes dead letters. ARGV: how many rows,
#: for each of them epoch, seq, payload, then for each that changes letters its number and `store.deadletters.words`.
#: Returns the rows (1-based) whose epoch was refused; nothing of those is written, everything of the others is.
#: A row that is there already counts as written; the epoch is then set to what it is, so that this connection has
#: written something WAITAOF can wait for.
APPEND: Final = (
    LETTERS
    + """
local rows = tonumber(ARGV[1] or '0')
local refused, owned, fresh = {}, {}, {}
for i = 1, rows do
  if redis.call('GET', KEYS[2 * i - 1]) == ARGV[3 * i - 1] then
    owned[#owned + 1] = i
  else
    refused[#refused + 1] = i
  end
end
for _, i in ipairs(owned) do
  local reply = redis.pcall('XADD', KEYS[2 * i], ARGV[3 * i] .. '-0', 'e', ARGV[3 * i + 1])
  if type(reply) == 'table' and reply.err then
    if not string.find(reply.err, 'equal or smaller', 1, true) then return redis.error_reply(reply.err) end
    redis.call('SET', KEYS[2 * i - 1], ARGV[3 * i - 1])
  else
    fresh[i] = true
  end
end
local key, at = 2 * rows + 1, 3 * rows + 2
while at <= #ARGV do
  at = change(KEYS[key], KEYS[key + 1], fresh[tonumber(ARGV[at])], at + 1)
  key = key + 2
end
return refused
"""
)

_LAST: Final = """
local function last_seq(key)
  if redis.call('EXISTS', key) == 0 then return 0 end
  local info = redis.call('XINFO', 'STREAM', key)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return tonumber(string.match(info[i + 1], '^%d+')) end
  end
end
"""

#: KEYS: epoch, log. Returns the new epoch and the last seq ever given out (trimming does not lower it).
OPEN: Final = _LAST + "return {redis.call('INCR', KEYS[1]), last_seq(KEYS[2])}"

#: KEYS: epoch, log. ARGV: our epoch. Returns the last seq there, -1 when there is a newer owner.
#: A lower epoch than ours can only be one the server lost: it is put right.
MEND: Final = (
    _LAST
    + """
local epoch = tonumber(redis.call('GET', KEYS[1]) or '0')
if epoch > tonumber(ARGV[1]) then return -1 end
if epoch < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1]) end
return last_seq(KEYS[2])
"""
)

_log = logging.getLogger(__name__)


class Opened(NamedTuple):
    """A partition taken over: entries up to `seq` were there before."""

    epoch: int
    seq: int


class Row(NamedTuple):
    """What one append writes to one partition."""

    p: int
    epoch: int
    seq: int
    payload: bytes
    letters: tuple[bytes, ...] = ()  # `store.deadletters.words` of what it changes among them

    @property
    def size_bytes(self) -> int:
        """What it adds to a call."""
        return len(self.payload) + sum(map(len, self.letters))


class Appender:
    """Writes rows; one call at a time."""

    def __init__(self, redis: Redis, fsync: bool) -> None:
        self._redis = redis
        self._execute: Callable[..., Awaitable[Any]] = redis.execute_command
        self._fsync = fsync
        self._waitaof = False  # until the server is known
        self._script = f"{APPEND}-- {uuid.uuid4()}"
        self._sha = hashlib.sha1(self._script.encode()).hexdigest()
        self._open = redis.register_script(OPEN)
        self._mend = redis.register_script(MEND)
        self._names: dict[int, tuple[bytes, bytes]] = {}
        self._tail: deque[tuple[float, Row]] = deque()
        self._tail_bytes = 0
        self._since: float | None = None  # when the append in the air began
        self._reason = ""  # why the append in the air failed the last time; empty: it has not
        self.epochs: dict[int, int] = {}
        self.written: dict[int, int] = {}  # last seq acknowledged
        self.lost_entries = 0

    @property
    def stalled_since(self) -> float | None:
        """Since when (loop time) an append has waited for a store that is away or hangs; None when all is well."""
        if self._since is None:
            return None
        slow_s = SLOW_WAITAOF_S if self._waitaof else SLOW_S
        slow = asyncio.get_running_loop().time() - self._since > slow_s
        return self._since if self._reason or slow else None

    async def open(self, p: int) -> Opened:
        """Become the owner; every older owner is fenced from now on. Raises StoreError when the store is away."""
        self._names[p] = (keys.epoch(p).encode(), keys.log(p).encode())
        with telling():
            epoch, seq = await self._open(keys=self._names[p])
        opened = Opened(int(epoch), int(seq))
        self.epochs[p], self.written[p] = opened
        return opened

    def close(self, p: int) -> None:
        """Own the partition no more; rows in the air are still written."""
        self.epochs.pop(p, None)

    async def append(self, rows: Sequence[Row]) -> list[int]:
        """Write the rows, however long it takes; returns the partitions that have a newer owner."""
        loop = asyncio.get_running_loop()
        wait_s = RETRY_S[0]
        self._since = loop.time()
        while True:
            try:
                if self._reason:
                    await self._meet()
                refused = await self._written(rows)
                break
            except Exception as error:  # whatever it is, dropping entries is never the answer
                self._stall(error)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, RETRY_S[1])
        if self._reason:
            _log.warning("log: the store answers again after %.1f s", loop.time() - self._since)
        self._since, self._reason = None, ""
        self._remember(rows, loop.time(), set(refused))
        return refused

    def _stall(self, error: Exception) -> None:
        # Said when it begins and when the reason changes, not at every attempt.
        if repr(error) != self._reason:
            _log.warning("log: the store takes nothing (%r); holding on to what is to be written", error)
        self._reason = repr(error)

    async def _written(self, rows: Sequence[Row]) -> list[int]:
        if not rows:
            return []
        try:
            return await self._call(rows)
        except NoScriptError:  # a server we have not met: the first one, one that restarted, or another one
            await self._meet()
            return await self._call(rows)

    async def _call(self, rows: Sequence[Row]) -> list[int]:
        names, args = self._words(rows)
        command: tuple[Any, ...] = ("EVALSHA", self._sha, b"%d" % len(names), *names, *args)
        if self._waitaof:
            refused = await self._synced(command)
        else:
            refused = await self._execute(*command)
        return [rows[i - 1].p for i in refused]

    def _words(self, rows: Sequence[Row]) -> tuple[list[bytes], list[bytes]]:
        """KEYS and ARGV of the script."""
        names: list[bytes] = []
        args = [b"%d" % len(rows)]
        for row in rows:
            names += self._names[row.p]
            args += (b"%d" % row.epoch, b"%d" % row.seq, row.payload)
        for i, row in enumerate(rows, 1):
            if row.letters:
                names += (keys.letter_index(row.p).encode(), keys.letters(row.p).encode())
                args += (b"%d" % i, *row.letters)
        return names, args

    async def _synced(self, command: tuple[Any, ...]) -> Any:
        """WAITAOF waits for what its own connection wrote, so both travel in one pipeline."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.execute_command(*command)
        pipe.execute_command("WAITAOF", 1, 0, 0)
        refused, synced = await pipe.execute(raise_on_error=False)
        for reply in (refused, synced):
            if isinstance(reply, Exception):
                raise reply
        if not synced[0]:
            raise StoreError("WAITAOF returned before the fsync")
        return refused

    # -- a server that came back without its last entries

    def _remember(self, rows: Sequence[Row], now: float, refused: set[int]) -> None:
        for row in rows:
            if row.p not in refused:
                self.written[row.p] = row.seq
                self._tail.append((now, row))
                self._tail_bytes += row.size_bytes
        tail = self._tail
        while tail and (tail[0][0] < now - KEEP_S or self._tail_bytes > KEEP_BYTES):
            self._tail_bytes -= tail.popleft()[1].size_bytes

    async def _meet(self) -> None:
        """Make this server one we can append to: its durability known, its tails mended, our script loaded."""
        if self._fsync:
            self._waitaof = (await describe(self._redis)).appendfsync != "always"
        await self._mend_tails()
        # EVAL: Redis before 7 writes SCRIPT LOAD to its append-only file and would know the script after a restart.
        await self._redis.eval(self._script, 0)

    async def _mend_tails(self) -> None:
        """Append again what the streams miss of what was acknowledged."""
        owned = [p for p in self.epochs if p in self.written]
        if not owned:
            return
        # A pipeline with a script asks for it first, and when that fails it gives back its connection only at the end.
        async with self._redis.pipeline(transaction=False) as pipe:
            for p in owned:
                await self._mend(keys=self._names[p], args=[self.epochs[p]], client=pipe)
            found = await pipe.execute()
        last = {p: int(seq) for p, seq in zip(owned, found, strict=True) if int(seq) >= 0}
        missing = [
            row._replace(epoch=self.epochs[row.p]) for _, row in self._tail if row.p in last and row.seq > last[row.p]
        ]
        if any(self.written[p] > seq for p, seq in last.items()):
            self._count_lost(last, missing)
        if missing:
            # By a plain EVAL: our script is loaded only when the tails are whole again.
            for part in _parts(missing):
                names, args = self._words(part)
                await self._redis.eval(APPEND, len(names), *names, *args)

    def _count_lost(self, last: dict[int, int], missing: list[Row]) -> None:
        first: dict[int, int] = {}
        for row in missing:
            first.setdefault(row.p, row.seq)
        lost = sum(max(0, first.get(p, self.written[p] + 1) - seq - 1) for p, seq in last.items())
        _log.error("log: the store lost its last entries; %d batches are written again", len(missing))
        if lost:
            _log.error("log: %d batches it had acknowledged are gone for good", lost)
            self.lost_entries += lost
            # What is gone is not counted again at the next restart.
            self.written |= last | {row.p: row.seq for row in missing}


def _parts(rows: list[Row]) -> Iterator[list[Row]]:
    """The rows in their order, cut so that no call is longer than it may be."""
    part: list[Row] = []
    size = 0
    for row in rows:
        if part and size + row.size_bytes > MOST_CALL_BYTES:
            yield part
            part, size = [], 0
        part.append(row)
        size += row.size_bytes
    if part:
        yield part
