"""A caller that lost its connection sends everything again: each trigger makes exactly one message."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from tests.auditor import accepted_times, settled
from tests.endtoend.conftest import Pair
from tests.endtoend.talk import PARTITIONS, accepted_in, connections, lines_of, notice, phone, spread, stream
from tests.support import run

TRIGGERS: Final = 5_000
A_USER: Final = 5  # shipped: line_cap of sms a day
CHUNK: Final = 50
AT_ONCE: Final = 200


async def cut_off(url: str, triggers: Sequence[Any], after: int) -> list[dict[str, Any]]:
    """Stream the first `after` triggers, break the connection without a word; the results that came until then."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /v1/triggers HTTP/1.1\r\nHost: test\r\nContent-Type: application/x-ndjson\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    received = bytearray()

    async def read() -> None:
        while data := await reader.read(1 << 16):
            received.extend(data)

    reading = asyncio.create_task(read())
    for start in range(0, after, CHUNK):
        chunk = lines_of(triggers[start : min(start + CHUNK, after)])
        writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        await writer.drain()
        await asyncio.sleep(0)
    writer.write(b"ffff\r\n" + json.dumps(triggers[after]).encode()[:20])  # a chunk, and a line, that never end
    while received.count(b'{"seq":') < after // 2:
        assert not reading.done(), bytes(received[-500:])
        await asyncio.sleep(0.005)
    writer.transport.abort()
    await asyncio.gather(reading, return_exceptions=True)
    lines = [line for line in bytes(received).split(b"\n") if line.startswith(b'{"seq":') and line.endswith(b"}")]
    return [json.loads(line) for line in lines]


def test_a_stream_cut_in_the_middle_is_sent_again(pair: Pair, mark: str, area: int, rng: random.Random) -> None:
    dispatcher, simulated = pair
    people = TRIGGERS // A_USER
    triggers = [notice(f"{mark}-{n}", phone(area, n % people), f"{mark} {n}") for n in range(TRIGGERS)]
    after = rng.randrange(TRIGGERS // 4, 3 * TRIGGERS // 4)
    before = run(cut_off(dispatcher.url, triggers, after))
    assert {result["status"] for result in before} == {"accepted"}

    async def again() -> tuple[list[dict[str, Any]], dict[str, Any]]:
        async with connections(dispatcher.url, 1) as [session]:
            return await stream(session, lines_of(triggers))

    results, summary = run(again())
    assert [result["seq"] for result in results] == list(range(TRIGGERS))
    assert summary["total"] == summary["accepted"] + summary["duplicate"] == TRIGGERS
    assert len(before) <= summary["duplicate"] <= after + 1
    for result in results:
        assert (result["status"] == "duplicate") == ("first" in result)
    assert {r["seq"] for r in results if r["status"] == "accepted"} >= set(range(after + 1, TRIGGERS))
    duplicates = {r["id"]: r for r in results if r["status"] == "duplicate"}
    for told in before:
        duplicate = duplicates[told["id"]]
        assert duplicate["first"] == {"status": "accepted", "reason": None}
        assert duplicate["messages"][0]["message"] == told["messages"][0]["message"]
    print(f"cut after {after}, {len(before)} answered, {len(duplicates)} taken")

    ids = {result["messages"][0]["message"] for result in results}
    assert len(ids) == TRIGGERS
    ledger = run(settled(dispatcher.store_url, PARTITIONS, ids))
    assert ledger.ended_twice() == []
    assert accepted_times(simulated.journal()) == Counter(ids)

    last, summary = run(again())
    assert summary["duplicate"] == TRIGGERS
    assert {result["messages"][0]["message"] for result in last} == ids


def test_one_id_many_times_at_once_is_one_message(pair: Pair, mark: str, area: int) -> None:
    dispatcher, simulated = pair
    trigger = notice(mark, phone(area, 1), mark)

    async def go() -> list[dict[str, Any]]:
        async with connections(dispatcher.url, 20) as sessions:
            streams = [stream(session, lines_of([trigger] * (AT_ONCE // 20))) for session in sessions[:10]]
            singles = spread(sessions[10:], [trigger] * (AT_ONCE // 2))
            *streamed, single = await asyncio.gather(*streams, singles)
            return [*single, *(result for results, _ in streamed for result in results)]

    results = run(go())
    assert Counter(result["status"] for result in results) == {"accepted": 1, "duplicate": AT_ONCE - 1}
    [message] = {result["messages"][0]["message"] for result in results}
    firsts = [result["first"] for result in results if result["status"] == "duplicate"]
    assert firsts == [{"status": "accepted", "reason": None}] * (AT_ONCE - 1)
    run(settled(dispatcher.store_url, PARTITIONS, {message}))
    assert [(row["id"], row["times"]) for row in simulated.journal()] == [(message, 1)]


def test_the_same_id_on_another_line_or_user_is_another_trigger(pair: Pair, mark: str, area: int) -> None:
    dispatcher, _ = pair
    sent = [
        notice(mark, phone(area, 1), f"{mark} a"),
        notice(mark, phone(area, 1), f"{mark} b", line="loan"),
        notice(mark, phone(area, 2), f"{mark} c"),
    ]
    status, results = dispatcher.call("POST", "/v1/triggers", [*sent, *sent])
    assert status == 200
    assert [result["status"] for result in results] == ["accepted"] * 3 + ["duplicate"] * 3
    first, again = results[:3], results[3:]
    assert [r["messages"][0]["message"] for r in first] == [r["messages"][0]["message"] for r in again]
    assert len(accepted_in(first)) == 3


def test_what_was_blocked_is_remembered_and_what_was_rejected_is_not(pair: Pair, mark: str, area: int) -> None:
    dispatcher, _ = pair
    to = phone(area, 1)
    taken = [notice(f"{mark}-{n}", to, f"{mark} {n}") for n in range(6)]
    wrong = notice(f"{mark}-w", to, mark, template=f"none-{mark}", line="loan")
    status, results = dispatcher.call("POST", "/v1/triggers", [*taken, wrong])
    assert [result["status"] for result in results] == ["accepted"] * 5 + ["intercepted", "rejected"]
    mended = {**wrong, "template": "notice"}
    status, results = dispatcher.call("POST", "/v1/triggers", [taken[5], mended])
    assert (status, results[0]["status"]) == (200, "duplicate")
    assert results[0]["first"] == {"status": "intercepted", "reason": "line_cap"}
    assert results[1]["status"] == "accepted"
