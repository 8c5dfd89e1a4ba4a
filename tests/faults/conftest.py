"""One dispatcher for all tests of this folder, which has to stand all of them."""

from collections.abc import Iterator
from typing import Final

import pytest

from tests.auditor import watch
from tests.live import Live, live
from tests.peer import Simulator
from tests.support import run

PARTITIONS: Final = 8
Pair = tuple[Live, Simulator]


@pytest.fixture(scope="package")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with live(tmp_path_factory.mktemp("faults"), partitions=PARTITIONS, snapshot={"every_s": 2.0}) as pair:
        run(watch(pair[0].store_url, PARTITIONS))
        yield pair


@pytest.fixture
def pair(started: Pair) -> Pair:
    """The dispatcher and its simulator, whose journal is empty."""
    started[1].reset()
    return started
