"""Delivery reports, from a trigger to the log: by our id or the provider's reference, repeated ones, and wrong ones."""

import json
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dispatcher.entries import Delivery, Reported, decode_entry
from dispatcher.store.connection import connect
from dispatcher.store.log import Log
from dispatcher.store.uplinks import Uplinks
from tests.endtoend.conftest import Pair
from tests.endtoend.talk import PARTITIONS, notice, phone, samples
from tests.live import Live, until
from tests.support import run

MANY = 40


@pytest.fixture
def reporting(pair: Pair, mark: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """A provider that sends reports, twice and mixed up, and its document; a template of the same name goes there."""
    dispatcher, simulated = pair
    name = f"told-{mark}"
    before = {path: dispatcher.call("GET", path)[1] for path in ("/v1/rules", "/v1/routes")}
    options = {"url": simulated.at(name), "allow_private": True}
    simulated.create(name)
    put(dispatcher, f"/v1/templates/{name}", {"type": "notice", "channels": [{"channel": "sms", "text": "{n}"}]})
    provider = {"kind": "webhook", "channel": "sms", "max_batch": 100, "options": options}
    put(dispatcher, f"/v1/providers/{name}", provider)
    put(dispatcher, "/v1/routes", [{"match": {"templates": [name]}, "providers": [{"id": name}]}])
    put(dispatcher, "/v1/rules", [])
    shown = dispatcher.call("GET", f"/v1/providers/{name}")[1]
    assert shown["reports_url"].startswith(f"{dispatcher.url}/v1/reports/{name}/")
    yield name, shown
    for path, document in before.items():
        put(dispatcher, path, document)
    assert dispatcher.call("DELETE", f"/v1/providers/{name}")[0] == 204


def put(dispatcher: Live, path: str, document: Any) -> None:
    status, answer = dispatcher.call("PUT", path, document)
    assert status in (200, 201), answer


def send(dispatcher: Live, template: str, mark: str, area: int, count: int) -> list[str]:
    """The messages of so many triggers."""
    triggers = [notice(f"{mark}-{n}", phone(area, n), f"{mark} {n}", template=template) for n in range(count)]
    status, results = dispatcher.call("POST", "/v1/triggers", triggers)
    assert status == 200
    return [result["messages"][0]["message"] for result in results]


def deliveries(dispatcher: Live) -> list[Delivery]:
    """Everything that the logs say was reported."""

    async def read() -> list[Delivery]:
        redis = connect(dispatcher.store_url)
        log, found = Log(redis), []
        for p in range(PARTITIONS):
            at = 0
            while rows := await log.read(p, at, 500):
                at = rows[-1][0]
                entries = [decode_entry(data) for _, some in rows for data in some]
                found += [report for entry in entries if isinstance(entry, Reported) for report in entry.reports]
        await redis.aclose()
        return found

    return run(read())


def reported(dispatcher: Live, provider: str) -> dict[str, float]:
    """`dispatcher_reports_total` of this provider, by status."""
    return {
        dict(labels)["status"]: value
        for (name, labels), value in samples(dispatcher).items()
        if name == "dispatcher_reports_total" and dict(labels)["provider"] == provider
    }


def post(url: str, body: Any) -> int:
    """Status of a vendor's call."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_what_a_provider_reports_is_in_the_log_and_counted_once(
    pair: Pair, reporting: tuple[str, dict[str, Any]], mark: str, area: int
) -> None:
    dispatcher, simulated = pair
    name, shown = reporting
    reports = {"url": shown["reports_url"], "delay_s": 0.05, "undelivered_rate": 0.3}
    simulated.create(name, reports=reports, report_twice=1.0, report_spread_s=0.3)
    ids = send(dispatcher, name, mark, area, MANY)
    until(lambda: sum(reported(dispatcher, name).values()) == 2 * MANY, "every report, twice")
    counts = reported(dispatcher, name)
    told = {d.message: d for d in deliveries(dispatcher) if d.provider == name}
    assert told.keys() == set(ids)
    statuses = Counter(d.status for d in told.values())
    assert counts == {"repeated": MANY, **statuses}
    assert statuses.keys() == {"delivered", "undelivered"}
    for d in told.values():
        assert d.code == ("DELIVRD" if d.status == "delivered" else "UNDELIV")
        assert d.segments == 1
        assert d.at_ms > 1_700_000_000_000
    found = samples(dispatcher)
    label = (("provider", name),)
    assert found["dispatcher_report_seconds_count", label] == MANY
    assert found["dispatcher_reported_segments_total", label] == MANY


def test_a_reference_finds_its_message_and_only_the_secret_lets_in(
    pair: Pair, reporting: tuple[str, dict[str, Any]], mark: str, area: int
) -> None:
    dispatcher, simulated = pair
    name, shown = reporting
    url = shown["reports_url"]
    [message, other] = send(dispatcher, name, mark, area, 2)

    def told(wanted: str) -> list[str]:
        return [d.status for d in deliveries(dispatcher) if d.message == wanted]

    arrived(lambda: len(simulated.journal(name, accepted=True)) == 2)
    order = [row["id"] for row in simulated.journal(name, accepted=True)]
    ref = f"{name}-{order.index(message) + 1}"  # the simulator numbers what it accepts
    assert post(url, [{"ref": ref, "status": "sent"}]) == 200
    assert post(url, [{"ref": ref, "status": "delivered", "price": 0.05}]) == 200
    assert told(message) == ["sent", "delivered"]
    assert post(url, [{"ref": "nobody's", "status": "delivered"}]) == 200
    assert reported(dispatcher, name) == {"sent": 1, "delivered": 1, "unmatched": 1}
    stranger = url[:-1] + ("0" if url[-1] != "0" else "1")
    for wrong in (stranger, url.replace(name, "sms-a")):
        assert post(wrong, [{"id": other, "status": "delivered"}]) == 404
    assert post(url, {"id": other}) == 400
    assert told(other) == []

    put(dispatcher, f"/v1/providers/{name}", provider_of(shown, callback_allow=["192.0.2.0/24"]))
    assert post(url, [{"id": other, "status": "delivered"}]) == 404
    put(dispatcher, f"/v1/providers/{name}", provider_of(shown))
    assert post(url, [{"id": other, "status": "undelivered"}]) == 200
    assert told(other) == ["undelivered"]

    assert post(shown["uplinks_url"], [{"from": phone(area, 1), "text": f"TD {mark}"}]) == 200
    assert last_uplink(dispatcher) == (name, "sms", phone(area, 1), f"TD {mark}")


def test_routers_agree_on_how_many_arrive(
    pair: Pair, reporting: tuple[str, dict[str, Any]], mark: str, area: int
) -> None:
    dispatcher, simulated = pair
    name, shown = reporting
    ids = send(dispatcher, name, mark, area, 200)
    arrived(lambda: len(simulated.journal(name, accepted=True)) == 200)
    body = [{"id": id_, "status": "delivered" if n % 4 else "undelivered"} for n, id_ in enumerate(ids)]
    assert post(shown["reports_url"], body) == 200

    def rate() -> Any:
        return dispatcher.call("GET", f"/v1/providers/{name}")[1]["health"]["delivery_rate"]

    until(lambda: rate() is not None, "a delivery rate")
    assert rate() == pytest.approx(0.75)


def arrived(condition: Callable[[], bool]) -> None:
    until(condition, "the messages at their provider")


def provider_of(shown: dict[str, Any], **options: Any) -> dict[str, Any]:
    """The provider's document again, with other options."""
    document = {key: shown[key] for key in ("kind", "channel", "max_batch")}
    return {**document, "options": {**shown["options"], **options}}


def last_uplink(dispatcher: Live) -> tuple[str, str, str, str]:
    async def read() -> tuple[str, str, str, str]:
        redis = connect(dispatcher.store_url)
        [uplink] = await Uplinks(redis).last(1)
        await redis.aclose()
        return uplink.provider, uplink.channel, uplink.sender, uplink.text

    return run(read())
