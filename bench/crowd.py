"""A shard's users with sends behind them, and messages for them, drafted and decided as admission does it."""

from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, Final, NamedTuple

import msgspec

from config.load import load
from dispatcher.admission import Admission, Moment
from dispatcher.calendar import calendar_of
from dispatcher.catalog import LIST_ID, Catalog
from dispatcher.documents import BlacklistEntry
from dispatcher.ident import message_id, partition_of, trigger_key
from dispatcher.message import Message
from dispatcher.partition import Partition
from dispatcher.profile import Profile, Reach
from dispatcher.recipe import Dish, Recipe, recipe_of
from dispatcher.rulebook import Rulebook
from dispatcher.rules import Objection

PARTITIONS: Final = 64
ZONE: Final = "Asia/Shanghai"
NOW_MS: Final = 1_795_500_000_000  # Tuesday, 2026-11-24, 14:00 in Shanghai
DAY_MS: Final = 86_400_000
LINES: Final = tuple(f"line{n}" for n in range(8))
ADDRESSES: Final = {"sms": "+8613812345678", "push": "token", "wechat": "openid", "email": "a@example.com"}
#: Name -> type, level, channel. What is said is one sentence, 50 to 70 characters in an SMS.
KINDS: Final[dict[str, tuple[str, int, str]]] = {
    "code": ("verification", 1, "sms"),
    "paid": ("notice", 3, "sms"),
    "tip": ("notice", 4, "sms"),
    "due": ("repayment", 2, "sms"),
    "news": ("notice_marketing", 4, "sms"),
    "sale": ("marketing", 5, "sms"),
    "push_paid": ("notice", 3, "push"),
    "push_tip": ("notice", 5, "push"),
    "push_sale": ("marketing", 5, "push"),
    "wechat_sale": ("marketing", 5, "wechat"),
    "mail_sale": ("notice_marketing", 4, "email"),
}
_SAID: Final = "尊敬的客户,您尾号{tail}的账户于11月24日发生一笔交易,金额{amount}元,如非本人操作请致电客服,单号{order}。"
_CONTENTS: Final[dict[str, dict[str, Any]]] = {
    "sms": {"text": _SAID, "signature": "示例银行"},
    "push": {"title": "账户变动", "body": _SAID},
    "wechat": {"template_id": "t1", "data": {"thing1": {"value": _SAID}}},
    "email": {"subject": "账户变动", "text": _SAID},
}
#: What a user has received: mostly SMS, nothing that a rule holds against the measured messages. Weights.
_PAST: Final = {"code": 30, "paid": 30, "due": 10, "push_paid": 15, "push_sale": 10, "mail_sale": 5}
_TASKS: Final = {"due": "due-2026-11", "push_sale": "autumn", "mail_sale": "magazine"}


class Draft(NamedTuple):
    """A message that is to be decided, and its channel in the recipe that made it."""

    message: Message
    dish: Dish


class Wanted(NamedTuple):
    """What somebody wants to send to a user."""

    user: str
    template: str
    line: str
    task: str | None = None
    params: dict[str, str] = {}


def params_of(rng: Random) -> dict[str, str]:
    """Parameters nobody else has."""
    return {
        "tail": f"{rng.randrange(10_000):04d}",
        "amount": f"{rng.randrange(1, 9_999_999) / 100:.2f}",
        "order": f"{rng.randrange(10**12):012d}",
    }


class Crowd:
    """The partitions of one shard under the shipped rules, without log or network."""

    def __init__(self) -> None:
        rules = load(None, {}).rules
        contents = {name: [{"channel": k[2], **_CONTENTS[k[2]]}] for name, k in KINDS.items()}
        templates = {
            name: {"type": type_, "level": level, "channels": contents[name]}
            for name, (type_, level, _) in KINDS.items()
        }
        documents: dict[str, dict[str, Any]] = {
            "templates": templates, "lines": {line: {} for line in LINES}, "rules": {LIST_ID: rules},
            "keywords": {"default": {"words": []}},
        }  # fmt: skip
        encode = msgspec.json.encode
        self.catalog = Catalog()
        self.catalog.load(1, {kind: {i: encode(d) for i, d in by_id.items()} for kind, by_id in documents.items()})
        self.book = Rulebook(self.catalog.rules)
        self.calendar = calendar_of(ZONE)
        self.admission = Admission(self.catalog, self.calendar, "CN")
        self.partitions = [Partition(number, self.book) for number in range(PARTITIONS)]
        self.profile = Profile({channel: Reach(to, "CN") for channel, to in ADDRESSES.items()}, frozenset())
        self._drafted = 0
        self._recipes: dict[tuple[str, str], Recipe] = {}

    def list_strangers(self, count: int) -> None:
        """So many blacklist entries, of nobody in the crowd."""
        for n in range(count):
            self.catalog.blacklist.put(BlacklistEntry(user=f"stranger-{n}"))

    def moment(self, user: str, now_ms: int) -> Moment:
        """Where this user's decisions happen."""
        return Moment(self.partitions[partition_of(user, PARTITIONS)], now_ms)

    def draft(self, at: Moment, wanted: Wanted) -> Draft:
        """The message as it is drafted for admission at this moment; every trigger is a new one."""
        self._drafted += 1
        user, template, line, task, params = wanted
        trigger, channel = f"t{self._drafted}", KINDS[template][2]
        key, salt = trigger_key(line, trigger, user)
        recipe = self._recipe(template, line)
        dish, reach = recipe.dishes[channel], self.profile.reach[channel]
        fields = dish.content.render(params)
        message = Message(
            message_id(at.prefix, salt, at.partition.id, channel), trigger, user, channel, reach.to,
            recipe.template.type, recipe.template.level, recipe.lane, line, template, fields, params, at.now_ms,
            at.now_ms, at.now_ms + round(recipe.ttl_s * 1000), reach.region, user, task,
            content=dish.content.hash(fields), key=key,
        )  # fmt: skip
        return Draft(message, dish)

    def _recipe(self, template: str, line: str) -> Recipe:
        recipe = self._recipes.get((template, line))
        if recipe is None:
            made = recipe_of(self.catalog, template, line, None)
            if isinstance(made, str):
                raise ValueError(made)
            recipe = self._recipes[template, line] = made
        return recipe

    def decide(self, at: Moment, draft: Draft) -> Objection | None:
        """Decide it and reserve its slot, or say what blocks it: what an admission does with a drafted message."""
        message = draft.message
        shape = draft.dish.shape(at.partition)
        objection = self.admission._objection(at, message, self.profile, shape)
        if objection is None:
            at.reserve(message, shape)
        return objection

    def past(self, user: str, sends: int, rng: Random) -> list[tuple[int, Message]]:
        """Give a user so many earlier sends, and return them, oldest first: four in ten of today, the rest of the six
        days before. Before that up to seven, long over: users differ in when they are next freed of what has expired.
        """
        midnight = self.calendar.day(NOW_MS)[0]
        old = [rng.randrange(NOW_MS - 50 * DAY_MS, NOW_MS - 40 * DAY_MS) for _ in range(rng.randrange(8))]
        today = round(sends * 0.4)
        times = [rng.randrange(midnight, NOW_MS - 1_000) for _ in range(today)]
        times += [rng.randrange(NOW_MS - 7 * DAY_MS + 60_000, midnight) for _ in range(sends - today)]
        names = rng.choices(list(_PAST), list(_PAST.values()), k=sends - 1)
        names.insert(rng.randrange(sends), "tip")  # one of level 4, somewhere in the week
        for at_ms in sorted(old):
            self._send(user, at_ms, "paid", rng)
        return [(at_ms, self._send(user, at_ms, name, rng)) for at_ms, name in zip(sorted(times), names, strict=True)]

    def _send(self, user: str, at_ms: int, template: str, rng: Random) -> Message:
        at = self.moment(user, at_ms)
        wanted = Wanted(user, template, rng.choice(LINES), _TASKS.get(template), params_of(rng))
        message = self.draft(at, wanted).message
        at.partition.admit(message, at_ms)
        del at.partition.in_flight[message.id]
        return message

    def users(self) -> list[dict[str, bytes]]:
        """What the partitions know now, to go back to."""
        return [dict(partition.users) for partition in self.partitions]

    def forget(self, users: Sequence[dict[str, bytes]]) -> None:
        """Go back to what was known then, with nothing in flight."""
        for partition, known in zip(self.partitions, users, strict=True):
            partition.users = dict(known)
            partition.in_flight.clear()


def batches(wanted: Sequence[Wanted], size: int) -> Iterator[Sequence[Wanted]]:
    """As a shard gets them."""
    for at in range(0, len(wanted), size):
        yield wanted[at : at + size]
