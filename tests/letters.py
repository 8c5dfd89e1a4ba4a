"""Dead letters in memory: what `dispatcher.store.deadletters` and the log's script do, said in Python."""

from collections.abc import Sequence

from dispatcher.deadletter import Letter, decode_letter
from dispatcher.ident import place_of
from dispatcher.store.deadletters import DEFAULT_BOUNDS, Bounds, Post, id_in
from dispatcher.store.errors import Away


class MemoryLetters:
    """The letters of all partitions, as a store keeps them."""

    def __init__(self, bounds: Bounds = DEFAULT_BOUNDS) -> None:
        self.bounds = bounds
        self.kept: dict[int, dict[str, bytes]] = {}  # by place
        self.away = False

    def post(self, p: int, post: Post) -> None:
        kept = self.kept.setdefault(p, {})
        ids = {id_in(place) for place in kept}
        kept |= {place: letter for place, letter in post.added if id_in(place) not in ids}
        for place in post.removed:
            kept.pop(place, None)
        self.shrink(p, post.at_ms)

    def shrink(self, p: int, now_ms: int) -> int:
        kept = self.kept.get(p, {})
        young = [place for place in sorted(kept) if place >= self.bounds.oldest(now_ms)]
        left = set(young[-self.bounds.most :])
        self.kept[p] = {place: letter for place, letter in kept.items() if place in left}
        return len(kept) - len(left)

    def places(self) -> list[str]:
        """All of them, newest first."""
        return sorted((place for kept in self.kept.values() for place in kept), reverse=True)

    def all(self) -> list[Letter]:
        """All of them, newest first."""
        found = {place: letter for kept in self.kept.values() for place, letter in kept.items()}
        return [decode_letter(found[place]) for place in self.places()]

    # -- as `DeadLetters`

    async def below(
        self, partitions: Sequence[int], place: str, oldest: str, most: int
    ) -> tuple[list[str], bool]:
        self._check()
        found = [x for x in self.places() if oldest <= x < place and (place_of(id_in(x)) or (-1,))[0] in partitions]
        return found[:most], len(found) <= most

    async def get(self, ids: Sequence[str]) -> list[Letter]:
        self._check()
        found = {letter.message.id: letter for letter in self.all()}
        return [found[id_] for id_ in ids if id_ in found]

    async def sweep(self, partitions: Sequence[int], bounds: Bounds, now_ms: int) -> int:
        self._check()
        self.bounds = bounds
        return sum(self.shrink(p, now_ms) for p in partitions)

    def _check(self) -> None:
        if self.away:
            raise Away("away")
