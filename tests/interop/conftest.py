"""Programs of other makes; what is missing is installed, and what cannot be is a failure."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.auditor import watch
from tests.live import Live, live
from tests.peer import Simulator
from tests.support import run

HERE = Path(__file__).parent
PARTITIONS = 8


@pytest.fixture(scope="session", autouse=True)
def _programs() -> None:
    subprocess.run(["sh", str(HERE / "install.sh")], check=True, timeout=300)


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Live, Simulator]]:
    """A dispatcher and its simulator."""
    with live(tmp_path_factory.mktemp("interop"), partitions=PARTITIONS) as started:
        run(watch(started[0].store_url, PARTITIONS))
        yield started
