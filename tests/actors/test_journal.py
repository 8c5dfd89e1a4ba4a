"""The journal of a sender: what a process that is killed leaves to the next."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actors import journal as journal_module
from actors.attempts import Slot
from actors.journal import (
    Entry,
    Journal,
    Unreadable,
    begin,
    boot_of,
    go_on,
    in_memory,
    open_journal,
    path_of,
)
from dispatcher.ident import message_id, time_prefix
from dispatcher.message import Message
from dispatcher.receipt import ANSWERS, Answer, Receipt

NOW_MS = 1_800_000_000_000
BOOT = "6c038d50-1b87-4d17-95f8-66cd3024a93a"
ATTEMPT = 7 << 20 | 1
ROOT = Path(__file__).resolve().parents[2]


def id_of(number: int, at_ms: int = NOW_MS) -> str:
    return message_id(time_prefix(at_ms), f"{number:013d}", number % 64, "sms")


def message(id_: str) -> Message:
    return Message(id_, "t", "u", "sms", "+86", "notice", 3, 1, "default", "pay", {}, {}, NOW_MS, NOW_MS, NOW_MS)


def write(journal: Journal, *ids: str, attempt: int = ATTEMPT) -> int:
    return journal.write([Slot(message(id_), attempt) for id_ in ids])


def end(journal: Journal, first: int, ids: list[str], answer: Answer = "accepted") -> None:
    journal.end(first, [Receipt(id_, answer, "p") for id_ in ids])


def killed(journal: Journal, path: Path) -> Path:
    """The file as a SIGKILL at this moment would leave it: whatever is in the shared pages, and no lock."""
    del journal  # it is as alive as it was
    return Path(shutil.copy(path, path.with_suffix(".killed")))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sent" / "ring"


def test_a_successor_knows_what_was_written_and_how_it_ended(path: Path) -> None:
    journal = begin(path, BOOT, NOW_MS)
    ids = [id_of(n) for n in range(5)]
    first, second = write(journal, *ids[:2]), write(journal, *ids[2:4])
    end(journal, first, ids[:2])
    other = write(journal, ids[4], attempt=ATTEMPT + 3)
    end(journal, other, ids[4:], "throttled")
    assert second == 2
    successor, entries = go_on(killed(journal, path), BOOT, journal.ring)
    assert entries == [
        Entry(ids[0], ATTEMPT, "accepted"),
        Entry(ids[1], ATTEMPT, "accepted"),
        Entry(ids[2], ATTEMPT, None),
        Entry(ids[3], ATTEMPT, None),
        Entry(ids[4], ATTEMPT + 3, "throttled"),
    ]
    assert write(successor, id_of(9)) == 5, "it goes on behind its predecessor"
    assert Entry(id_of(9), ATTEMPT, None) in successor.entries()
    journal.close()
    successor.close()


@pytest.mark.parametrize("answer", ANSWERS)
def test_every_answer_is_kept(path: Path, answer: Answer) -> None:
    journal = begin(path, BOOT, NOW_MS)
    end(journal, write(journal, id_of(1)), [id_of(1)], answer)
    journal.close()
    successor, entries = go_on(path, BOOT, journal.ring)
    assert entries == [Entry(id_of(1), ATTEMPT, answer)]
    successor.close()


CHILD = """
import os, signal, sys
from pathlib import Path
from tests.actors.test_journal import BOOT, NOW_MS, begin, end, id_of, write
journal = begin(Path(sys.argv[1]), BOOT, NOW_MS, cells=1000)
print(journal.ring.hex(), flush=True)
n = 0
while True:
    ids = [id_of(n + i) for i in range(n % 7 + 1)]
    first = write(journal, *ids)
    if n % 3:
        end(journal, first, ids)
    elif n > 300:
        end(journal, first, ids, "unknown")
    n += len(ids)
    if n > 5000:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_leaves_all_of_it(path: Path) -> None:
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        check=False,
    )
    assert child.returncode == -signal.SIGKILL
    journal, entries = go_on(path, BOOT, bytes.fromhex(child.stdout.decode().strip()))
    known = {entry.id: entry.answer for entry in entries}
    newest = max(known)
    last = next(n for n in range(6_000) if id_of(n) == newest)
    assert last >= 5_000
    for n in range(last - 500, last + 1):
        assert known[id_of(n)] is not None
    assert set(known.values()) == {"accepted", "unknown", None}
    assert [id_ for id_, answer in known.items() if answer is None and id_ > id_of(310)] == []
    journal.close()


def test_cells_of_which_only_a_part_was_written_are_not_believed(path: Path) -> None:
    """A kill in the middle of `write`: the header names the cells, and some of them are half of one message, half of
    another. Nor are they believed by the life after the next, which finds them behind what the next has written."""
    journal = begin(path, BOOT, NOW_MS, cells=8)
    for n in range(8):
        end(journal, write(journal, id_of(n)), [id_of(n)])
    write(journal, id_of(8))
    torn = killed(journal, path)
    journal.close()
    data = bytearray(torn.read_bytes())
    data[120:128] = (4 << 40 | 1).to_bytes(8, "little")
    data[128 + 40 : 128 + 40 + 20] = id_of(70)[:20].encode()
    data[128 + 4 * 40 : 128 + 4 * 40 + 26] = id_of(73).encode()  # whole but for its answer, which is the one of before
    torn.write_bytes(data)
    successor, entries = go_on(torn, BOOT, journal.ring)
    assert [(entry.id, entry.answer) for entry in entries] == [
        (id_of(5), "accepted"),
        (id_of(6), "accepted"),
        (id_of(7), "accepted"),
        (id_of(8), None),
    ]
    assert write(successor, id_of(90)) == 1
    successor.close()
    third, entries = go_on(torn, BOOT, journal.ring)
    assert {entry.id for entry in entries} == {id_of(n) for n in (5, 6, 7, 8, 90)}
    third.close()


def test_a_request_in_the_air_keeps_its_cells_however_long_it_takes(path: Path) -> None:
    journal = begin(path, BOOT, NOW_MS, cells=64)
    slow = [write(journal, id_of(n), id_of(n + 1)) for n in (0, 2)]
    for n in range(10, 2_010, 4):
        ids = [id_of(n + i) for i in range(4)]
        end(journal, write(journal, *ids), ids)
    known = {entry.id: entry.answer for entry in journal.entries()}
    assert [known[id_of(n)] for n in range(4)] == [None] * 4
    assert len(known) <= 64
    assert all(known[id_of(n)] == "accepted" for n in range(2_010 - 32, 2_010)), "and the newest are there, too"
    for n, first in zip((0, 2), slow, strict=True):
        end(journal, first, [id_of(n), id_of(n + 1)])
    for n in range(3_000, 3_064):
        end(journal, write(journal, id_of(n)), [id_of(n)])
    assert id_of(0) not in {entry.id for entry in journal.entries()}
    journal.close()


@pytest.mark.parametrize("kept", [True, False])
def test_a_ring_full_of_requests_in_the_air_grows(path: Path, kept: bool) -> None:
    journal = begin(path, BOOT, NOW_MS, cells=8) if kept else in_memory(NOW_MS, cells=8)
    for n in range(1_000):
        write(journal, id_of(n))
    assert {entry.id for entry in journal.entries() if entry.answer is None} == {id_of(n) for n in range(1_000)}
    assert journal.kept == kept
    if kept:
        successor, entries = go_on(killed(journal, path), BOOT, journal.ring)
        assert len(entries) == 1_000
        successor.close()
    journal.close()


def test_where_the_disk_is_full_it_lives_in_memory_and_nobody_believes_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = begin(path, BOOT, NOW_MS, cells=8)

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    for n in range(100):
        write(journal, id_of(n))
    assert not journal.kept
    assert len(journal.entries()) == 100
    with pytest.raises(Unreadable, match="form"):
        go_on(path, BOOT, journal.ring)
    journal.close()
    other, entries = open_journal(path, BOOT, None, NOW_MS)
    assert (other.kept, entries) == (False, [])
    other.close()


def test_only_the_predecessors_ring_of_this_boot_is_read(path: Path) -> None:
    journal = begin(path, BOOT, NOW_MS)
    end(journal, write(journal, id_of(1)), [id_of(1)])
    with pytest.raises(BlockingIOError):
        open_journal(path, BOOT, journal.ring, NOW_MS)
    journal.close()
    with pytest.raises(Unreadable, match="the machine was started since"):
        go_on(path, "another boot", journal.ring)
    with pytest.raises(Unreadable, match="not the last one of this sender"):
        go_on(path, BOOT, b"0123456789abcdef")
    same, entries = open_journal(path, BOOT, journal.ring, NOW_MS + 5)
    assert len(entries) == 1
    same.close()
    for ring, boot in ((None, BOOT), (b"0123456789abcdef", BOOT), (journal.ring, "another boot")):
        fresh, entries = open_journal(path, boot, ring, NOW_MS + 5)
        assert entries == fresh.entries() == []
        assert fresh.ring != journal.ring
        fresh.close()
        journal = fresh
    missing, entries = open_journal(path.with_name("none"), BOOT, b"0123456789abcdef", NOW_MS)
    assert (missing.kept, entries) == (True, [])
    missing.close()


def test_a_ring_covers_what_was_admitted_since_it_began(path: Path) -> None:
    journal = begin(path, BOOT, NOW_MS)
    before, since = id_of(3, NOW_MS - 1), id_of(4, NOW_MS)
    assert journal.covers([])
    assert journal.covers([since, id_of(5, NOW_MS + 1_000_000)])
    assert not journal.covers([since, before])
    journal.close()
    successor, _ = go_on(path, BOOT, journal.ring)
    assert (successor.covers([since]), successor.covers([before])) == (True, False)
    successor.close()


def test_names_become_files(tmp_path: Path) -> None:
    names = ["sender:sms-a:0", "sender:sms/a:0", "sender:../../x:0", "sender:" + "长" * 120 + ":0", "sender:sms a:0"]
    paths = [path_of(tmp_path, name) for name in names]
    assert len(set(paths)) == len(paths)
    for one in paths:
        assert one.parent == tmp_path
        one.touch()
    assert boot_of("run") != ""


@given(st.binary(max_size=600))
@settings(max_examples=200)
def test_any_other_file_is_unreadable(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("garbage") / "ring"
    path.write_bytes(data)
    with pytest.raises(Unreadable):
        go_on(path, BOOT, data[8:24])


@given(st.integers(0, 2**32), st.integers(1, 40))
@settings(max_examples=200)
def test_a_damaged_ring_is_unreadable_or_says_nothing_impossible(
    tmp_path_factory: pytest.TempPathFactory, seed: int, hits: int
) -> None:
    path, rng = tmp_path_factory.mktemp("damaged") / "ring", Random(seed)
    journal = begin(path, BOOT, NOW_MS, cells=16)
    for n in range(30):
        end(journal, write(journal, id_of(n)), [id_of(n)])
    journal.close()
    data = bytearray(path.read_bytes())
    for _ in range(hits):
        data[rng.randrange(len(data))] = rng.randrange(256)
    path.write_bytes(data)
    try:
        successor, entries = go_on(path, BOOT, journal.ring)
    except Unreadable:
        pass
    else:
        assert len(entries) <= 16
        assert all(entry.answer is None or entry.answer in ANSWERS for entry in entries)
        for n in range(100, 140):
            end(successor, write(successor, id_of(n)), [id_of(n)])
        assert Entry(id_of(139), ATTEMPT, "accepted") in successor.entries()
        successor.close()
    again, _ = open_journal(path, BOOT, journal.ring, NOW_MS)
    again.close()


CELLS = 24


class Lives(RuleBasedStateMachine):
    """One sender's name through many lives, each killed at some point, against a plain list of what was written."""

    path_for: Callable[[], Path]

    @initialize()
    def born(self) -> None:
        self.path = type(self).path_for()
        self.journal = begin(self.path, BOOT, NOW_MS, cells=CELLS)
        self.written: list[str] = []  # in order
        self.answers: dict[str, Answer | None] = {}
        self.air: list[tuple[int, list[str]]] = []
        self.lost: set[str] = set()  # in the air when their life ended

    @rule(n=st.integers(1, 5))
    def request(self, n: int) -> None:
        ids = [id_of(len(self.written) + i) for i in range(n)]
        self.air.append((write(self.journal, *ids), ids))
        self.written += ids
        self.answers.update(dict.fromkeys(ids))

    @precondition(lambda self: self.air)
    @rule(which=st.integers(0, 1_000), answer=st.sampled_from(ANSWERS))
    def reply(self, which: int, answer: Answer) -> None:
        first, ids = self.air.pop(which % len(self.air))
        end(self.journal, first, ids, answer)
        self.answers.update(dict.fromkeys(ids, answer))

    @rule(torn=st.integers(0, 5))
    def kill(self, torn: int) -> None:
        """The next life begins; some cells may have been half written."""
        copy = killed(self.journal, self.path)
        self.journal.close()
        data = bytearray(copy.read_bytes())
        cells = (len(data) - 128) // 40
        free = int.from_bytes(data[120:128], "little")
        held = {first + i for first, ids in self.air for i in range(len(ids))}
        if torn and free + torn <= cells and not held & set(range(free, free + torn)):
            data[120:128] = (torn << 40 | free).to_bytes(8, "little")
            data[128 + free * 40 : 128 + (free + torn) * 40 - 14] = b"Z" * (torn * 40 - 14)
            spoiled = torn
        else:
            spoiled = 0
        self.path.write_bytes(data)
        self.journal, entries = go_on(self.path, BOOT, self.journal.ring)
        self._check(entries, spoiled)
        self.lost |= {id_ for _, ids in self.air for id_ in ids}
        self.air = []

    @invariant()
    def remembers(self) -> None:
        self._check(self.journal.entries(), 0)

    def _check(self, entries: list[Entry], spoiled: int) -> None:
        known = {entry.id: entry.answer for entry in entries}
        assert len(known) == len(entries)
        assert all(self.answers[id_] == answer for id_, answer in known.items())
        assert {id_ for _, ids in self.air for id_ in ids} <= known.keys(), "all that is in the air is known"
        newest = self.written[len(self.written) - max(CELLS // 4 - spoiled, 0) :]
        assert set(newest) <= known.keys()

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.journal.close()


def test_it_agrees_with_a_plain_list_through_many_lives(tmp_path_factory: pytest.TempPathFactory) -> None:
    class HereLives(Lives):
        path_for = staticmethod(lambda: tmp_path_factory.mktemp("lives") / "ring")

    case = HereLives.TestCase
    case.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
    case("runTest").runTest()


def test_it_knows_as_many_as_a_sender_remembers() -> None:
    assert journal_module.REMEMBERED == 65_536
    journal = in_memory(NOW_MS)
    ids = [id_of(n) for n in range(65_536 + 100)]
    for at in range(0, len(ids), 100):
        end(journal, write(journal, *ids[at : at + 100]), ids[at : at + 100])
    known = {entry.id for entry in journal.entries()}
    assert len(known) > 65_400
    assert set(ids[-65_400:]) <= known
    journal.close()
