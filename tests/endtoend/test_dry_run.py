"""Why would this user get it, or not? Asked of the running system, which is the same afterwards."""

from typing import Any

import msgspec
from redis.asyncio import Redis

from dispatcher.store import keys
from dispatcher.store.connection import connect
from tests.endtoend.conftest import Pair
from tests.endtoend.talk import MSGPACK, PARTITIONS, connections, lines_of, notice, phone, samples, stream
from tests.live import Live
from tests.support import run


def ask(dispatcher: Live, trigger: Any) -> Any:
    status, answer = dispatcher.call("POST", "/v1/triggers?dry_run=true", trigger)
    assert status == 200, answer
    return answer


async def logs(url: str) -> list[int]:
    """How long every partition's log is."""
    redis: Redis = connect(url)
    try:
        return [await redis.xlen(keys.log(p)) for p in range(PARTITIONS)]
    finally:
        await redis.aclose()


def test_it_explains_each_rule_and_who_would_send(pair: Pair, mark: str, area: int) -> None:
    dispatcher, _ = pair
    answer = ask(dispatcher, notice(f"{mark}-1", phone(area, 1), mark))
    assert (answer["status"], answer["messages"][0]["message"]) == ("accepted", None)
    [explained] = answer["explain"]
    assert explained["channel"] == "sms"
    rules = {rule["name"]: rule for rule in explained["rules"]}
    cap = rules["line_cap_sms"]
    assert (cap["kind"], cap["passed"], cap["count"], cap["limit"]) == ("line_cap", True, 0, 5)
    assert {"window_s", "resets_at", "word", "position"} <= set(cap)
    providers = explained["providers"]
    assert {provider["id"] for provider in providers} == {"sms-a", "sms-b"}
    assert sum(provider["share"] for provider in providers) == 1.0
    assert all(0 < provider["score"] <= 1 for provider in providers)


def test_it_says_what_was_blocked_and_when_it_passes_again(pair: Pair, mark: str, area: int) -> None:
    dispatcher, _ = pair
    to = phone(area, 2)
    for n in range(5):
        _, taken = dispatcher.call("POST", "/v1/triggers", notice(f"{mark}-{n}", to, f"{mark} {n}"))
        assert taken["status"] == "accepted"
    answer = ask(dispatcher, notice(f"{mark}-9", to, f"{mark} 9"))
    assert (answer["status"], answer["reason"]) == ("intercepted", "line_cap")
    [objection] = [rule for rule in answer["explain"][0]["rules"] if not rule["passed"]]
    assert (objection["name"], objection["count"], objection["limit"]) == ("line_cap_sms", 5, 5)
    assert objection["resets_at"].endswith("Z")
    known = ask(dispatcher, notice(f"{mark}-1", to, f"{mark} 1"))
    assert (known["status"], known["first"]) == ("duplicate", {"status": "accepted", "reason": None})


def test_nothing_is_done_and_nothing_is_counted(pair: Pair, mark: str, area: int) -> None:
    """Logs, users, metrics and providers are as before, whatever was asked, in all three forms."""
    dispatcher, simulated = pair

    def now() -> tuple[Any, ...]:
        ours = ("dispatcher_triggers_total", "dispatcher_blocked_total")
        counted = {key: n for key, n in samples(dispatcher).items() if key[0] in ours}
        users = sum(actor["users"] for actor in dispatcher.actors("shard"))
        return run(logs(dispatcher.store_url)), users, counted, len(simulated.journal())

    before = now()
    triggers = [notice(f"{mark}-{n}", phone(area, 100 + n), mark) for n in range(50)]
    triggers.append({"id": f"{mark}-bad", "template": "notice"})
    triggers.append(notice(f"{mark}-no", phone(area, 3), mark, template="none"))
    answers = ask(dispatcher, triggers)
    assert [answer["status"] for answer in answers] == ["accepted"] * 50 + ["rejected"] * 2

    async def streamed() -> None:
        async with connections(dispatcher.url, 1) as [session]:
            results, summary = await stream(session, lines_of(triggers), query="?dry_run=true")
            assert (summary["accepted"], summary["rejected"]) == (50, 2)
            assert all(result["explain"][0]["rules"] for result in results[:50])
            body = b"".join(msgspec.msgpack.encode(trigger) for trigger in triggers)
            url, headers = "/v1/triggers?dry_run=true", {"content-type": MSGPACK}
            async with session.post(url, data=body, headers=headers) as response:
                assert response.status == 200
                assert b"line_cap_sms" in await response.read()

    run(streamed())
    assert now() == before
    taken = dispatcher.call("POST", "/v1/triggers", triggers)[1]
    assert [answer["status"] for answer in taken] == ["accepted"] * 50 + ["rejected"] * 2
