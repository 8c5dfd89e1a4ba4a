"""The gateway's side of dead letters: pages by filter, and sending again by filter or by name, a batch at a time."""

from collections.abc import Sequence
from typing import Any, cast

import msgspec
import pytest

from actors import letters as desk_module
from actors.letters import BATCH, LetterDesk
from dispatcher.deadletter import Letter, LetterFilter, ReplayCall, Replayed, ReplayOrder, ReplayReport
from dispatcher.http.ports import Unavailable
from dispatcher.ident import partition_of
from dispatcher.store.deadletters import Bounds, Post
from tests.actors.fakes import Clock, Gone
from tests.letters import MemoryLetters
from tests.support import run
from tests.test_deadletter import letter, moment

PARTITIONS = 4
DAY = Bounds(10_000, 86_400_000)
FULL = Replayed(3, {}, {"overloaded": 1})


class ReplayingShard:
    """Sends all that it is asked for: its letters are gone; or says what the script has."""

    def __init__(self, store: MemoryLetters) -> None:
        self.store = store
        self.calls: list[ReplayCall] = []
        self.says: list[Replayed] = []

    async def replay(self, batch: bytes) -> bytes:
        call = msgspec.msgpack.decode(batch, type=ReplayCall)
        self.calls.append(call)
        if self.says:
            return msgspec.msgpack.encode(self.says.pop(0))
        for kept in self.store.kept.values():
            for place in [place for place in kept if place[10:] in call.ids]:
                del kept[place]
        return msgspec.msgpack.encode(Replayed(len(call.ids)))

    @property
    def ids(self) -> list[str]:
        return [id_ for call in self.calls for id_ in call.ids]


class Office:
    """A desk over letters in memory and two shards that do as they are told."""

    def __init__(self, letters: Sequence[Letter], bounds: Bounds = DAY) -> None:
        self.store = MemoryLetters(bounds)
        for one in letters:
            data = msgspec.msgpack.encode(one)
            self.store.post(partition_of(one.message.identity, PARTITIONS), Post(one.at_ms, [(one.place, data)], []))
        self.shards: list[Any] = [ReplayingShard(self.store), ReplayingShard(self.store)]
        self.clock = Clock(max((one.at_ms for one in letters), default=0))
        self.desk = LetterDesk(cast(Any, self.store), self.shards, PARTITIONS, bounds, self.clock)

    async def pages(self, wanted: LetterFilter, limit: int) -> list[list[Letter]]:
        """All pages of a list."""
        found, cursor = [], None
        while True:
            page = await self.desk.page(wanted, cursor, limit)
            found.append(page.letters)
            if page.next is None:
                return found
            cursor = page.next


def letters_of(n: int, **more: Any) -> list[Letter]:
    """Letters of `n` users, each a millisecond after the one before, newest first."""
    made = []
    for i in range(n):
        user = f"u{i}"
        some: dict[str, Any] = {name: value(i) if callable(value) else value for name, value in more.items()}
        one = letter(i, identity=user, user=user, **some)
        p = partition_of(user, PARTITIONS)
        id_ = one.message.id[:23] + "0" + "0123456789"[p] + one.message.id[25:]
        made.append(msgspec.structs.replace(
            one, at_ms=one.at_ms + i, message=msgspec.structs.replace(one.message, id=id_)
        ))
    return made[::-1]


@pytest.mark.parametrize("limit", [1, 7, 30, 100])
def test_pages_hold_all_that_the_filter_sees_newest_first(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "STEP", 5)
    letters = letters_of(30, line=lambda i: "loan" if i % 3 else "wallet")
    wanted = LetterFilter(line="loan", since=moment(letters[25].at_ms), until=moment(letters[2].at_ms))
    office = Office(letters)
    for seen, filter_ in ((letters, LetterFilter()), ([x for x in letters[3:26] if wanted.sees(x)], wanted)):
        pages = run(office.pages(filter_, limit))
        assert [one for page in pages for one in page] == seen
        assert all(len(page) <= limit for page in pages)


def test_a_request_looks_at_so_many_letters_and_says_where_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "STEP", 5)
    monkeypatch.setattr(desk_module, "SCAN", 10)
    letters = letters_of(25, code=lambda i: "rare" if i == 2 else "E1")
    pages = run(Office(letters).pages(LetterFilter(code="rare"), 10))
    assert [len(page) for page in pages] == [0, 0, 1]


def test_a_users_letters_are_looked_for_where_the_user_lives() -> None:
    letters = letters_of(30)
    office = Office(letters)
    asked: list[Sequence[int]] = []
    below = office.store.below

    async def noting(partitions: Sequence[int], *rest: Any) -> tuple[list[str], bool]:
        asked.append(partitions)
        return await below(partitions, *rest)

    office.store.below = noting  # type: ignore[method-assign]
    assert run(office.pages(LetterFilter(user="u7"), 10)) == [[x for x in letters if x.message.user == "u7"]]
    assert [list(partitions) for partitions in asked] == [[partition_of("u7", PARTITIONS)]]


def test_what_is_too_old_is_not_shown_even_before_it_is_swept() -> None:
    office = Office(letters_of(5), Bounds(10, 1_000))
    office.clock.ms += 1_000 - 2
    assert [len(page) for page in run(office.pages(LetterFilter(), 10))] == [3]


def test_all_that_the_filter_sees_is_sent_again_in_batches_to_whom_the_users_belong() -> None:
    letters = letters_of(3 * BATCH, line=lambda i: "loan" if i % 3 else "wallet")
    office = Office(letters)
    order = ReplayOrder(LetterFilter(line="loan"), limit=10_000, ttl_s=1.5)
    report = run(office.desk.replay(order))
    assert report == ReplayReport(2 * BATCH)
    for number, shard in enumerate(office.shards):
        assert all(len(call.ids) <= BATCH and call.ttl_ms == 1_500 for call in shard.calls)
        told = {x.message.id for x in letters if x.message.line == "loan"
                and partition_of(x.message.identity, PARTITIONS) % 2 == number}  # fmt: skip
        assert sorted(shard.ids) == sorted(told)
    assert len(office.store.all()) == BATCH
    assert run(office.desk.replay(order)) == ReplayReport()


def test_a_replay_stops_at_its_limit_and_goes_on_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "STEP", 8)
    letters = letters_of(50)
    office = Office(letters)
    cursor, rounds = None, []
    while True:
        report = run(office.desk.replay(ReplayOrder(LetterFilter(), limit=20, cursor=cursor)))
        rounds.append(report.replayed)
        cursor = report.next
        if cursor is None:
            break
    assert rounds == [20, 20, 10]
    assert sorted(office.shards[0].ids + office.shards[1].ids) == sorted(x.message.id for x in letters)


def test_codes_are_only_sent_again_when_they_are_named() -> None:
    letters = letters_of(9, type=lambda i: "verification" if i % 3 else "notice")
    office = Office(letters)
    assert run(office.desk.replay(ReplayOrder(LetterFilter()))) == ReplayReport(3, {}, {"verification": 6})
    code = office.store.all()[0].message.id
    named = ReplayOrder(LetterFilter(), [code, "nothing", letters[0].message.id[:23] + "ZZZ"])
    assert run(office.desk.replay(named)) == ReplayReport(1, {}, {"gone": 2})
    assert len(office.store.all()) == 5


def test_of_those_named_only_what_the_filter_sees_is_sent_again() -> None:
    letters = letters_of(6, line=lambda i: "loan" if i % 2 else "wallet")
    office = Office(letters)
    order = ReplayOrder(LetterFilter(line="loan"), [x.message.id for x in letters])
    assert run(office.desk.replay(order)) == ReplayReport(3, {}, {"filter": 3})


@pytest.mark.parametrize("reason", ["overloaded", "shard_unavailable"])
def test_a_shard_that_takes_no_more_ends_it_and_next_loses_nothing(
    reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk_module, "STEP", 10)
    letters = letters_of(40)
    office = Office(letters)
    first = run(office.desk.replay(ReplayOrder(LetterFilter(), limit=10)))
    assert (first.replayed, first.next) == (10, letters[9].place)
    whole = office.shards[1]
    if reason == "overloaded":
        whole.says = [Replayed(0, {"line_cap": 1}, {"overloaded": 2})]
    else:
        gone = Gone()
        office.shards[1] = type("GoneShard", (), {"replay": staticmethod(gone)})()
    second = run(office.desk.replay(ReplayOrder(LetterFilter(), cursor=first.next)))
    assert second.next == first.next, "what was passed over lies there"
    assert reason in second.skipped
    office.shards[1] = whole
    rest = run(office.desk.replay(ReplayOrder(LetterFilter(), cursor=second.next)))
    assert (second.replayed + rest.replayed, rest.next) == (30, None)
    assert office.store.all() == []


def test_of_those_named_what_was_not_tried_is_counted() -> None:
    letters = letters_of(20)
    office = Office(letters)
    for shard in office.shards:
        shard.says = [Replayed(0, {}, {"draining": 1})]
    report = run(office.desk.replay(ReplayOrder(LetterFilter(), [x.message.id for x in letters])))
    assert report.skipped["draining"] == 1
    assert report.skipped["not_tried"] == 20 - len(office.shards[0].ids or office.shards[1].ids)


def test_a_store_that_is_away_is_a_503() -> None:
    office = Office(letters_of(1))
    office.store.away = True
    with pytest.raises(Unavailable, match="store_unavailable"):
        run(office.desk.page(LetterFilter(), None, 10))
    with pytest.raises(Unavailable, match="store_unavailable"):
        run(office.desk.replay(ReplayOrder(LetterFilter(), ["x", letters_of(1)[0].message.id])))
