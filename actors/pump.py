"""The pump: hands the outbox's messages to routers, queue by queue, and settles what comes back.

Each queue (lane x channel) has its own window of messages in routers' hands, so a slow one holds up nobody else.
Batches form by themselves: while a queue has calls out it waits for a full batch or its linger, whichever is first.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

import msgspec

from actors.inquiry import BACK_S, EVERYBODY, Doubt, Inquiry, is_hurried
from actors.ports import PeerGone, RouterPeer
from actors.tally import Tally
from dispatcher.calls import RouteAnswer, RouteCall, RouteGroup
from dispatcher.entries import End
from dispatcher.kinds import CHANNELS
from dispatcher.outbox import QUEUES, Outbox, Ticket
from dispatcher.receipt import Receipt
from dispatcher.retry import Done, next_step
from dispatcher.window import Window

BATCH: Final = 800  # messages, about 200 KiB: a Ray call costs about a millisecond at each end whatever it carries
LINGER_S: Final = (0.004, 0.010, 0.020)  # by lane; only while calls of the same queue are out
REFUSED_PAUSE_S: Final = (0.005, 0.010, 0.020)

_log = logging.getLogger(__name__)
_encoder: Final = msgspec.msgpack.Encoder()
_answer_decoder: Final = msgspec.msgpack.Decoder(RouteAnswer)

#: What a ticket may not be sent for any more: its end's outcome and code.
Veto = Callable[[Ticket, int], tuple[str, str] | None]
#: Takes ends of one moment, with the tickets they end: settle state, log, count.
Settle = Callable[[Sequence[tuple[Ticket, End, Receipt | None]], int], None]


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
    ) -> None:
        self.outbox = outbox
        self._routers = routers
        self._windows = [Window(windows[queue // len(CHANNELS)]) for queue in range(QUEUES)]
        self._veto = veto
        self._settle = settle
        self._clock_ms = clock_ms
        self._rng = rng
        self._tally = tally
        self._in_hand = [0] * QUEUES  # messages at routers
        self._calls = [0] * QUEUES
        self._timers: list[asyncio.TimerHandle | None] = [None] * QUEUES
        self._paused_until = [0.0] * QUEUES
        self._tasks: set[asyncio.Task[None]] = set()
        self._inquiry = Inquiry(self._next_router, self._hear, tally)
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
        try:
            sure, receipts = await self._route(lane, tickets)
            if sure:
                self._take_in(queue, lane, sure, receipts)
        except Exception:  # a bug must not lose messages: they stay in flight and go out again
            _log.exception("pump: a batch of %d went back to its queue", len(tickets))
            self._pause(queue, 1.0)
            self.outbox.put_back(tickets)
        finally:
            self._in_hand[queue] -= len(tickets)
            self._calls[queue] -= 1
        self._run(queue)

    async def _route(self, lane: int, tickets: list[Ticket]) -> tuple[list[Ticket], list[Receipt]]:
        """The receipts of a batch, with the tickets in the receipts' order, less those in doubt."""
        groups: dict[tuple[object, ...], list[Ticket]] = {}
        for ticket in tickets:
            m = ticket.message
            key = (m.type, m.line, m.template, m.region, ticket.attempt, ticket.tried)  # a queue has one channel
            group = groups.get(key)
            if group is None:
                groups[key] = [ticket]
            else:
                group.append(ticket)
        ordered = [ticket for group in groups.values() for ticket in group]
        call = RouteCall(lane, [_group(group) for group in groups.values()])
        try:
            answer = await self._next_router().route(_encoder.encode(call))
            told = _answer_decoder.decode(answer)
            if len(told.receipts) == len(ordered):
                return self._sure(ordered, told) if told.doubtful else (ordered, told.receipts)
            _log.error("pump: a router gave %d receipts for %d messages", len(told.receipts), len(ordered))
        except PeerGone:
            pass
        except Exception:  # a bug on the way: what was handed out before it is asked after all the same
            _log.exception("pump: a call to a router ended in a bug")
        self._inquiry.after([(ticket, None) for ticket in ordered])
        return [], []

    def _sure(self, tickets: list[Ticket], told: RouteAnswer) -> tuple[list[Ticket], list[Receipt]]:
        """What is certain of an answer; senders that died are asked after the rest."""
        left = dict(enumerate(zip(tickets, told.receipts, strict=True)))
        doubts: dict[str, list[Doubt]] = {
            sender: [left.pop(place) for place in places] for sender, places in told.doubtful.items()
        }
        for sender, some in doubts.items():
            self._inquiry.after(some, sender)
        return [ticket for ticket, _ in left.values()], [receipt for _, receipt in left.values()]

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
        ended, back = [], []
        for ticket, receipt in zip(tickets, receipts, strict=True):
            if receipt.answer == "accepted":  # nearly all of them: `next_step` would say the same
                end = _end(ticket, receipt, "sent", refund=False)
                ended.append((ticket, end, receipt))
            elif receipt.answer == "refused":
                back.append(ticket)
            elif (step := self._next(ticket, receipt, now_ms)) is not None:
                ended.append((ticket, step, receipt))
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
        self.kick(self.outbox.wake(self._clock_ms()))
        self.set_alarm()


def _group(tickets: list[Ticket]) -> RouteGroup:
    first = tickets[0]
    m = first.message
    raws = [msgspec.Raw(ticket.raw) for ticket in tickets]
    return RouteGroup(m.channel, m.type, m.line, m.template, m.region, first.attempt, list(first.tried), raws)


def _end(ticket: Ticket, receipt: Receipt, outcome: str, refund: bool) -> End:
    attempts = ticket.tries + bool(receipt.provider)
    return End(ticket.message.id, outcome, refund, receipt.provider, receipt.ref, receipt.code, attempts)
