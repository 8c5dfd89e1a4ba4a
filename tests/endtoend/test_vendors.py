"""Every vendor family over real sockets: from a trigger through the vendor's own protocol to its report in the user's
log and the metrics; and from a user's text to the next marketing message, which is filtered.

One dispatcher has all of them at once; the vendors are stubs, which check signatures with the vendors' own libraries
where there are any. WeChat's path is in `test_wechat.py`, the webhook's in `test_reports.py` and `test_uplinks.py`.
"""

import random
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.endtoend.conftest import Keeper
from tests.endtoend.families_push import OTHERS, Jpush
from tests.endtoend.families_sms import SMS, UPLINKS
from tests.endtoend.family import Family, Loop, Tail
from tests.endtoend.talk import PARTITIONS, phone, samples
from tests.endtoend.test_reports import put
from tests.live import Live, until
from tests.peer import Simulator

FAMILIES = [*SMS, *OTHERS]


class World:
    """The dispatcher with a provider, a template and a route for each family, all named `<kind>-<mark>`."""

    def __init__(self, dispatcher: Live, simulated: Simulator, families: list[Family], mark: str, area: int) -> None:
        self.dispatcher = dispatcher
        self.simulated = simulated
        self.families = {type(family): family for family in families}
        self.mark = mark
        self.area = area
        self.tail = Tail(dispatcher.store_url, PARTITIONS)
        self._sent: dict[str, str] = {}

    def name(self, family: Family) -> str:
        return f"{family.kind}-{self.mark}"

    def n(self, family: Family) -> str:
        """What the message says, with letters that forms, queries and JSON write in ways of their own."""
        return f"{family.kind.replace('_', '.')} 12+3 & 4%=/?"

    def number(self, place: int) -> str:
        return phone(self.area, place)

    def to(self, family: Family) -> str:
        return family.to or self.number(list(self.families).index(type(family)))

    def begin(self, options: dict[type[Family], dict[str, Any]]) -> None:
        fallback = [{"match": {"channels": ["sms"]}, "providers": [{"id": "sms-a"}]}]
        for family in self.families.values():
            name, template = self.name(family), family.template
            content: dict[str, Any] = {"type": "notice", "channels": [family.content()]}
            if template is not None:
                content["vendor"] = {family.kind: template}
            provider = {"kind": family.kind, "channel": family.channel, "options": options[type(family)]}
            put(self.dispatcher, f"/v1/templates/{name}", content)
            put(self.dispatcher, f"/v1/providers/{name}", provider)
            shown = self.dispatcher.call("GET", f"/v1/providers/{name}")[1]
            family.reports_url, family.uplinks_url = shown["reports_url"], shown["uplinks_url"]
        names = [self.name(family) for family in self.families.values()]
        routes = [{"match": {"templates": [name]}, "providers": [{"id": name}]} for name in names]
        put(self.dispatcher, "/v1/routes", [*routes, *fallback])
        put(self.dispatcher, "/v1/rules", [{"kind": "blacklist", "name": "blacklist"}])

    def end(self) -> None:
        for family in self.families.values():
            assert self.dispatcher.call("DELETE", f"/v1/providers/{self.name(family)}")[0] == 204

    def send(self, family: Family) -> str:
        """The message of the family's only trigger."""
        if family.kind not in self._sent:
            trigger = {
                "id": self.name(family), "to": {family.channel: self.to(family)}, "template": self.name(family),
                "line": "wallet", "params": {"n": self.n(family)},
            }  # fmt: skip
            status, result = self.dispatcher.call("POST", "/v1/triggers", trigger)
            assert (status, result["status"]) == (200, "accepted"), result
            self._sent[family.kind] = result["messages"][0]["message"]
        return self._sent[family.kind]

    def ask(self, template: str, to: str, id_: str) -> dict[str, Any]:
        """The answer to a trigger of one of the usual templates."""
        params = {"code": "123456"} if template == "code" else {"n": id_}
        trigger = {"id": id_, "to": {"sms": to}, "template": template, "line": "wallet", "params": params}
        status, result = self.dispatcher.call("POST", "/v1/triggers", trigger)
        assert status == 200, result
        found: dict[str, Any] = result
        return found

    def counts(self, family: Family) -> dict[tuple[str, str], float]:
        """What the metrics count of the family's provider: (name, status) -> how often."""
        counted = ("dispatcher_answers_total", "dispatcher_reports_total", "dispatcher_uplinks_total")
        label = ("provider", self.name(family))
        return {
            (name, next(value for _, value in labels if value != label[1])): value
            for (name, labels), value in samples(self.dispatcher).items()
            if name in counted and label in labels
        }


@pytest.fixture(scope="module")
def world(keeper: Keeper, seed: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    rng = random.Random(f"{seed}:vendors")
    mark, area = f"{rng.getrandbits(40):010x}", rng.randrange(10_000)
    dispatcher, simulated = keeper.pair()
    before = {path: dispatcher.call("GET", path)[1] for path in ("/v1/rules", "/v1/routes")}
    place: Path = tmp_path_factory.mktemp("vendors")
    loop, stack = Loop(), AsyncExitStack()
    try:
        families = [family(loop, place, dispatcher.url) for family in FAMILIES]
        options = {type(family): loop.run(family.start(stack)) for family in families}
        made = World(dispatcher, simulated, families, mark, area)
        made.begin(options)
        made.send(made.families[Jpush])  # it is asked 15 s later
        yield made
        for path, document in before.items():
            put(dispatcher, path, document)
        made.end()
    finally:
        loop.run(stack.aclose())
        loop.close()


@pytest.mark.parametrize("kind", UPLINKS, ids=lambda family: family.kind)
def test_who_unsubscribes_gets_no_marketing_and_still_gets_codes(world: World, kind: type[Family]) -> None:
    family = world.families[kind]
    leaves, name = world.number(100 + FAMILIES.index(kind)), world.name(family)
    assert world.ask("sale", leaves, f"{name}-0")["status"] == "accepted"
    word = family.unsubscribe(leaves)
    filtered = world.ask("sale", leaves, f"{name}-1")
    assert (filtered["status"], filtered.get("reason")) == ("filtered", "blacklist")
    code = world.ask("code", leaves, f"{name}-2")
    assert code["status"] == "accepted"
    entries = world.dispatcher.call("GET", f"/v1/blacklist?address={leaves.replace('+', '%2B')}")[1]
    assert {(e["type"], e["channel"], e["why"]) for e in entries} == {
        (type_, "sms", f"unsubscribed at {name}: {word}") for type_ in ("marketing", "notice_marketing")
    }
    until(lambda: world.counts(family).get(("dispatcher_uplinks_total", "unsubscribed")) == 1, "the text is counted")
    message = code["messages"][0]["message"]
    until(lambda: [end.outcome for end in world.tail.read().ends.get(message, [])] == ["sent"], "the code is sent")


@pytest.mark.parametrize("kind", FAMILIES, ids=lambda family: family.kind)
def test_a_message_goes_the_whole_way(world: World, kind: type[Family]) -> None:
    family = world.families[kind]
    name, to = world.name(family), world.to(family)
    message = world.send(family)
    until(lambda: family.taken > 0, "a request at the vendor")
    family.check(message, to, world.n(family))
    until(lambda: message in world.tail.read().ends, "its end in the log")
    [end] = world.tail.ends[message]
    assert (end.outcome, end.provider, end.attempts) == ("sent", name, 1)
    if family.forge(message, to) is not None:
        assert family.forge(message, to) == 403
    wanted = {("dispatcher_answers_total", "accepted"): 1.0}
    if family.reports:
        family.report(message, to)
        until(lambda: message in world.tail.read().told, "its report in the log", 40.0)
        wanted["dispatcher_reports_total", "delivered"] = 1.0
    told = world.tail.read().told.get(message, [])
    assert [(one.status, one.provider) for one in told] == [("delivered", name)] * family.reports
    if isinstance(family, Jpush):
        family.check_question(to)

    def counts() -> dict[tuple[str, str], float]:
        found = world.counts(family)
        return {key: value for key, value in found.items() if key[0] != "dispatcher_uplinks_total"}

    until(lambda: counts() == wanted, f"{wanted}, found {counts()}")
    assert family.taken == 1
