"""A provider's rate over its pool of senders, one of which dies meanwhile: by their own word they never write more in a
second than agreed, and the messages go on."""

import os
import signal
from collections.abc import Iterator
from itertools import accumulate
from typing import Final

import pytest

from bench.quota import busiest, said
from tests.auditor import accepted_times, settled
from tests.endtoend.conftest import Pair
from tests.endtoend.talk import PARTITIONS, phone
from tests.endtoend.test_catalog_live import put, webhook
from tests.live import until
from tests.support import run

RATE: Final = 100
MESSAGES: Final = 550
KILL_AT: Final = 50
MEASURED: Final = 450  # the last ones wait until the killed sender is back and says that it had not sent them


@pytest.fixture
def limited(pair: Pair, mark: str) -> Iterator[str]:
    """A simulated SMS provider with a rate and three senders, that only messages of the line `mark` take."""
    dispatcher, simulated = pair
    simulated.create(mark)
    put(dispatcher, f"/v1/lines/{mark}", {})
    put(dispatcher, f"/v1/providers/{mark}", webhook(simulated.at(mark), rate_per_s=RATE, senders=3, max_batch=5))
    put(dispatcher, "/v1/routes", [{"match": {"lines": [mark]}, "providers": [{"id": mark}]}])
    yield mark
    put(dispatcher, "/v1/routes", [])
    dispatcher.call("DELETE", f"/v1/providers/{mark}")


def test_a_pool_never_writes_more_than_the_rate(pair: Pair, limited: str, area: int) -> None:
    dispatcher, simulated = pair
    triggers = [
        {"to": {"sms": phone(area, n)}, "template": "notice", "line": limited, "params": {"n": f"{limited} {n}"}}
        for n in range(MESSAGES)
    ]
    status, answers = dispatcher.call("POST", "/v1/triggers", triggers)
    assert status == 200
    ids = {answer["messages"][0]["message"] for answer in answers}
    assert len(ids) == MESSAGES

    log = dispatcher.place / "up.log"

    def wrote(number: int) -> int:
        return sum(n for who, _, n in said(log, limited) if who == number)

    until(lambda: wrote(1) >= KILL_AT, f"{KILL_AT} messages written by the one that is killed")
    [pid] = [actor["pid"] for actor in dispatcher.actors("sender") if actor["name"] == f"sender:{limited}:1"]
    os.kill(pid, signal.SIGKILL)
    ledger = run(settled(dispatcher.store_url, PARTITIONS, ids), timeout_s=90)
    outcomes = [ledger.ends[id_][0][1] for id_ in ids]
    assert set(outcomes) <= {"sent", "unknown"}
    times = accepted_times(simulated.journal(limited))
    assert [id_ for id_ in ids if times[id_] > 1] == []
    until(lambda: sum(n for _, _, n in said(log, limited)) >= MESSAGES - 3 * 5, "what the senders said, in the log")
    writes = sorted((at_s, n) for _, at_s, n in said(log, limited))
    most, counted = busiest(writes, 1.0), list(accumulate(n for _, n in writes))
    seconds = writes[next(i for i, n in enumerate(counted) if n >= MEASURED)][0] - writes[0][0]
    print(f"{most} at most in any second; {MEASURED} in {seconds:.1f} s; {outcomes.count('unknown')} unknown")
    assert min(wrote(0), wrote(2)) > 50, "all of them sent"
    assert most <= RATE
    assert seconds <= 4 * MEASURED / RATE, "a quarter of the rate, though a sender died"
