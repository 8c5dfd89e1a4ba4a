"""A provider that takes messages and never answers: each type is sent as often as its policy says, and no more."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.auditor import settled
from tests.endtoend.conftest import Pair
from tests.endtoend.talk import PARTITIONS, phone
from tests.endtoend.test_catalog_live import message_of, put, send, webhook
from tests.live import Live
from tests.support import run

#: Architecture, section 6: a code goes elsewhere once, the others wait for a report.
SENDS = {"verification": 2, "notice": 1, "repayment": 1, "notice_marketing": 1, "marketing": 1}


@pytest.fixture
def silent(pair: Pair, mark: str) -> Iterator[tuple[str, str]]:
    """Two providers for messages of the line `mark` alone."""
    dispatcher, simulated = pair
    names = (f"{mark}-1", f"{mark}-2")
    put(dispatcher, f"/v1/lines/{mark}", {})
    for name in names:
        simulated.create(name)
        put(dispatcher, f"/v1/providers/{name}", webhook(simulated.at(name), timeout_s=0.5))
    providers = [{"id": name} for name in names]
    others = [{"id": name} for name in ("sms-a", "sms-b")]
    put(
        dispatcher,
        "/v1/routes",
        [{"match": {"lines": [mark]}, "providers": providers}, {"match": {"channels": ["sms"]}, "providers": others}],
    )
    yield names
    put(dispatcher, "/v1/routes", [])
    for name in names:
        dispatcher.call("DELETE", f"/v1/providers/{name}")


def ended(dispatcher: Live, messages: set[str]) -> dict[str, str]:
    """How each of them ended, once all have."""
    ledger = run(settled(dispatcher.store_url, PARTITIONS, messages))
    return {message: ledger.ends[message][0][1] for message in messages}


@pytest.mark.parametrize("fault", ["silent", "hang"], ids=["taken", "not taken"])
def test_a_timeout_after_the_request_was_written(
    pair: Pair, silent: tuple[str, str], fault: str, mark: str, area: int
) -> None:
    dispatcher, simulated = pair
    for name in silent:
        simulated.patch(name, **{fault: 1.0})
    sent = {}
    for n, type_ in enumerate(SENDS):
        content: dict[str, Any] = {"type": type_, "channels": [{"channel": "sms", "text": "{n}"}]}
        put(dispatcher, f"/v1/templates/{mark}-{type_}", content)
        trigger = {"template": f"{mark}-{type_}", "line": mark, "to": {"sms": phone(area, n)}, "params": {"n": fault}}
        sent[type_] = message_of(send(dispatcher, trigger))
    outcomes = ended(dispatcher, set(sent.values()))
    assert set(outcomes.values()) == {"unknown"}
    rows = [row for row in simulated.journal() if row["id"] in outcomes]
    times = {type_: sum(row["times"] for row in rows if row["id"] == id_) for type_, id_ in sent.items()}
    assert times == SENDS
    assert {row["provider"] for row in rows if row["id"] == sent["verification"]} == set(silent), "elsewhere"
