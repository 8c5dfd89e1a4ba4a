"""Dead letters in the store: written and removed by the very script that appends to the log, so that a letter is there
if and only if the log says that its message ended so, and gone if and only if it says that it was sent again.

Per partition a hash holds the letters by message id, and a sorted set their places (`dispatcher.deadletter`), all with
score 0: that is in the order of their bytes. Places start with their time, so the oldest come first.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from msgspec import Struct
from redis.asyncio import Redis

from dispatcher.deadletter import PREFIX, Letter, decode_letter
from dispatcher.ident import place_of, time_prefix
from dispatcher.store import keys
from dispatcher.store.connection import telling

#: `shrink` removes the oldest until both bounds hold, of what is too old a thousand at a time: about a millisecond.
#: `change` does what `words` says, from ARGV[at] on; returns where it ends. It does nothing for a row that is not
#: `fresh`, that was there before: this was done then, and meanwhile the letter may have been sent again.
LETTERS: Final = """
local function each(command, key, list)
  for i = 1, #list, 1000 do redis.call(command, key, unpack(list, i, math.min(i + 999, #list))) end
end

local function remove(index, letters, places)
  local ids = {}
  for i, place in ipairs(places) do ids[i] = string.sub(place, 11) end
  each('HDEL', letters, ids)
  each('ZREM', index, places)
end

local function add(index, letters, from, to)
  for first = from, to, 1000 do
    local ids, fields, scores, seen = {}, {}, {}, {}
    for i = first, math.min(first + 999, to), 2 do ids[#ids + 1] = string.sub(ARGV[i], 11) end
    for n, there in ipairs(redis.call('HMGET', letters, unpack(ids))) do
      if not there and not seen[ids[n]] then
        local i, at = first + 2 * n - 2, #fields
        seen[ids[n]] = true
        fields[at + 1], fields[at + 2] = ids[n], ARGV[i + 1]
        scores[at + 1], scores[at + 2] = '0', ARGV[i]
      end
    end
    each('HSET', letters, fields)
    each('ZADD', index, scores)
  end
end

local function shrink(index, letters, most, oldest)
  local old = math.min(redis.call('ZLEXCOUNT', index, '-', '(' .. oldest), 1000)
  local gone = math.max(old, redis.call('ZCARD', index) - most)
  if gone > 0 then remove(index, letters, redis.call('ZRANGE', index, 0, gone - 1)) end
  return math.max(gone, 0)
end

local function change(index, letters, fresh, at)
  local most, oldest, added = tonumber(ARGV[at]), ARGV[at + 1], tonumber(ARGV[at + 2])
  local removed_at = at + 3 + 2 * added
  local last = removed_at + tonumber(ARGV[removed_at])
  if fresh then
    add(index, letters, at + 3, removed_at - 1)
    local gone = {}
    for i = removed_at + 1, last do gone[#gone + 1] = ARGV[i] end
    remove(index, letters, gone)
    shrink(index, letters, most, oldest)
  end
  return last + 1
end
"""

#: KEYS: index, letters. ARGV: letters kept, oldest place kept. Returns how many are gone.
SWEEP: Final = LETTERS + "return shrink(KEYS[1], KEYS[2], tonumber(ARGV[1]), ARGV[2])"


class Bounds(Struct, frozen=True):
    """How many letters a partition keeps, and for how long."""

    most: int = 10_000
    keep_ms: int = 7 * 86_400_000

    def oldest(self, now_ms: int) -> str:
        """What is below this place is too old."""
        return time_prefix(max(0, now_ms - self.keep_ms))


DEFAULT_BOUNDS: Final = Bounds()


class Post(NamedTuple):
    """What one entry of the log changes among its partition's letters: place and letter of each that is added, place of
    each that is removed. What is added and removed at once is removed."""

    at_ms: int
    added: list[tuple[str, bytes]]
    removed: list[str]

    @property
    def size_bytes(self) -> int:
        """About what it adds to a call."""
        return sum(100 + len(letter) for _, letter in self.added) + 50 * len(self.removed)

    def then(self, later: "Post") -> "Post":
        """Both."""
        return Post(max(self.at_ms, later.at_ms), self.added + later.added, self.removed + later.removed)


def words(post: Post, bounds: Bounds) -> tuple[bytes, ...]:
    """The post as `change` reads it: letters kept, oldest place kept, how many are added, place and letter of each, how
    many are removed, place of each."""
    told = [b"%d" % bounds.most, bounds.oldest(post.at_ms).encode(), b"%d" % len(post.added)]
    for place, letter in post.added:
        told += (place.encode(), letter)
    told.append(b"%d" % len(post.removed))
    told += [place.encode() for place in post.removed]
    return tuple(told)


class DeadLetters:
    """Reads the letters; what changes them is `dispatcher.store.log`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._sweep = redis.register_script(SWEEP)

    async def below(
        self, partitions: Sequence[int], place: str, oldest: str, most: int
    ) -> tuple[list[str], bool]:
        """Places below `place` and not below `oldest`, newest first, about `most`; and whether there are no more.
        Raises Away."""
        each = max(16, 2 * most // len(partitions))
        pipe = self._redis.pipeline(transaction=False)
        for p in partitions:
            pipe.zrevrangebylex(keys.letter_index(p), f"({place}", f"[{oldest}", 0, each)
        with telling():
            found: Any = await pipe.execute()
        # A partition that has more may have some above what others have: nothing below its last one is told yet.
        horizon = max((row[-1] for row in found if len(row) == each), default=b"")
        told = sorted((place for row in found for place in row if place >= horizon), reverse=True)
        return [place.decode() for place in told[:most]], not horizon and len(told) <= most

    async def get(self, ids: Sequence[str]) -> list[Letter]:
        """The letters of these messages that there are. Raises Away."""
        by_partition: dict[int, list[str]] = {}
        for id_ in ids:
            place = place_of(id_)
            if place is not None:
                by_partition.setdefault(place[0], []).append(id_)
        if not by_partition:
            return []
        pipe = self._redis.pipeline(transaction=False)
        for p, some in by_partition.items():
            pipe.hmget(keys.letters(p), some)
        with telling():
            rows: Any = await pipe.execute()
        found = {
            id_: decode_letter(data)
            for some, row in zip(by_partition.values(), rows, strict=True)
            for id_, data in zip(some, row, strict=True)
            if data is not None
        }
        return [found[id_] for id_ in dict.fromkeys(ids) if id_ in found]

    async def sweep(self, partitions: Sequence[int], bounds: Bounds, now_ms: int) -> int:
        """Remove what is too old or too many; returns how many are gone. Raises Away."""
        async with self._redis.pipeline(transaction=False) as pipe:  # see `Appender._mend_tails`
            for p in partitions:
                names = (keys.letter_index(p), keys.letters(p))
                await self._sweep(keys=names, args=(bounds.most, bounds.oldest(now_ms)), client=pipe)
            with telling():
                gone = await pipe.execute()
        return sum(int(n) for n in gone)


def id_in(place: str) -> str:
    """The message whose letter is there."""
    return place[PREFIX:]
