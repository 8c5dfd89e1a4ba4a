"""The pump: hands the outbox's messages to routers, queue by queue, and settles what comes back.

Each queue (lane x channel) has its own window of messages in routers' hands, so a slow one holds up nobody else.
Batches form by themselves: while a queue has calls out it waits for a full batch or its linger, whichever is first.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Final, NamedTuple

import msgspec

from actors.inquiry import BACK_S, EVERYBODY, Doubt, Inquiry, is_hurried
from actors.ports import Call, PeerGone, RouterPeer
from actors.tally import Tally
from dispatcher.budget import Retries
from dispatcher.calls import RouteAnswer, RouteCall, RouteGroup
from dispatcher.entries import End
from dispatcher.kinds import CHANNELS
from dispatcher.message import Message, vendor_of
from dispatcher.outbox import QUEUES, Outbox, Ticket
from dispatcher.receipt import Receipt
from dispatcher.retry import Done, next_step
from dispatcher.window import Window

BATCH: Final = 800  # messages, about 200 KiB: what a call costs whatever it carries is small against that
LINGER_S: Final = (0.001, 0.003, 0.010)  # by lane; only while calls of the same queue are out
REFUSED_PAUSE_S: Final = (0.002, 0.005, 0.010)

_log = logging.getLogger(__name__)
_encoder: Final = msgspec.msgpack.Encoder()
_answer_decoder: Final = msgspec.msgpack.Decoder(RouteAnswer)

#: What a ticket may not be sent for any more: its end's outcome and code.
Veto = Callable[[Ticket, int], tuple[str, str] | None]
#: What an accepted message is billed: segments and price, as far as known.
Bill = Callable[[Message, Receipt], tuple[int | None, float | None]]
#: Takes ends of one moment, with the tickets they end: settle state, log, count.
Settle = Callable[[Sequence[tuple[Ticket, End, Receipt | None]], int], None]


class _Late(NamedTuple):
    """Tickets of a call that a slow provider has still in hand, and what to ask the router for them with."""

    token: int = 0
    tickets: Sequence[Ticket] = ()


#: The tickets whose receipts are there, these receipts in the same order, and who is late.
_Told = tuple[list[Ticket], list[Receipt], _Late]


class Pump:
    """Keeps every queue of one outbox moving."""

    def __init__(
        self,
        outbox: Outbox,
        routers: Sequence[RouterPeer],
        windows: Sequence[int],
        veto: Veto,
        settle: Settle,
        clock_ms: Callable[[], int],
        rng: Random,
        tally: Tally,
        bill: Bill = lambda message, receipt: (None, None),
    ) -> None:
        self.outbox = outbox
        self._routers = routers
        self._windows = [Window(windows[queue // len(CHANNELS)]) for queue in range(QUEUES)]
        self._veto = veto
        self._settle = settle
        self._clock_ms = clock_ms
        self._rng = rng
        self._tally = tally
        self._bill = bill
        self._in_hand = [0] * QUEUES  # messages at routers
        self._calls = [0] * QUEUES
        self._timers: list[asyncio.TimerHandle | None] = [None] * QUEUES
        self._paused_until = [0.0] * QUEUES
        self._tasks: set[asyncio.Task[None]] = set()
        self._inquiry = Inquiry(self._next_router, self._hear, tally)
        self._retries = Retries()
        self._alarm: asyncio.TimerHandle | None = None
        self._turn = 0
        self.stopped = False

    def kick(self, queues: Sequence[int] | set[int]) -> None:
        """These queues have got messages."""
        for queue in queues:
            self._run(queue)

    async def stop(self) -> None:
        """Hand out nothing more; wait for the calls that are out, and for what is in doubt, to be settled."""
        self.stopped = True
        for timer in self._timers:
            if timer is not None:
                timer.cancel()
        if self._alarm is not None:
            self._alarm.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self._inquiry.finished()

    @property
    def idle(self) -> bool:
        """No call is out, and nothing is in doubt."""
        return not self._tasks and self._inquiry.idle

    # -- one queue

    def _run(self, queue: int, lingered: bool = False) -> None:
        loop = asyncio.get_running_loop()
        waiting = self.outbox.queues[queue]
        lane = queue // len(CHANNELS)
        while waiting and not self.stopped:
            room = self._windows[queue].room(self._in_hand[queue])
            wait_s = self._paused_until[queue] - loop.time()
            if wait_s <= 0 and self._calls[queue] and len(waiting) < BATCH and not lingered:
                wait_s = LINGER_S[lane]
            if room <= 0:
                return  # a call that returns runs the queue again
            if wait_s > 0:
                if self._timers[queue] is None:
                    self._timers[queue] = loop.call_later(wait_s, self._ring, queue)
                return
            tickets = self._allowed(self.outbox.take(queue, min(BATCH, room)))
            if tickets:
                self._in_hand[queue] += len(tickets)
                self._calls[queue] += 1
                task = loop.create_task(self._send(queue, lane, tickets))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            lingered = False

    def _ring(self, queue: int) -> None:
        self._timers[queue] = None
        self._run(queue, lingered=True)

    def _allowed(self, tickets: list[Ticket]) -> list[Ticket]:
        """The tickets that may still be sent; the others end here."""
        now_ms = self._clock_ms()
        allowed, ended = [], []
        for ticket in tickets:
            veto = self._veto(ticket, now_ms)
            if veto is None:
                allowed.append(ticket)
            else:
                outcome, code = ("unknown", veto[1]) if ticket.maybe_sent else veto
                end = End(ticket.message.id, outcome, not ticket.maybe_sent, code=code, attempts=ticket.tries)
                ended.append((ticket, end, None))
        if ended:
            self._settle(ended, now_ms)
        return allowed

    # -- one call

    async def _send(self, queue: int, lane: int, tickets: list[Ticket]) -> None:
        router = self._next_router()
        late = await self._answered(queue, lane, tickets, self._route(router, lane, tickets))
        self._calls[queue] -= 1
        self._run(queue)
        if late.tickets:
            await self._answered(queue, lane, late.tickets, self._rest(router, late))
            self._run(queue)

    async def _answered(self, queue: int, lane: int, tickets: Sequence[Ticket], work: Awaitable[_Told]) -> _Late:
        """Take in what a call tells of these tickets. What it tells later stays in hand."""
        late = _Late()
        try:
            sure, receipts, late = await work
            if sure:
                self._take_in(queue, lane, sure, receipts)
        except Exception:  # a bug must not lose messages: they stay in flight and go out again
            waiting = set(map(id, late.tickets))
            _log.exception("pump: a batch of %d went back to its queue", len(tickets) - len(waiting))
            self._pause(queue, 1.0)
            self.outbox.put_back([ticket for ticket in tickets if id(ticket) not in waiting])
        finally:
            self._in_hand[queue] -= len(tickets) - len(late.tickets)
        return late

    async def _route(self, router: RouterPeer, lane: int, tickets: list[Ticket]) -> _Told:
        """What became of a batch."""
        groups: dict[tuple[object, ...], list[Ticket]] = {}
        for ticket in tickets:
            m = ticket.message
            vendor = vendor_of(m) if m.extra is not None else None
            # Not the channel: a queue has one.
            key = (m.type, m.line, m.template, m.region, vendor, ticket.attempt, ticket.tried)
            group = groups.get(key)
            if group is None:
                groups[key] = [ticket]
            else:
                group.append(ticket)
        # The smallest first: senders that have no room for all take the first, and few wait less for it than many.
        lots = sorted(groups.values(), key=len) if len(groups) > 1 else [*groups.values()]
        ordered = [ticket for lot in lots for ticket in lot]
        call = RouteCall(lane, [_group(lot) for lot in lots])
        return await self._asked(router.route, _encoder.encode(call), ordered)

    async def _rest(self, router: RouterPeer, late: _Late) -> _Told:
        """What became of those that were late."""
        return await self._asked(router.late, _encoder.encode(late.token), late.tickets)

    async def _asked(self, call: Call, batch: bytes, tickets: Sequence[Ticket]) -> _Told:
        """What a router says of these tickets; what it does not say, senders are asked."""
        try:
            told = _answer_decoder.decode(await call(batch))
            if len(told.receipts) == len(tickets):
                plain = not told.doubtful and not told.late
                return (list(tickets), told.receipts, _Late()) if plain else self._sure(tickets, told)
            _log.error("pump: a router gave %d receipts for %d messages", len(told.receipts), len(tickets))
        except PeerGone:
            pass
        except Exception:  # a bug on the way: what was handed out before it is asked after all the same
            _log.exception("pump: a call to a router ended in a bug")
        self._inquiry.after([(ticket, None) for ticket in tickets])
        return [], [], _Late()

    def _sure(self, tickets: Sequence[Ticket], told: RouteAnswer) -> _Told:
        """What is certain of an answer, and what is told later; senders that died are asked after the rest."""
        left = dict(enumerate(zip(tickets, told.receipts, strict=True)))
        late = _Late(told.token, [left.pop(place)[0] for place in told.late])
        doubts: dict[str, list[Doubt]] = {
            sender: [left.pop(place) for place in places] for sender, places in told.doubtful.items()
        }
        for sender, some in doubts.items():
            self._inquiry.after(some, sender)
        return [ticket for ticket, _ in left.values()], [receipt for _, receipt in left.values()], late

    def _next_router(self) -> RouterPeer:
        self._turn += 1
        return self._routers[self._turn % len(self._routers)]

    # -- what is in doubt

    async def resume(self, tickets: list[Ticket]) -> None:
        """Messages of a former owner: settle those the senders know of, queue the others. Codes wait for no sender."""
        self._tally.add("dispatcher_redispatched", ("recovered",), len(tickets))
        await self._resume([ticket for ticket in tickets if is_hurried(ticket)], 0.0)
        await self._resume([ticket for ticket in tickets if not is_hurried(ticket)], BACK_S)

    async def _resume(self, tickets: list[Ticket], patience_s: float) -> None:
        if tickets:
            await self._inquiry.there(EVERYBODY, patience_s)
        for at in range(0, len(tickets), BATCH):
            some = tickets[at : at + BATCH]
            receipts = await self._inquiry.ask([(ticket, None) for ticket in some])
            for ticket, receipt in zip(some, receipts, strict=True):
                # A sender that had it may be wanted no more, or have forgotten it: its slot is never given back.
                ticket.maybe_sent = ticket.maybe_sent or receipt.answer == "refused"
            self._hear(some, receipts)

    def _hear(self, tickets: list[Ticket], receipts: list[Receipt]) -> None:
        """What became of messages that were in doubt, and in no window."""
        queues = {ticket.queue for ticket in tickets}
        try:
            back = self._settle_ended(tickets, receipts)
        except Exception:  # as in `_send`
            _log.exception("pump: %d messages that were in doubt went back to their queues", len(tickets))
            back = tickets
            for queue in queues:
                self._pause(queue, 1.0)
        self.outbox.put_back(back)
        self.set_alarm()
        self.kick(queues)

    # -- receipts

    def _take_in(self, queue: int, lane: int, tickets: list[Ticket], receipts: list[Receipt]) -> None:
        """The receipts of one call: what is refused goes back to its queue, and the window learns from it."""
        back = self._settle_ended(tickets, receipts)
        self._windows[queue].answered(len(tickets), len(back), self._in_hand[queue])
        if back:
            if len(back) == len(tickets):  # else the call that took the others says when there is room again
                self._pause(queue, REFUSED_PAUSE_S[lane])
                self.outbox.queue(back)  # behind the others, who may have another way
            else:
                self.outbox.put_back(back)
        self.set_alarm()

    def _settle_ended(self, tickets: list[Ticket], receipts: list[Receipt]) -> list[Ticket]:
        """Settle what ended, let wait what is to be tried again later; returns what was refused."""
        now_ms = self._clock_ms()
        ended, back, firsts = [], [], []
        for ticket, receipt in zip(tickets, receipts, strict=True):
            if not ticket.tries and receipt.provider and receipt.answer != "refused":
                firsts.append(ticket.message.lane)
            if receipt.answer == "accepted":  # nearly all of them: `next_step` would say the same
                bill = self._bill(ticket.message, receipt)
                end = _end(ticket, receipt, "sent", False, *bill)
                ended.append((ticket, end, receipt))
            elif receipt.answer == "refused":
                back.append(ticket)
            elif (step := self._next(ticket, receipt, now_ms)) is not None:
                ended.append((ticket, step, receipt))
        self._retries.tried(firsts, now_ms)
        self._count(receipts)
        if ended:
            self._settle(ended, now_ms)
        return back

    def _next(self, ticket: Ticket, receipt: Receipt, now_ms: int) -> End | None:
        """The message's end, or None: it waits for its next attempt."""
        message, crowd = ticket.message, self.outbox.waiting
        step = next_step(
            receipt, message.type, ticket.tries + 1, now_ms, message.expires_ms, self._rng, ticket.maybe_sent, crowd
        )
        if isinstance(step, Done):
            return _end(ticket, receipt, step.outcome, step.refund)
        if receipt.provider:  # else nobody has seen this attempt
            ticket.attempt += 1
            ticket.tries += 1
            ticket.owes = True
            ticket.maybe_sent = ticket.maybe_sent or receipt.answer == "unknown"
            if step.elsewhere:
                ticket.tried = (*ticket.tried, receipt.provider)[-8:]
        self.outbox.later(ticket, step.at_ms)
        return None

    def _count(self, receipts: list[Receipt]) -> None:
        answers = Counter([(receipt.provider, receipt.answer) for receipt in receipts])
        for labels, n in answers.items():
            if labels[0] and labels[1] != "refused":
                self._tally.add("dispatcher_answers", labels, n)

    def _pause(self, queue: int, seconds: float) -> None:
        until = asyncio.get_running_loop().time() + seconds
        self._paused_until[queue] = max(self._paused_until[queue], until)

    # -- waiting tickets

    def set_alarm(self) -> None:
        """Wake up when the earliest waiting ticket comes due."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        next_ms = self.outbox.next_ms
        if next_ms is not None and not self.stopped:
            delay_s = max(next_ms - self._clock_ms(), 0) / 1000
            self._alarm = asyncio.get_running_loop().call_later(delay_s + 0.001, self._on_alarm)

    def _on_alarm(self) -> None:
        self._alarm = None
        self.kick(self._retries.wake(self.outbox, self._clock_ms(), self._rng))
        for lane, paid, delayed in self._retries.counted():
            self._tally.add("dispatcher_retries", (lane,), paid)
            self._tally.add("dispatcher_retries_delayed", (lane,), delayed)
        self.set_alarm()


def _group(tickets: list[Ticket]) -> RouteGroup:
    first = tickets[0]
    m = first.message
    raws = [msgspec.Raw(ticket.raw) for ticket in tickets]
    tried = list(first.tried)
    return RouteGroup(m.channel, m.type, m.line, m.template, m.region, first.attempt, tried, raws, vendor_of(m))


def _end(
    ticket: Ticket, receipt: Receipt, outcome: str, refund: bool,
    segments: int | None = None, price: float | None = None,
) -> End:  # fmt: skip
    attempts = ticket.tries + bool(receipt.provider)
    return End(
        ticket.message.id, outcome, refund, receipt.provider, receipt.ref, receipt.code, attempts, segments, price
    )
