"""The rival: the shipped rules for one message in one Redis Lua script, as one would write it without a shard.

State of a user is one string: msgpack of seven values for each send, oldest first (Lua's stack holds some 1,100 sends).
The script fetches it once with the two blacklist keys, goes through it once, newest first and no further than the
longest window, and appends the send it lets pass. Easier than ours: it knows neither templates nor triggers (no refund,
no idempotency, no channel plans), its rules cannot be edited one by one, it gives no numbers, and the keyword list,
empty as shipped, is not looked at.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from dispatcher.calendar import Calendar
from dispatcher.documents import BlacklistEntry
from dispatcher.message import Message
from dispatcher.rules import Capped, Rule
from dispatcher.rules.level_cap import LevelCap
from dispatcher.rules.quiet_hours import QuietHours
from dispatcher.rules.repeat import Repeat
from dispatcher.rules.task_frequency import TaskFrequency
from dispatcher.store.connection import Connection

#: The reply to a message that passes; another number says which rule of the list objects, counted from 1.
PASSED: Final = 0
_pack: Final = msgspec.msgpack.Encoder().encode

SCRIPT: Final = """
-- KEYS: a user's sends, blacklist entries of the user, of the address
-- ARGV: now, milliseconds since local midnight, when the local day began, channel, type, level, line, content, task
local now, clock, midnight = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local channel, kind, level, line, content, task = ARGV[4], ARGV[5], tonumber(ARGV[6]), ARGV[7], ARGV[8], ARGV[9]
local found = redis.call('MGET', KEYS[1], KEYS[2], KEYS[3])

for i = 2, 3 do
  if found[i] then
    local entries = {cmsgpack.unpack(found[i])}  -- channel, type, line ('' = any), expires_ms (0 = never)
    for j = 1, #entries, 4 do
      local type_ = entries[j + 1]
      if (entries[j] == '' or entries[j] == channel)
        and (type_ == kind or (type_ == '' and kind ~= 'verification'))
        and (entries[j + 2] == '' or entries[j + 2] == line)
        and (entries[j + 3] == 0 or entries[j + 3] > now) then return @blacklist@ end
    end
  end
end
if @quiet_types@ and (clock < @opens@ or clock >= @closes@) then return @quiet_hours@ end

local frequency, often, window = 0, 0, 0
if @frequency_types@ then
  @frequency_by_channel@
end
local line_cap, line_most, company_cap, company_most = 0, 0, 0, 0
@caps_by_channel@
local leveled = level >= @min_level@ and @level_types@
local tasked = task ~= '' and @task_types@

local state = found[1]
local sends, n, oldest = nil, 0, 1  -- at, channel, type, level, line, content, task
local frequent, minor, mine, all, alike, tasks = 0, 0, 0, 0, false, 0
if state then
  sends = {cmsgpack.unpack(state)}
  n = #sends
  for i = n - 6, 1, -7 do
    local at = sends[i]
    local age = now - at
    if age >= @horizon@ then oldest = i + 7 break end
    local type_ = sends[i + 2]
    if sends[i + 1] == channel then
      if at >= midnight then
        all = all + 1
        if sends[i + 4] == line then mine = mine + 1 end
      end
      if age < window and @sent_frequency_types@ then frequent = frequent + 1 end
      if leveled and age < @level_window@ and sends[i + 3] >= @min_level@ and @sent_level_types@ then
        minor = minor + 1
      end
      if age < @repeat_window@ and sends[i + 5] == content then alike = true end
    end
    if tasked and sends[i + 6] == task and age < @task_window@ and @sent_task_types@ then tasks = tasks + 1 end
  end
end

if tasked and tasks >= @task_limit@ then return @task_frequency@ end
if frequency > 0 and frequent >= often then return frequency end
if leveled and minor >= @level_limit@ then return @level_cap@ end
if line_cap > 0 and mine >= line_most then return line_cap end
if company_cap > 0 and all >= company_most then return company_cap end
if alike then return @repeat@ end

local send = cmsgpack.pack(now, channel, kind, level, line, content, task)
if oldest > 1 then
  local kept = oldest <= n and cmsgpack.pack(unpack(sends, oldest, n)) or ''
  redis.call('SET', KEYS[1], kept .. send)
else
  redis.call('APPEND', KEYS[1], send)
end
redis.call('PEXPIRE', KEYS[1], @horizon@)
return 0
"""


def script_of(rules: Sequence[Rule]) -> str:
    """The script with the limits and windows of these rules, which are of the shipped shape."""
    number = {rule.name: n for n, rule in enumerate(rules, 1)}
    one = {rule.__struct_config__.tag: rule for rule in rules}
    quiet, level, task, same = one["quiet_hours"], one["level_cap"], one["task_frequency"], one["repeat"]
    assert isinstance(quiet, QuietHours)
    assert isinstance(level, LevelCap)
    assert isinstance(task, TaskFrequency)
    assert isinstance(same, Repeat)
    frequencies = _capped(rules, "frequency")
    opens, closes = (_of_day_ms(clock) for clock in quiet.allow.split("-"))
    values: dict[str, Any] = {
        "blacklist": number[one["blacklist"].name],
        "quiet_hours": number[quiet.name], "quiet_types": _any("kind", quiet.types), "opens": opens, "closes": closes,
        "frequency_types": _any("kind", frequencies[0].types),
        "sent_frequency_types": _any("type_", frequencies[0].types),
        "frequency_by_channel": _by_channel({
            rule.channels[0]: f"frequency, often, window = {number[rule.name]}, {rule.limit}, {rule.horizon_ms()}"
            for rule in frequencies
        }),
        "caps_by_channel": _by_channel(_caps(rules, number)),
        "min_level": level.min_level, "level_types": _any("kind", level.types), "level_limit": level.limit,
        "sent_level_types": _any("type_", level.types), "level_window": level.horizon_ms(),
        "level_cap": number[level.name],
        "task_types": _any("kind", task.types), "sent_task_types": _any("type_", task.types),
        "task_window": task.horizon_ms(), "task_limit": task.limit, "task_frequency": number[task.name],
        "repeat_window": same.horizon_ms(), "repeat": number[same.name],
        "horizon": max(rule.horizon_ms() for rule in rules),
    }  # fmt: skip
    script = SCRIPT
    for name, value in values.items():
        script = script.replace(f"@{name}@", str(value))
    return script


def _of_day_ms(clock: str) -> int:
    hours, minutes = map(int, clock.split(":"))
    return (hours * 60 + minutes) * 60_000


def _capped(rules: Iterable[Rule], kind: str) -> list[Capped]:
    return [rule for rule in rules if isinstance(rule, Capped) and rule.__struct_config__.tag == kind]


def _caps(rules: Sequence[Rule], number: Mapping[str, int]) -> dict[str, str]:
    """The daily caps, which come in pairs: one of the line and one of the company for each channel."""
    company = {rule.channels[0]: rule for rule in _capped(rules, "company_cap")}
    return {
        channel: f"line_cap, line_most, company_cap, company_most = {number[rule.name]}, {rule.limit}, "
        f"{number[company[channel].name]}, {company[channel].limit}"
        for rule in _capped(rules, "line_cap")
        for channel in rule.channels
    }


def _any(name: str, types: Sequence[str]) -> str:
    return "(" + " or ".join(f"{name} == '{type_}'" for type_ in types) + ")"


def _by_channel(statements: Mapping[str, str]) -> str:
    arms = [f"if channel == '{channel}' then {statement}" for channel, statement in statements.items()]
    return " else".join(arms) + " end"


def state_of(sends: Iterable[tuple[int, Message]]) -> bytes:
    """A user's sends as the script keeps them."""
    return b"".join(
        _pack(value)
        for at_ms, m in sends
        for value in (at_ms, m.channel, m.type, m.level, m.line, str(m.content), m.task or "")
    )


def listed_of(entry: BlacklistEntry, expires_ms: int | None) -> bytes:
    """A blacklist entry as the script reads it."""
    what = (entry.channel or "", entry.type or "", entry.line or "", expires_ms or 0)
    return b"".join(_pack(value) for value in what)


def keys_of(message: Message) -> tuple[str, str, str]:
    """The keys of a message's call."""
    return f"u:{message.identity}", f"bu:{message.user}", f"ba:{message.to}"


def arguments_of(message: Message, now_ms: int, calendar: Calendar) -> tuple[str, ...]:
    """The arguments of a message's call."""
    return (
        str(now_ms), str(calendar.time_of_day(now_ms)), str(calendar.day(now_ms)[0]), message.channel, message.type,
        str(message.level), message.line, str(message.content), message.task or "",
    )  # fmt: skip


#: Keys and arguments of one call.
Call = tuple[tuple[str, ...], tuple[str, ...]]


class RedisPy:
    """redis-py, as our own store uses it: one pipeline for a batch."""

    name = "redis-py"

    def __init__(self, client: Connection) -> None:
        self._client = client

    async def calls(self, sha: str, batches: Iterable[Sequence[Call]]) -> list[int]:
        """Every batch of (keys, arguments) as one pipeline; all replies."""
        replies: list[int] = []
        for batch in batches:
            pipe = self._client.pipeline(transaction=False)
            for keys, arguments in batch:
                pipe.evalsha(sha, len(keys), *keys, *arguments)
            replies += await pipe.execute()
        return replies


class Bare:
    """A socket and the protocol by hand: the least a client can cost. While the server works on a batch, the next one
    is encoded."""

    name = "bare socket"

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, path: str) -> "Bare":
        """Connect to a Unix socket."""
        return cls(*await asyncio.open_unix_connection(path, limit=1 << 20))

    async def calls(self, sha: str, batches: Iterable[Sequence[Call]]) -> list[int]:
        """Every batch of (keys, arguments) written at once; all replies, which are integers."""
        replies: list[int] = []
        waiting = 0
        for batch in batches:
            data = b"".join([_command("EVALSHA", sha, str(len(keys)), *keys, *args) for keys, args in batch])
            replies += await self._integers(waiting)
            self._writer.write(data)
            waiting = len(batch)
        return replies + await self._integers(waiting)

    async def _integers(self, count: int) -> list[int]:
        data = b""
        while data.count(b"\n") < count:
            more = await self._reader.read(1 << 16)
            if not more:
                raise RuntimeError("the server hung up")
            data += more
        return [_integer(line) for line in data.split(b"\r\n")[:-1]]

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        await self._writer.wait_closed()


def _integer(line: bytes) -> int:
    if line[:1] != b":":
        raise RuntimeError(f"the server says {line.decode(errors='replace')}")
    return int(line[1:])


def _command(*parts: str) -> bytes:
    """One command in RESP (redis.io, "Redis serialization protocol specification")."""
    encoded = [part.encode() for part in parts]
    return b"*%d\r\n" % len(encoded) + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in encoded])
