"""A small catalog and a place to decide in, for tests of the decision logic."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from dispatcher.admission import Admission, Moment
from dispatcher.answers import Result
from dispatcher.calendar import calendar_of
from dispatcher.catalog import Catalog
from dispatcher.entries import Entry
from dispatcher.partition import Partition
from dispatcher.profile import Profile, Reach
from dispatcher.rulebook import Rulebook
from dispatcher.shed import Entrance
from dispatcher.trigger import Order

ZONE = "Asia/Shanghai"

TEMPLATES: dict[str, Any] = {
    "code": {"type": "verification", "channels": [{"channel": "sms", "text": "code {code}", "signature": "Shop"}]},
    "notice": {"type": "notice", "channels": [{"channel": "sms", "text": "order {order} paid {amount}"}]},
    "sale": {"type": "marketing", "channels": [{"channel": "sms", "text": "sale {what}"}]},
    "both": {
        "type": "notice",
        "mode": "all",
        "channels": [{"channel": "sms", "text": "hi {n}"}, {"channel": "push", "title": "hi", "body": "{n}"}],
    },
    "either": {
        "type": "notice",
        "mode": "first",
        "channels": [{"channel": "push", "title": "hi", "body": "{n}"}, {"channel": "sms", "text": "hi {n}"}],
    },
    "draft": {"type": "notice", "status": "draft", "channels": [{"channel": "sms", "text": "x"}]},
}


def at(text: str) -> int:
    """Epoch milliseconds of an ISO time; without an offset it is Shanghai's."""
    moment = datetime.fromisoformat(text if "+" in text or text.endswith("Z") else f"{text}+08:00")
    return round(moment.astimezone(UTC).timestamp() * 1000)


def catalog_of(rules: list[Any], templates: dict[str, Any] = TEMPLATES, **kinds: dict[str, Any]) -> Catalog:
    """A catalog with these documents, given as plain values."""
    documents = {"templates": templates, "lines": {"wallet": {}, "loan": {}}, "rules": {"all": rules}, **kinds}
    catalog = Catalog()
    catalog.load(
        1, {kind: {i: msgspec.json.encode(doc) for i, doc in docs.items()} for kind, docs in documents.items()}
    )
    return catalog


def profile_of_phone(sms: str | None = "+8613800000000", push: str | None = "token", **more: Any) -> Profile:
    """A user with an SMS number and a push token, or without one."""
    reach = {}
    if sms is not None:
        reach["sms"] = Reach(sms, "CN")
    if push is not None:
        reach["push"] = Reach(push)
    return Profile(reach, frozenset(more.get("invalid", ())), more.get("calendar"))


class World:
    """One partition with a catalog, a clock moved by hand, and the log it would have written."""

    def __init__(self, rules: list[Any], templates: dict[str, Any] = TEMPLATES, **kinds: dict[str, Any]) -> None:
        self.catalog = catalog_of(rules, templates, **kinds)
        self.admission = Admission(self.catalog, calendar_of(ZONE), "CN")
        self.partition = Partition(3, Rulebook(self.catalog.rules))
        self.log: list[Entry] = []
        self.now_ms = at("2026-11-23T10:00:00")
        self._number = 0

    def order(self, template: str, user: str = "u1", line: str = "wallet", **more: Any) -> Order:
        """An order with an id of its own."""
        self._number += 1
        more.setdefault("id", f"t{self._number}")
        more.setdefault("params", {})
        return Order(identity=user, user=user, line=line, template=template, **more)

    def submit(
        self, order: Order, profile: Profile | None = None, entrance: Entrance | None = None, **how: Any
    ) -> Result:
        """Decide one order now."""
        moment = Moment(self.partition, self.now_ms)
        result = self.admission.admit(moment, order, profile or profile_of_phone(), entrance, **how)
        self.log += moment.effects.entries(self.now_ms)
        return result

    def decided(self, order: Order, profile: Profile | None = None) -> str:
        """`status` or `status reason` of one order."""
        result = self.submit(order, profile)
        return result.status if result.reason is None else f"{result.status} {result.reason}"

    def write(self, *entries: Entry) -> None:
        """Fold entries in, as the shard does when something ended."""
        for entry in entries:
            self.partition.apply(entry)
            self.log.append(entry)
