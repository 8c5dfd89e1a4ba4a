"""The store hangs or dies under a live stream: callers are told, nothing accepted is lost, it goes on by itself."""

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

import pytest

from dispatcher.client import Client
from tests.auditor import accepted_times, settled, watch
from tests.endtoend.conftest import Keeper
from tests.endtoend.talk import PARTITIONS, noon_zone, notice, phone
from tests.live import Live, live, until
from tests.peer import Simulator
from tests.servers import Process, started
from tests.support import run

RATE: Final = 400
BEFORE_S: Final = 1.5
AFTER_S: Final = 1.5
Trio = tuple[Live, Simulator, Process]


@pytest.fixture(scope="module", params=["valkey", "redis62"])
def trio(request: pytest.FixtureRequest, keeper: Keeper, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    """A dispatcher over a server that is not its own."""
    keeper.end()
    place = tmp_path_factory.mktemp("away")
    with (
        started(request.param) as store,
        live(place, partitions=PARTITIONS, timezone=noon_zone(), redis={"url": store.url}) as (running, simulated),
    ):
        run(watch(store.url, PARTITIONS))
        yield running, simulated, store


def ask(url: str, body: Any = None) -> tuple[int, Any, Any]:
    """Status, headers and document, for answers whose headers matter."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, response.headers, json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, json.loads(error.read())


def told_away(url: str, to: str, mark: str) -> None:
    """What callers hear while the store is away."""
    # Each gateway finds out by itself, so both are asked: ten new connections in a row.
    until(lambda: {ask(f"{url}/readyz")[0] for _ in range(10)} == {503}, "readyz to be 503 everywhere")
    status, headers, document = ask(f"{url}/readyz")
    assert status == 503, "it stays away until the store is back"
    assert headers.get_content_type() == "application/problem+json"
    assert "store_unavailable" in document["detail"]
    assert any("store_unavailable" in error["path"] for error in document["errors"])
    began = time.monotonic()
    status, headers, document = ask(f"{url}/v1/triggers", notice(f"{mark}-single", to, mark, line="loan"))
    assert status in (429, 503), document
    assert headers.get_content_type() == "application/problem+json"
    assert int(headers["retry-after"]) >= 1
    assert document["status"] == status
    assert document["detail"]
    assert time.monotonic() - began < 20, "a refusal comes at once, not when the store is back"
    assert ask(f"{url}/healthz")[0] == 200, "the process itself is alive"


async def stream_while(url: str, area: int, mark: str, breaking: Callable[[], None]) -> list[Any]:
    """A steady stream that goes on until some time after the breaking has been mended."""
    mended = asyncio.Event()

    async def triggers() -> AsyncIterator[dict[str, Any]]:
        start, n, end = time.monotonic(), 0, float("inf")
        while time.monotonic() < end:
            if mended.is_set() and end == float("inf"):
                end = time.monotonic() + AFTER_S
            yield notice(f"{mark}-{n}", phone(area, n % 10_000), f"{mark} {n}")
            n += 1
            if not n % 20:
                await asyncio.sleep(max(0.0, start + n / RATE - time.monotonic()))

    async def strike() -> None:
        await asyncio.sleep(BEFORE_S)
        try:
            await asyncio.to_thread(breaking)
        finally:
            mended.set()

    async with Client(url, patience_s=90.0) as client:
        striking = asyncio.create_task(strike())
        results = [result async for result in client.stream(triggers())]
        await striking
    return results


def check(trio: Trio, results: list[Any]) -> None:
    """Everything answered, everything accepted delivered, each once unless it was in the air."""
    running, simulated, store = trio
    assert Counter(result.status for result in results) == {"accepted": len(results)}
    assert sorted(result.seq for result in results) == list(range(len(results)))
    ids = {result.messages[0].message for result in results}
    assert len(ids) == len(results)
    ledger = run(settled(store.url, PARTITIONS, ids), timeout_s=90)
    assert ledger.ended_twice() == []
    assert {ledger.ends[id_][0][1] for id_ in ids} == {"sent"}
    times = accepted_times(simulated.journal())
    assert {times[id_] for id_ in ids} == {1}, "no process died, so nothing is sent twice"
    until(lambda: running.call("GET", "/readyz")[0] == 200, "readyz to be 200 again")


def test_the_store_hangs(trio: Trio, mark: str, area: int) -> None:
    running, simulated, store = trio
    simulated.reset()
    pause_s = 20.0 if store.kind == "valkey" else 5.0
    single = phone(area, 0)

    def hang() -> None:
        end = time.monotonic() + pause_s
        store.pause()
        try:
            told_away(running.url, single, mark)
            time.sleep(max(0.0, end - time.monotonic()))  # the length of the pause is the test
        finally:
            store.resume()
        until(lambda: running.call("GET", "/readyz")[0] == 200, "readyz to be 200 by itself")

    check(trio, run(stream_while(running.url, area, mark, hang), timeout_s=180))
    status, answer = running.call("POST", "/v1/triggers", notice(f"{mark}-single", single, mark, line="loan"))
    assert (status, answer["status"]) == (200, "accepted"), "what was refused was not taken, and may come again"


def test_the_store_dies_and_comes_back(trio: Trio, mark: str, area: int) -> None:
    """SIGKILL in the middle of the stream, and a start over the same files some seconds later."""
    running, simulated, store = trio
    simulated.reset()

    def kill() -> None:
        store.kill()
        end = time.monotonic() + (5.0 if store.kind == "valkey" else 2.0)
        told_away(running.url, phone(area, 0), mark)
        time.sleep(max(0.0, end - time.monotonic()))  # the length of the absence is the test
        store.start()
        until(lambda: running.call("GET", "/readyz")[0] == 200, "readyz to be 200 by itself")

    check(trio, run(stream_while(running.url, area, mark, kill), timeout_s=180))
