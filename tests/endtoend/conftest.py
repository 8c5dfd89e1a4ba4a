"""One dispatcher for every module of this folder that does not need one of its own; never two at once."""

import random
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.auditor import watch
from tests.endtoend.talk import PARTITIONS, noon_zone
from tests.live import Live, live
from tests.peer import Simulator
from tests.support import run

Pair = tuple[Live, Simulator]


class Keeper:
    """Starts the shared dispatcher when it is first asked for, and ends it when a test needs another."""

    def __init__(self, places: pytest.TempPathFactory) -> None:
        self._places = places
        self._stack = ExitStack()
        self.left: Pair | None = None  # as the test before left it

    def pair(self) -> Pair:
        """The one there is, or a new one where a failed test has left none that answers."""
        if self.left is not None and not _answers(self.left[0]):
            self.end()
        if self.left is None:
            place = self._places.mktemp("endtoend")
            loud = {"level": "debug"}  # senders then say when they wrote
            self.left = self._stack.enter_context(live(place, partitions=PARTITIONS, timezone=noon_zone(), log=loud))
            run(watch(self.left[0].store_url, PARTITIONS))
        return self.left

    def end(self) -> None:
        self.left = None
        self._stack.close()


def _answers(dispatcher: Live) -> bool:
    try:
        return dispatcher.call("GET", "/readyz")[0] == 200
    except OSError:
        return False


@pytest.fixture(scope="session")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keeper]:
    keeper = Keeper(tmp_path_factory)
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
