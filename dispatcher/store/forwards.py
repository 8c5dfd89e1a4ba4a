"""Uplinks on their way to the lines that own their keywords: a queue for each line, worked on by one at a time.

Whoever takes a line has it until its lease ends; when that one dies, another goes on and may say the last one again.
"""

from typing import Any, Final, Literal, NamedTuple

import msgspec
from redis.asyncio import Redis

from dispatcher.store import keys
from dispatcher.store.connection import telling
from dispatcher.uplink import Forward

#: How long repeated deliveries of an uplink are told; vendors give up within three days.
SEEN_S: Final = 3 * 86_400
#: Waiting for one line; about 20 MB in the store.
MOST_WAITING: Final = 50_000
#: Read at a time.
ROUND: Final = 50

#: KEYS: seen, queue, due. ARGV: identity ('' none), seconds it is kept, forward (msgpack), most waiting, now_ms, line.
#: Returns 1 (queued), 0 (repeated) or -1 (full).
ADD: Final = """
if ARGV[1] ~= '' and redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
if redis.call('LLEN', KEYS[2]) >= tonumber(ARGV[4]) then return -1 end
if ARGV[1] ~= '' then redis.call('SET', KEYS[1], 1, 'EX', ARGV[2]) end
redis.call('RPUSH', KEYS[2], ARGV[3])
redis.call('ZADD', KEYS[3], 'NX', ARGV[5], ARGV[6])
return 1
"""

#: KEYS: due, failures. ARGV: now_ms, until_ms. Returns {line, failures}, or nil when nothing is due.
TAKE: Final = """
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, 1)
if #found == 0 then return false end
redis.call('ZADD', KEYS[1], ARGV[2], found[1])
return {found[1], redis.call('HGET', KEYS[2], found[1]) or '0'}
"""

#: KEYS: queue. ARGV: forward, '1' puts it last. Nothing where it is gone already.
PASS: Final = """
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 1 and ARGV[2] == '1' then redis.call('RPUSH', KEYS[1], ARGV[1]) end
"""

#: KEYS: due, failures, queue. ARGV: line, until_ms of the lease, due_ms, failures. Nothing where another has the line.
SETTLE: Final = """
if tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or 0) ~= tonumber(ARGV[2]) then return end
if redis.call('LLEN', KEYS[3]) == 0 then
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('HDEL', KEYS[2], ARGV[1])
else
  redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[4])
end
"""

Added = Literal["queued", "repeated", "full"]
_ADDED: Final[dict[int, Added]] = {1: "queued", 0: "repeated", -1: "full"}
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Forward)


class Round(NamedTuple):
    """A line that somebody works on until `until_ms`, the first that wait for it, and its failures running."""

    line: str
    until_ms: int
    failures: int
    forwards: list[Forward]


class Forwards:
    """The queues. Every method raises Away."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._add = redis.register_script(ADD)
        self._take = redis.register_script(TAKE)
        self._pass = redis.register_script(PASS)
        self._settle = redis.register_script(SETTLE)

    async def seen(self, identity: str) -> bool:
        """Whether this uplink was dealt with."""
        with telling():
            return bool(await self._redis.exists(keys.uplink_seen(identity)))

    async def note(self, identity: str) -> None:
        """This uplink was dealt with."""
        with telling():
            await self._redis.set(keys.uplink_seen(identity), 1, ex=SEEN_S)

    async def add(self, forward: Forward, identity: str | None) -> Added:
        """Queue it, once for each identity."""
        names = (keys.uplink_seen(identity or ""), keys.forwards(forward.line), keys.FORWARDS_DUE)
        args = (identity or "", SEEN_S, _encoder.encode(forward), MOST_WAITING, forward.taken_ms, forward.line)
        with telling():
            return _ADDED[int(await self._add(keys=names, args=args))]

    async def take(self, now_ms: int, until_ms: int) -> Round | None:
        """A line that is due; nobody else gets it before `until_ms`."""
        with telling():
            found: Any = await self._take(keys=(keys.FORWARDS_DUE, keys.FORWARDS_FAILED), args=(now_ms, until_ms))
            if found is None:
                return None
            line = found[0].decode()
            rows: Any = await self._redis.lrange(keys.forwards(line), 0, ROUND - 1)
        return Round(line, until_ms, int(found[1]), [_decoder.decode(row) for row in rows])

    async def drop(self, forward: Forward) -> None:
        """It is delivered, or given up."""
        await self._passed(forward, "0")

    async def postpone(self, forward: Forward) -> None:
        """It comes after all others, so that one which is never taken holds up nobody."""
        await self._passed(forward, "1")

    async def _passed(self, forward: Forward, last: str) -> None:
        with telling():
            await self._pass(keys=(keys.forwards(forward.line),), args=(_encoder.encode(forward), last))

    async def settle(self, taken: Round, due_ms: int, failures: int) -> None:
        """Give the line back: it is due then, if anything waits for it."""
        names = (keys.FORWARDS_DUE, keys.FORWARDS_FAILED, keys.forwards(taken.line))
        with telling():
            await self._settle(keys=names, args=(taken.line, taken.until_ms, due_ms, failures))
