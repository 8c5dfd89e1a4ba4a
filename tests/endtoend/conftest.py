"""One dispatcher for every module of this folder that does not need one of its own; never two at once."""

import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.auditor import watch
from tests.endtoend.talk import PARTITIONS, noon_zone
from tests.live import Live, live
from tests.peer import Simulator
from tests.support import run

Pair = tuple[Live, Simulator]


class Keeper:
    """Starts the shared dispatcher when it is first asked for, and ends it when a test needs another."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._stack = ExitStack()
        self._pair: Pair | None = None

    def pair(self) -> Pair:
        if self._pair is None:
            self._pair = self._stack.enter_context(live(self._place, partitions=PARTITIONS, timezone=noon_zone()))
            run(watch(self._pair[0].store_url, PARTITIONS))
        return self._pair

    def end(self) -> None:
        self._pair = None
        self._stack.close()


@pytest.fixture(scope="session")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keeper]:
    keeper = Keeper(tmp_path_factory.mktemp("endtoend"))
    yield keeper
    keeper.end()


@pytest.fixture
def pair(keeper: Keeper) -> Pair:
    """The shared dispatcher and its simulator, whose journal is empty and whose providers behave."""
    dispatcher, simulated = keeper.pair()
    for name in ("sms-a", "sms-b", "push-a"):
        simulated.create(name)
    simulated.reset()
    return dispatcher, simulated


@pytest.fixture
def mark(rng: random.Random) -> str:
    """A word that no other test and no earlier run of this one uses, for ids."""
    return f"{rng.getrandbits(40):010x}"


@pytest.fixture
def area(rng: random.Random) -> int:
    """Four digits that phone numbers of this test share."""
    return rng.randrange(10_000)
