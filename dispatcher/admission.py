"""Admission: what becomes of a trigger. Decides on the partition's state and writes its effects at once.

Nothing here awaits, so no other decision can come between a count and its reservation. The caller logs `Effects`
and answers only when they are durable.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from dispatcher.answers import First, Result, ResultMessage
from dispatcher.blacklist import Listed
from dispatcher.calendar import Calendar
from dispatcher.catalog import Catalog
from dispatcher.entries import Admit, Block, Blocked, End, Entry, Park, Settle
from dispatcher.explanation import Rehearsed
from dispatcher.ident import device_id, message_id, time_prefix, trigger_key
from dispatcher.kinds import LANES
from dispatcher.message import Message
from dispatcher.partition import Partition, Shape, kind_of
from dispatcher.profile import Profile, Reach, profile_of_addresses
from dispatcher.recipe import Recipe, recipe_of
from dispatcher.rules import STATUS_OF, Objection, Rule, decide, explain
from dispatcher.shed import Entrance
from dispatcher.template import MissingParam
from dispatcher.trigger import Order
from dispatcher.user import COUNTED, INTERCEPTED, PARKED, REFUNDED, Event, UserView, events_of

MOST_AHEAD_MS: Final = 366 * 86_400_000
MOST_RECIPES: Final = 4096
_ACCEPTED_STATES: Final = (COUNTED, REFUNDED, PARKED)


class Effects:
    """What one moment's decisions did to one partition, in the making."""

    __slots__ = ("admitted", "blocks", "ends", "parked")

    def __init__(self) -> None:
        self.admitted: list[Message] = []
        self.parked: list[Message] = []
        self.blocks: list[Blocked] = []
        self.ends: list[End] = []

    @property
    def empty(self) -> bool:
        """Nothing was done."""
        return not (self.admitted or self.parked or self.blocks or self.ends)

    def entries(self, at_ms: int) -> list[Entry]:
        """The log's entries for these effects."""
        admitted: list[Entry] = [Admit(at_ms, self.admitted)] if self.admitted else []
        return admitted + self.other_entries(at_ms)

    def other_entries(self, at_ms: int) -> list[Entry]:
        """The log's entries that follow the `Admit`."""
        entries: list[Entry] = []
        if self.parked:
            entries.append(Park(at_ms, self.parked))
        if self.blocks:
            entries.append(Block(at_ms, self.blocks))
        if self.ends:
            entries.append(Settle(at_ms, self.ends))
        return entries


class Plan(msgspec.Struct, gc=False):
    """A trigger with everything its messages share."""

    trigger: str
    identity: str
    user: str | None
    line: str
    params: dict[str, str]
    task: str | None
    meta: dict[str, Any] | None
    recipe: Recipe
    key: int
    salt: str
    answered_ms: int
    due_ms: int
    expires_ms: int


class Moment:
    """One partition at one instant: where decisions read and write."""

    __slots__ = ("effects", "now_ms", "partition", "prefix")

    def __init__(self, partition: Partition, now_ms: int, prefix: str | None = None) -> None:
        self.partition = partition
        self.now_ms = now_ms
        self.prefix = prefix or time_prefix(now_ms)
        self.effects = Effects()

    def reserve(self, message: Message, shape: Shape) -> None:
        """The message is accepted, and holds its slot from now on."""
        self.partition.reserve(message, self.now_ms, shape)
        self.effects.admitted.append(message)

    def park(self, message: Message) -> None:
        """The message is accepted, to be decided when it is due."""
        self.partition.park(message, self.now_ms)
        self.effects.parked.append(message)

    def block(self, blocked: Blocked) -> None:
        """The message is blocked."""
        self.partition.block(blocked, self.now_ms)
        self.effects.blocks.append(blocked)

    def decide(self, rules: Sequence[Rule], message: Message, view: UserView) -> Objection | None:
        """What the rules that see the message say of it."""
        now_ms = self.now_ms
        for rule in rules:  # `rules.decide` without its call
            objection = rule.decide(message, view, now_ms)
            if objection is not None:
                return objection
        return None


class Rehearsal(Moment):
    """A moment at which everything is decided and nothing is done. `rehearsed`: what the rules found for each draft."""

    __slots__ = ("rehearsed",)

    def __init__(self, partition: Partition, now_ms: int) -> None:
        super().__init__(partition, now_ms)
        self.rehearsed: list[Rehearsed] = []

    def reserve(self, message: Message, shape: Shape) -> None:
        """Nothing is reserved."""

    def park(self, message: Message) -> None:
        """Nothing is parked."""

    def block(self, blocked: Blocked) -> None:
        """Nothing is remembered."""

    def decide(self, rules: Sequence[Rule], message: Message, view: UserView) -> Objection | None:
        """As it would be decided, with all findings noted."""
        self.rehearsed.append(Rehearsed(message, explain(rules, message, view, self.now_ms)))
        return super().decide(rules, message, view)


class Admission:
    """Decides triggers by the catalog as it stands."""

    def __init__(self, catalog: Catalog, calendar: Calendar, region: str) -> None:
        self.catalog = catalog
        self.calendar = calendar
        self.region = region
        self._recipes: dict[tuple[str, str, str | None], Recipe | str] = {}
        catalog.on_change.append(self._on_catalog)

    # -- a trigger arrives

    def admit(
        self, at: Moment, order: Order, profile: Profile, entrance: Entrance | None, resend: bool = False
    ) -> Result:
        """The answer to one order. `entrance`: who is turned away for want of room; None: nobody. `resend`: the system
        itself repeats a call whose answer it lost, so what is known already is answered as the first time."""
        key, salt = trigger_key(order.line, order.id, order.identity)
        if at.partition.knows(order.identity, key, at.now_ms):
            return self._known(at, order, key, salt, resend)
        return self._admit_new(at, order, profile, entrance, key, salt)

    def rehearse(self, at: Rehearsal, order: Order, profile: Profile) -> Result:
        """What `admit` would answer now if there were room, with nothing done. A trigger that is known already is
        explained as if it were new. There are no message ids but those of a known one."""
        key, salt = trigger_key(order.line, order.id, order.identity)
        result = self._admit_new(at, order, profile, None, key, salt)
        if at.partition.knows(order.identity, key, at.now_ms):
            return self._known(at, order, key, salt, resend=False)
        for message in result.messages:
            message.message = None
        return result

    def _admit_new(
        self, at: Moment, order: Order, profile: Profile, entrance: Entrance | None, key: int, salt: str
    ) -> Result:
        recipe = self._recipe(order.template, order.line, order.lane)
        if isinstance(recipe, str):
            return Result(order.id, "rejected", recipe)
        now_ms = at.now_ms
        base_ms = now_ms if order.send_at is None else round(order.send_at * 1000)
        if base_ms > now_ms + MOST_AHEAD_MS:
            return Result(order.id, "rejected", "invalid: send_at: more than 366 days ahead")
        expires_ms = base_ms + round((order.ttl_s or recipe.ttl_s) * 1000)
        if expires_ms <= now_ms:
            return Result(order.id, "rejected", "expired")
        why = None if entrance is None else _turned_away(at, recipe, order.line, base_ms > now_ms, entrance)
        if why is not None:
            return Result(order.id, "overloaded", why)
        plan = Plan(
            order.id, order.identity, order.user, order.line, order.params, order.task, order.meta,
            recipe, key, salt, now_ms, base_ms if base_ms > now_ms else now_ms, expires_ms,
        )  # fmt: skip
        if entrance is None:
            return self._admit_plan(at, plan, order, profile)
        admitted, parked = at.effects.admitted, at.effects.parked
        before, parked_before = len(admitted), len(parked)
        result = self._admit_plan(at, plan, order, profile)
        entrance.let_in(recipe.lane, order.line, len(admitted) - before, len(parked) - parked_before)
        return result

    def _admit_plan(self, at: Moment, plan: Plan, order: Order, profile: Profile) -> Result:
        if order.to is not None:
            profile = profile_of_addresses(order.to, self.region, profile)
        channels = list(plan.recipe.dishes)
        if order.channels is not None:
            strange = next((c for c in order.channels if c not in channels), None)
            if strange is not None:
                return Result(order.id, "rejected", f"unsupported_channel:{strange}")
            channels = [channel for channel in channels if channel in order.channels]
        decide_all = self._all if plan.recipe.template.mode == "all" else self._first
        return decide_all(at, plan, channels, profile)

    def _recipe(self, template: str, line: str, lane: str | None) -> Recipe | str:
        key = (template, line, lane)
        recipe = self._recipes.get(key)
        if recipe is None:
            if len(self._recipes) >= MOST_RECIPES:  # callers may make up names
                self._recipes.clear()
            recipe = self._recipes[key] = recipe_of(self.catalog, template, line, lane)
        return recipe

    def _on_catalog(self, kind: str) -> None:
        if kind in ("templates", "lines", "*"):
            self._recipes.clear()

    def _first(self, at: Moment, plan: Plan, channels: Sequence[str], profile: Profile) -> Result:
        """The first channel that can, may. No address or a blacklist entry passes on to the next; all else ends it."""
        tried: list[ResultMessage] = []
        ended: tuple[Blocked, int] | None = None
        for i, channel in enumerate(channels):
            message = self._draft(at, plan, channel, profile, list(channels[i + 1 :]) or None)
            if isinstance(message, str):
                if not message.startswith(("no_address", "invalid_address")):
                    return Result(plan.trigger, "rejected", message)
                tried.append(ResultMessage(None, channel, "rejected", message))
                continue
            blocked = self._decide(at, plan, message, profile, tried)
            if blocked is None:
                self._block_all(at, [ended[0]] if ended else [])
                return Result(plan.trigger, "accepted", None, tried)
            if ended is not None:
                at.block(ended[0])
            ended = blocked, len(tried) - 1
            if blocked.objection.kind != "blacklist":
                break
        if ended is None:
            return Result(plan.trigger, "rejected", tried[0].reason, tried)
        self._end(at, ended[0])
        return Result(plan.trigger, ended[0].status, ended[0].objection.kind, tried)

    def _all(self, at: Moment, plan: Plan, channels: Sequence[str], profile: Profile) -> Result:
        """One message for each channel. The caller's mistakes are found before anything is decided."""
        drafts = [(channel, self._draft(at, plan, channel, profile, None)) for channel in channels]
        for _, draft in drafts:
            if isinstance(draft, str) and not draft.startswith(("no_address", "invalid_address")):
                return Result(plan.trigger, "rejected", draft)
        tried: list[ResultMessage] = []
        blocks: list[Blocked] = []
        accepted = False
        for channel, draft in drafts:
            if isinstance(draft, str):
                tried.append(ResultMessage(None, channel, "rejected", draft))
                continue
            blocked = self._decide(at, plan, draft, profile, tried)
            if blocked is None:
                accepted = True
            else:
                blocks.append(blocked)
        if accepted:
            self._block_all(at, blocks)
            return Result(plan.trigger, "accepted", None, tried)
        if not blocks:
            return Result(plan.trigger, "rejected", tried[0].reason, tried)
        self._end(at, blocks[0])
        self._block_all(at, blocks[1:])
        return Result(plan.trigger, blocks[0].status, blocks[0].objection.kind, tried)

    # -- one message

    def _draft(
        self, at: Moment, plan: Plan, channel: str, profile: Profile, later: list[str] | None
    ) -> Message | str:
        """The rendered message, or the reason why there cannot be one."""
        reach = profile.reach.get(channel)
        if reach is None:
            return f"invalid_address:{channel}" if channel in profile.invalid else f"no_address:{channel}"
        recipe = plan.recipe
        content = recipe.dishes[channel].content
        try:
            fields = content.render(plan.params)
        except MissingParam as missing:
            return f"missing_param:{missing.args[0]}"
        if content.too_long(fields, reach.region):
            return f"content_too_long:{channel}"
        template = recipe.template
        return Message(
            message_id(at.prefix, plan.salt, at.partition.id, channel),
            plan.trigger, plan.identity, channel, reach.to, template.type, template.level, recipe.lane, plan.line,
            template.id, fields, plan.params, plan.answered_ms, plan.due_ms, plan.expires_ms, reach.region, plan.user,
            plan.task, reach.extra, later, plan.meta, content.hash(fields), plan.key, template.vendor,
            [] if channel == "push" and profile.devices is None else None,
        )  # fmt: skip

    def _decide(
        self, at: Moment, plan: Plan, message: Message, profile: Profile, tried: list[ResultMessage]
    ) -> Blocked | None:
        """Admit or park the message, or say what blocks it; either way note it in `tried`."""
        later = message.due_ms > at.now_ms
        shape = plan.recipe.dishes[message.channel].shape(at.partition)
        objection = self._objection(at, message, profile, shape, admission_only=later)
        if objection is None and not later:
            _reserve(at, message, shape, profile)
            tried.append(ResultMessage(message.id, message.channel, "accepted"))
            return None
        if objection is None or objection.defer_until_ms is not None:
            if objection is not None:
                message = msgspec.structs.replace(message, due_ms=objection.defer_until_ms)
            at.park(message)
            tried.append(ResultMessage(message.id, message.channel, "accepted", None, message.due_ms))
            return None
        tried.append(ResultMessage(message.id, message.channel, STATUS_OF[objection.family], objection.kind))
        return _blocked(message, objection, final=False)

    def _objection(
        self, at: Moment, message: Message, profile: Profile, shape: Shape, admission_only: bool = False
    ) -> Objection | None:
        rules = shape.at_admission if admission_only else shape.rules
        listed = self.listed(message, at.now_ms) if self.catalog.blacklist else None
        words = self.catalog.keywords
        view = at.partition.view(message.identity, shape, listed, self.calendar, profile.calendar, words)
        return at.decide(rules, message, view)

    def unwanted(self, partition: Partition, message: Message, now_ms: int) -> Objection | None:
        """What the rules that are asked again before each attempt have against a message that was admitted before."""
        shape = partition.shape(kind_of(message))
        rules = shape.at_attempts
        if not rules:
            return None
        listed, words = self.listed(message, now_ms), self.catalog.keywords
        view = partition.view(message.identity, shape, listed, self.calendar, None, words)
        return decide(rules, message, view, now_ms)

    def listed(self, message: Message, now_ms: int) -> Listed | None:
        """The blacklist entry that matches the message now."""
        return self.catalog.blacklist.find(
            message.user, message.to, message.channel, message.type, message.line, now_ms
        )

    def _end(self, at: Moment, blocked: Blocked) -> None:
        """This block is the trigger's answer: remember it, so that a resend hears the same."""
        at.block(msgspec.structs.replace(blocked, final=True))

    def _block_all(self, at: Moment, blocks: Iterable[Blocked]) -> None:
        for blocked in blocks:
            at.block(blocked)

    # -- a trigger arrives again

    def _known(self, at: Moment, order: Order, key: int, salt: str, resend: bool) -> Result:
        after_ms = at.now_ms - at.partition.window_ms
        events = [e for e in events_of(at.partition.users[order.identity]) if e.key == key and e.at_ms > after_ms]
        first = self._first_answer(at.partition, order.id, events, salt)
        if resend:
            return first
        return Result(order.id, "duplicate", None, first.messages, First(first.status, first.reason))

    def _first_answer(self, partition: Partition, id_: str, events: list[Event], salt: str) -> Result:
        kinds = partition.kinds
        taken = [e for e in events if e.state in _ACCEPTED_STATES]
        if not taken:
            status = "intercepted" if events[0].state == INTERCEPTED else "filtered"
            return Result(id_, status, kinds[events[0].kind].reason)
        prefix = time_prefix(taken[0].at_ms)
        channels = dict.fromkeys(kinds[e.kind].channel for e in taken if e.at_ms == taken[0].at_ms)
        messages = [ResultMessage(message_id(prefix, salt, partition.id, c), c, "accepted") for c in channels]
        return Result(id_, "accepted", None, messages)

    # -- a message was decided before: it is due now, about to be sent, or failed on its channel

    def due(self, at: Moment, message: Message, profile: Profile) -> None:
        """Decide a parked message by the whole list. Where the blacklist blocks it, its plan tries the next channel."""
        if message.expires_ms <= at.now_ms:
            self._expire(at, message)
            return
        shape = at.partition.shape(kind_of(message))
        objection = self._objection(at, message, profile, shape)
        if objection is None:
            _reserve(at, message, shape, profile)
        elif objection.defer_until_ms is not None:
            at.park(msgspec.structs.replace(message, due_ms=objection.defer_until_ms))
        else:
            self._block_all(at, [_blocked(message, objection, final=False)])
            if objection.kind == "blacklist":
                self.fall(at, message, profile)

    def fall(self, at: Moment, message: Message, profile: Profile) -> None:
        """The message's channel could not: try the later channels of its `first` plan, as a new message decided now."""
        recipe = self._recipe(message.template, message.line, LANES[message.lane])
        if not message.later or isinstance(recipe, str) or message.expires_ms <= at.now_ms:
            return
        channels = [channel for channel in message.later if channel in recipe.dishes]
        _, salt = trigger_key(message.line, message.trigger, message.identity)
        plan = Plan(
            message.trigger, message.identity, message.user, message.line, message.params, message.task, message.meta,
            recipe, message.key, salt, message.admitted_ms, at.now_ms, message.expires_ms,
        )  # fmt: skip
        tried: list[ResultMessage] = []
        for i, channel in enumerate(channels):
            draft = self._draft(at, plan, channel, profile, channels[i + 1 :] or None)
            if isinstance(draft, str):
                continue
            blocked = self._decide(at, plan, draft, profile, tried)
            if blocked is None:
                return
            self._block_all(at, [blocked])
            if blocked.objection.kind != "blacklist":
                return

    def _expire(self, at: Moment, message: Message) -> None:
        """A parked message whose time ran out never held a slot: it is admitted and ended in one breath."""
        at.partition.admit(message, at.now_ms)
        at.effects.admitted.append(message)
        end = End(message.id, "expired", refund=True, attempts=0)
        at.partition.settle(end)
        at.effects.ends.append(end)


def _turned_away(at: Moment, recipe: Recipe, line: str, later: bool, entrance: Entrance) -> str | None:
    """Why there is no room for what an order would bring, if so."""
    lane, template = recipe.lane, recipe.template
    if not later:
        why = entrance.refuse(lane, template.type, template.level, line)
        if why is not None or not entrance.parking_full:
            return why
        if not any(dish.shape(at.partition).may_park for dish in recipe.dishes.values()):
            return None
    return entrance.refuse_parking(lane, template.level)


def _reserve(at: Moment, message: Message, shape: Shape, profile: Profile) -> None:
    """The message is accepted. A push goes to all devices of the user, in a message each, which share its slot."""
    others: list[Reach] = []
    if profile.devices and message.channel == "push" and message.fan is None:
        others = [device for device in profile.devices if device.to != message.to]
    if not others:
        at.reserve(message, shape)
        return
    fan = [message.id, *(device_id(message.id, device.to) for device in others)]
    at.reserve(msgspec.structs.replace(message, fan=fan), shape)
    for id_, (to, region, extra) in zip(fan[1:], others, strict=True):
        device = msgspec.structs.replace(message, id=id_, to=to, region=region, extra=extra, fan=fan, slot=False)
        at.reserve(device, shape)


def _blocked(message: Message, objection: Objection, final: bool) -> Blocked:
    return Blocked(
        message.identity, message.key, message.id, message.trigger, message.channel, message.line, message.template,
        STATUS_OF[objection.family], objection, final,
    )  # fmt: skip
