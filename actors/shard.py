"""The shard: sole owner of its partitions, from admission to settlement. Wiring; decisions are in `dispatcher`."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from actors.deliveries import Deliveries
from actors.follower import Follower
from actors.ports import PeerGone, RouterPeer
from actors.profiles import Profiles
from actors.pump import Pump
from actors.replay import Replay
from actors.tally import Tally
from actors.tenancy import Tenancy, encode_message
from dispatcher.admission import Admission, Effects, Moment, Rehearsal
from dispatcher.answers import STATUS_NUMBER, Answers, Result, SubmitCall, Want, body
from dispatcher.bill import bill
from dispatcher.calendar import calendar_of
from dispatcher.calls import CandidatesAnswer, CandidatesCall
from dispatcher.catalog import Catalog
from dispatcher.deadletter import LETTERED, ReplayCall, Replayed, letter_place, letters_of
from dispatcher.delivery import by_partition
from dispatcher.drain import Drains
from dispatcher.entries import End, Settle, encode_admit, encode_entry
from dispatcher.explanation import ChannelExplanation, ProviderChance, Rehearsed, RouteKey
from dispatcher.ident import partition_of, time_prefix
from dispatcher.kinds import CHANNELS, LANES
from dispatcher.message import Message
from dispatcher.outbox import Outbox, Ticket
from dispatcher.partition import Partition
from dispatcher.profile import Profile
from dispatcher.receipt import Receipt
from dispatcher.report import Report
from dispatcher.rulebook import Rulebook
from dispatcher.rules import STATUS_OF
from dispatcher.shed import Entrance
from dispatcher.store.deadletters import DeadLetters, Post
from dispatcher.store.errors import Away, Fenced
from dispatcher.store.finds import Finds
from dispatcher.store.log import Log
from dispatcher.store.profiles import ProfileStore
from dispatcher.store.snapshots import Snapshots
from dispatcher.trigger import Order

T = TypeVar("T")

_log = logging.getLogger(__name__)
_encoder: Final = msgspec.msgpack.Encoder()
_submit_decoder: Final = msgspec.msgpack.Decoder(SubmitCall)
_candidates_decoder: Final = msgspec.msgpack.Decoder(CandidatesAnswer)
#: Sub-millisecond answers cost nothing to wait for; a store that is away is answered at once.
STALLED_S: Final = 0.5
MOST_BROUGHT: Final = len(CHANNELS)  # messages of one order
MOST_MARKS: Final = 1_000  # dead addresses waiting to be written down


class ShardSettings(Struct, frozen=True):
    """What a shard needs to know of the configuration."""

    number: int
    shards: int
    partitions: int
    timezone: str
    region: str
    outbox_messages: int
    parked_messages: int
    windows: tuple[int, int, int]
    idempotency_s: float
    idempotency_triggers: int
    cache_users: int
    snapshot_entries: int
    snapshot_s: float
    slice_users: int


class UserCall(Struct, array_like=True):
    """One thing to do with profiles: `op` is put, get, patch or delete; `users` pairs ids with JSON."""

    op: str
    users: list[tuple[str, bytes | None]]


class UserAnswer(Struct, array_like=True):
    """JSON of each user asked for (None: there is none); `error` names what was wrong with a patch, `unavailable` why
    nothing can be done now."""

    users: list[bytes | None] = []
    error: str | None = None
    unavailable: str | None = None


class _Moments:
    """The moments of one call, one for each partition it touches."""

    __slots__ = ("_count", "_now_ms", "_partitions", "_prefix", "by_partition")

    def __init__(self, partitions: dict[int, Partition], count: int, now_ms: int) -> None:
        self._partitions = partitions
        self._count = count
        self._now_ms = now_ms
        self._prefix = time_prefix(now_ms)
        self.by_partition: dict[int, Moment] = {}

    def at(self, identity: str) -> Moment | None:
        """Where this user's decisions happen; None when the partition is not here."""
        number = partition_of(identity, self._count)
        moment = self.by_partition.get(number)
        if moment is None:
            partition = self._partitions.get(number)
            if partition is None:
                return None
            moment = self.by_partition[number] = Moment(partition, self._now_ms, self._prefix)
        return moment


def _repeated(order: Order, seen: set[tuple[str, str, str]]) -> bool:
    """Whether this trigger stood earlier in the same call."""
    key = (order.line, order.id, order.identity)
    if key in seen:
        return True
    seen.add(key)
    return False


def _answered(groups: list[list[Result]], want: int, waits_s: Sequence[float]) -> bytes:
    """Answers to groups of orders, as the gateway takes them; `waits_s`: for each, when to ask again."""
    answers = []
    for results, retry_after_s in zip(groups, waits_s, strict=True):
        statuses = bytes([STATUS_NUMBER[result.status] for result in results])
        reasons = Counter(result.reason for result in results if result.reason is not None)
        bodies = [body(result) if _wanted(result, want) else None for result in results]
        answers.append(Answers(statuses, bodies, dict(reasons), retry_after_s))
    return _encoder.encode(answers)


def _wanted(result: Result, want: int) -> bool:
    return want in (Want.ALL, Want.REHEARSED) or (want == Want.FAILED and result.status != "accepted")


_user_decoder: Final = msgspec.msgpack.Decoder(UserCall)
_reports_decoder: Final = msgspec.msgpack.Decoder(list[Report])
_replay_decoder: Final = msgspec.msgpack.Decoder(ReplayCall)
_version_decoder: Final = msgspec.msgpack.Decoder(int)
_whom_decoder: Final = msgspec.msgpack.Decoder(tuple[str | None, str | None])


class Shard:
    """Decides, remembers and sends for its share of the partitions."""

    def __init__(
        self,
        settings: ShardSettings,
        catalog: Catalog,
        follower: Follower,
        log: Log,
        snapshots: Snapshots,
        profile_store: ProfileStore,
        routers: Sequence[RouterPeer],
        clock_ms: Callable[[], int],
        rng: Random,
        tally: Tally,
        letters: DeadLetters,
        finds: Finds,
    ) -> None:
        self.settings = settings
        self.catalog = catalog
        self.tally = tally
        self._clock_ms = clock_ms
        self._routers = routers
        self._follower = follower
        self._log = log
        self.profiles = Profiles(profile_store, settings.partitions, settings.region, settings.cache_users)
        self.admission = Admission(catalog, calendar_of(settings.timezone), settings.region)
        self.outbox = Outbox(settings.outbox_messages)
        self.pump = Pump(
            self.outbox, routers, settings.windows, self._veto, self._settle, clock_ms, rng, tally, self._bill
        )
        self.tenancy = Tenancy(settings, log, snapshots, self.pump, self._due, clock_ms, tally)
        self._drains = Drains()
        self.replays = Replay(
            letters, self.profiles, self.admission, self.tenancy, log, self._has_room, self._keep_and_send, clock_ms
        )
        self.deliveries = Deliveries(finds, routers, self._put_report, self._mark_dead, clock_ms, tally)
        self.draining = False
        self._failed: set[asyncio.Task[None]] = set()
        catalog.on_change.append(self._on_catalog)

    async def start(self) -> None:
        """Follow the catalog, take the partitions over, send what is in flight."""
        await self._follower.start()
        await self.tenancy.open(Rulebook(self.catalog.rules))

    def _on_catalog(self, kind: str) -> None:
        self.tally.add("dispatcher_catalog_changes")
        if kind in ("rules", "*"):
            self.tenancy.use(Rulebook(self.catalog.rules))

    # -- triggers

    async def submit(self, batch: bytes) -> bytes:
        """A batch of orders in, their answers out, once everything they did is durable."""
        call = _submit_decoder.decode(batch)
        refusal = self._refusal()
        if refusal is not None:
            return self._refuse(call, refusal)
        users = {order.user for group in call.groups for order in group if order.user is not None}
        try:  # all of them: one that the cache has now may be gone from it when the others are there
            fetched = await self.profiles.load(users) if self.profiles.missing(users) else {}
        except Away:
            return self._refuse(call, "store_unavailable")
        if call.want == Want.REHEARSED:
            return _answered(await self._rehearse(call, fetched), call.want, [0.0] * len(call.groups))
        results, waits_s = self._decide(call, fetched)
        await self._log.durable()
        return self._answer(results, call.want, waits_s)

    def _refuse(self, call: SubmitCall, why: str) -> bytes:
        refused = [[Result(order.id, "overloaded", why) for order in group] for group in call.groups]
        answered = _answered if call.want == Want.REHEARSED else self._answer  # only the latter counts
        return answered(refused, call.want, [1.0] * len(refused))

    def _decide(self, call: SubmitCall, fetched: dict[str, Profile]) -> tuple[list[list[Result]], list[float]]:
        """Decide, reserve and queue; nothing awaits in here. Also says, for each group, when to ask again for what had
        no room."""
        now_ms = self._clock_ms()
        moments = _Moments(self.tenancy.partitions, self.settings.partitions, now_ms)
        entrance = self._entrance(MOST_BROUGHT * sum(map(len, call.groups)))
        admit, profile_of = self.admission.admit, self.profiles.get
        seen: set[tuple[str, str, str]] = set()
        results, waits_s = [], []
        for group in call.groups:
            answered = []
            for order in group:
                at = moments.at(order.identity)
                if at is None:
                    answered.append(Result(order.id, "overloaded", "moving"))
                    continue
                profile = fetched.get(order.user or "") or profile_of(order.user)
                resend = call.resend and not _repeated(order, seen)
                answered.append(admit(at, order, profile, entrance, resend))
            results.append(answered)
            waits_s.append(self._drains.wait_s(entrance.turn(), now_ms) if entrance is not None else 0.0)
        for (lane, level, why), n in entrance.refused.items() if entrance is not None else ():
            self.tally.add("dispatcher_shed", (LANES[lane], str(level), why), n)
        tickets: list[Ticket] = []
        for number, at in moments.by_partition.items():
            tickets += self._keep(number, at.effects, now_ms)
        self._send_when_durable(tickets)
        return results, waits_s

    def _entrance(self, n: int) -> Entrance | None:
        """Who decides which of so many messages find room; None when all do, as nearly always."""
        parking = self.settings.parked_messages - self.tenancy.parked
        return None if n <= parking and self.outbox.occupancy.roomy(n) else Entrance(self.outbox.occupancy, parking)

    def _keep(self, number: int, effects: Effects, now_ms: int, removed: Sequence[str] = ()) -> list[Ticket]:
        """Log what was decided, and that the dead letters at these places are gone with it; returns tickets for what is
        to be sent."""
        if effects.empty:
            return []
        entries: list[bytes] = []
        tickets: list[Ticket] = []
        if effects.admitted:
            raws = [encode_message(message) for message in effects.admitted]
            entries.append(encode_admit(now_ms, raws))
            ticket = self.tenancy.ticket
            tickets = [ticket(message, number, raw) for message, raw in zip(effects.admitted, raws, strict=True)]
        entries += [encode_entry(entry) for entry in effects.other_entries(now_ms)]
        self._put(number, entries, Post(now_ms, letters_of(effects.ends, tickets, now_ms), list(removed)))
        self.tenancy.changed(number)
        if effects.ends:
            ended = {end.message for end in effects.ends}
            tickets = [ticket for ticket in tickets if ticket.message.id not in ended]
        for message in effects.parked:
            self.tenancy.wait(message, number)
        for blocked in effects.blocks:
            o = blocked.objection
            self.tally.add("dispatcher_blocked", (o.rule, o.family, blocked.channel))
        return tickets

    def _put(self, number: int, entries: list[bytes], post: Post) -> None:
        """Entries of one moment. What they change among dead letters goes with the last one: a crash between two may
        leave a letter whose message went out, which is recognised by its key, but lose none."""
        *others, last = entries
        for entry in others:
            self._log.put(number, entry)
        self._log.put(number, last, post if post.added or post.removed else None)

    def _send_when_durable(self, tickets: list[Ticket]) -> None:
        """A message that left before its entry was durable could be forgotten by a crash, and its slot given twice."""
        if not tickets:
            return
        self.outbox.expect(tickets)

        def send(done: "asyncio.Future[None]") -> None:
            if done.exception() is None:
                self.pump.kick(self.outbox.queue(tickets))

        self._log.durable().add_done_callback(send)

    def _answer(self, groups: list[list[Result]], want: int, waits_s: Sequence[float]) -> bytes:
        """The answers, counted."""
        for results in groups:
            for status, n in Counter(result.status for result in results).items():
                self.tally.add("dispatcher_triggers", (status,), n)
        return _answered(groups, want, waits_s)

    # -- dry runs

    async def _rehearse(self, call: SubmitCall, fetched: dict[str, Profile]) -> list[list[Result]]:
        """What would be answered, explained; nothing is done and nothing is counted."""
        now_ms = self._clock_ms()
        groups = [[self._rehearsed(order, fetched, now_ms) for order in group] for group in call.groups]
        drafts = [draft for group in groups for _, drafts in group for draft in drafts]
        chances = await self._chances(list({draft.route_key for draft in drafts}))
        for group in groups:
            for result, rehearsed in group:
                by_channel = {draft.message.channel: draft for draft in rehearsed}
                result.explain = [
                    by_channel[tried.channel].explanation(chances.get(by_channel[tried.channel].route_key, []))
                    if tried.channel in by_channel
                    else ChannelExplanation(tried.channel)
                    for tried in result.messages
                ]
        return [[result for result, _ in group] for group in groups]

    def _rehearsed(self, order: Order, fetched: dict[str, Profile], now_ms: int) -> tuple[Result, list[Rehearsed]]:
        partition = self.tenancy.partitions.get(partition_of(order.identity, self.settings.partitions))
        if partition is None:
            return Result(order.id, "overloaded", "moving"), []
        at = Rehearsal(partition, now_ms)
        profile = fetched.get(order.user or "") or self.profiles.get(order.user)
        return self.admission.rehearse(at, order, profile), at.rehearsed

    async def _chances(self, keys: list[RouteKey]) -> dict[RouteKey, list[ProviderChance]]:
        """Who could carry such messages, as a router sees it; nobody when none can be asked."""
        for router in self._routers if keys else ():
            try:
                answer = await router.candidates(_encoder.encode(CandidatesCall(keys)))
            except PeerGone:
                continue
            return dict(zip(keys, _candidates_decoder.decode(answer).candidates, strict=True))
        return {}

    def _refusal(self) -> str | None:
        """Why nothing can be taken now, if so."""
        if self.draining:
            return "draining"
        if not self.tenancy.ready:
            return "starting"
        stalled = self._log.stalled_since
        if stalled is not None and asyncio.get_running_loop().time() - stalled > STALLED_S:
            return "store_unavailable"
        return None

    # -- messages on their way

    def _veto(self, ticket: Ticket, now_ms: int) -> tuple[str, str] | None:
        message = ticket.message
        if message.expires_ms <= now_ms:
            return "expired", "ttl"
        partition = self.tenancy.partitions.get(ticket.partition)
        if not self.catalog.blacklist or partition is None:
            return None
        objection = self.admission.unwanted(partition, message, now_ms)
        if objection is None:
            return None
        self.tally.add("dispatcher_blocked", (objection.rule, objection.family, message.channel))
        return STATUS_OF[objection.family], f"{objection.kind}:{objection.rule}"

    def _bill(self, message: Message, receipt: Receipt) -> tuple[int | None, float | None]:
        return bill(message, receipt, self.catalog.providers.get(receipt.provider))

    def _count_bills(self, ends: Sequence[End]) -> None:
        segments: Counter[str] = Counter()
        costs: dict[str, float] = {}
        for end in ends:
            if end.segments is not None:
                segments[end.provider] += end.segments
                costs[end.provider] = costs.get(end.provider, 0.0) + (end.price or 0.0)
        for provider, n in segments.items():
            self.tally.add("dispatcher_segments", (provider,), n)
            self.tally.add("dispatcher_cost", (provider,), costs[provider])

    def _settle(self, ended: Sequence[tuple[Ticket, End, Receipt | None]], now_ms: int) -> None:
        """Ends of one moment: state, log, counts, and what follows a failure."""
        by_partition: dict[int, list[End]] = {}
        tickets: dict[int, list[Ticket]] = {}  # of those that leave a letter
        outcomes: Counter[tuple[str, int, str]] = Counter()
        waits: dict[int, list[float]] = {}
        partitions = self.tenancy.partitions
        self.outbox.done([ticket for ticket, _, _ in ended])
        for ticket, end, receipt in ended:
            partition = partitions.get(ticket.partition)
            settled = partition.settle(end) if partition is not None else None
            if partition is None or settled is None:
                continue
            last = partition.is_last(settled)
            by_partition.setdefault(ticket.partition, []).append(end)
            if end.outcome in LETTERED and last:
                tickets.setdefault(ticket.partition, []).append(ticket)
            message = ticket.message
            self.deliveries.sent(message, end, receipt, now_ms)
            outcomes[message.channel, message.lane, end.outcome] += 1
            if end.outcome == "sent":
                waits.setdefault(message.lane, []).append((now_ms - message.due_ms) / 1000)
            elif end.outcome in ("failed", "filtered"):
                self._spawn(self._after_failure(ticket, receipt, now_ms, last))
        for (channel, lane, outcome), n in outcomes.items():
            self.tally.add("dispatcher_outcomes", (channel, LANES[lane], outcome), n)
            self._drains.ended(lane, n, now_ms)
        for lane, seconds in waits.items():
            self.tally.observe_all("dispatcher_end_to_end_seconds", LANES[lane], seconds)
        for number, ends in by_partition.items():
            self._count_bills(ends)
            letters = Post(now_ms, letters_of(ends, tickets.get(number, ()), now_ms), [])
            self._put(number, [encode_entry(Settle(now_ms, ends))], letters)
            self.tenancy.changed(number)

    async def _after_failure(self, ticket: Ticket, receipt: Receipt | None, now_ms: int, last: bool) -> None:
        """A dead address is remembered; a `first` plan goes on with its next channel, and then leaves no letter.
        `last`: none of the user's other devices got it or may get it."""
        message = ticket.message
        if message.later and last:
            self.replays.hold([message.id])
            try:
                place = letter_place(now_ms, message.id)
                await self._again(message, ticket.partition, self.admission.fall, place)
            finally:
                self.replays.release([message.id])
        if receipt is not None and receipt.answer == "invalid_recipient" and message.user is not None:
            self._mark_dead(message.user, message.to)

    def _mark_dead(self, user: str, to: str) -> None:
        """This address is not used again until the profile is written anew."""
        if len(self._failed) <= MOST_MARKS:  # beyond, a campaign to dead addresses: the next failure tells again
            self._spawn(self._when_store_is_there(lambda: self.profiles.mark_dead(user, to)))

    async def _due(self, message: Message, number: int) -> None:
        """A parked message's time has come."""
        await self._again(message, number, self.admission.due)

    async def _again(
        self,
        message: Message,
        number: int,
        decide: Callable[[Moment, Message, Profile], None],
        letter: str | None = None,
    ) -> None:
        """Decide a message anew. `letter`: where its dead letter is, which is gone when another message takes over."""
        missing = self.profiles.missing([message.user])
        fetched = await self._when_store_is_there(lambda: self.profiles.load(missing)) if missing else {}
        partition: Partition | None = self.tenancy.partitions.get(number)
        if partition is None:
            return
        at = Moment(partition, self._clock_ms())
        profile = fetched.get(message.user or "") or self.profiles.get(message.user)
        decide(at, message, profile)
        taken = at.effects.admitted or at.effects.parked
        self._keep_and_send(number, at, [letter] if taken and letter is not None else [])

    def _keep_and_send(self, number: int, at: Moment, removed: list[str]) -> None:
        self._send_when_durable(self._keep(number, at.effects, at.now_ms, removed))

    # -- delivery reports

    async def reported(self, batch: bytes) -> bytes:
        """Reports (msgpack array of `Report`, each with its message) in; nil out once they are durable, or why they
        cannot be taken now."""
        refusal = self._refusal()
        if refusal is not None:
            return _encoder.encode(refusal)
        reports, strange = by_partition(_reports_decoder.decode(batch), self.settings.partitions)
        if strange or reports.keys() - self.tenancy.partitions.keys():
            return _encoder.encode("moving")
        self.deliveries.take(reports)
        try:
            await self._log.durable()
        except Fenced:
            return _encoder.encode("moving")
        return _encoder.encode(None)

    def _put_report(self, number: int, entry: bytes) -> None:
        self._log.put(number, entry)
        self.tenancy.changed(number)

    # -- dead letters

    async def replay(self, batch: bytes) -> bytes:
        """Send dead letters again: a `ReplayCall` in, a `Replayed` out once that is durable."""
        refusal = self._refusal()
        if refusal is not None:
            return _encoder.encode(Replayed(skipped={refusal: len(_replay_decoder.decode(batch).ids)}))
        return await self.replays.replay(batch)

    def _has_room(self, message: Message) -> bool:
        """Half of each lane, and of what may be parked, is left to what comes by itself."""
        queued, parked = self.outbox.counts[message.lane], self.tenancy.parked
        return 2 * queued < self.settings.outbox_messages and 2 * parked < self.settings.parked_messages

    async def _when_store_is_there(self, ask: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await ask()
            except Away:
                await asyncio.sleep(STALLED_S)

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._failed.add(task)
        task.add_done_callback(self._failed.discard)

    # -- users, catalog, running

    async def users(self, batch: bytes) -> bytes:
        """Profile reads and writes of this shard's users."""
        call = _user_decoder.decode(batch)
        try:
            answer = await self._users_answer(call)
        except Away:
            answer = UserAnswer(unavailable="store_unavailable")
        return _encoder.encode(answer)

    async def _users_answer(self, call: UserCall) -> UserAnswer:
        if call.op == "put":
            await self.profiles.write(call.users)
            return UserAnswer()
        if call.op == "delete":
            found = [await self.profiles.read(user) for user, _ in call.users]
            await self.profiles.write([(user, None) for user, _ in call.users])
            return UserAnswer(found)
        if call.op == "patch":
            [(user, patch)] = call.users
            try:
                return UserAnswer([await self.profiles.merge(user, msgspec.json.decode(patch or b"{}"))])
            except msgspec.ValidationError as error:
                return UserAnswer([], str(error))
        return UserAnswer([await self.profiles.read(user) for user, _ in call.users])

    async def await_catalog(self, version: bytes) -> bytes:
        """Returns once every decision is made by this catalog version or a later one."""
        await self._follower.reached(_version_decoder.decode(version))
        return b""

    async def listed(self, whom: bytes) -> bytes:
        """The ids of the blacklist's entries for a user and for an address: msgpack [user, address], either nil."""
        return _encoder.encode(self.catalog.blacklist.ids(*_whom_decoder.decode(whom)))

    def topology(self) -> dict[str, Any]:
        """Partitions with their epochs, and what waits here, for `/v1/topology`."""
        return {
            "partitions": self.tenancy.epochs,
            "backlog": {LANES[i]: n for i, n in enumerate(self.outbox.counts)},
            "parked": self.tenancy.parked,
            "users": self.tenancy.users,
        }

    async def status(self, _: bytes) -> bytes:
        """Why this shard takes nothing now, for `/readyz`; nil when it does."""
        return _encoder.encode(self._refusal())

    async def drain(self, _: bytes) -> bytes:
        """Take nothing more, settle what is out, write everything down. What still waits is in the log."""
        self.draining = True
        await self.pump.stop()
        await self.deliveries.stop()
        while self._failed:
            await asyncio.wait(self._failed)
        await self.tenancy.close()
        await self._follower.stop()
        return b""
