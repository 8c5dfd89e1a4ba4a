"""What became of messages on whose way somebody died: asked of the senders, by way of a router, once they are there.

A sender that was killed is started again under its name, and knows from its journal what the one before had written.
Messages in doubt wait here and in no window, so they hold up nobody else.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from actors.ports import PeerGone, RouterPeer
from actors.tally import Tally
from dispatcher.calls import RecallAnswer, RecallCall
from dispatcher.outbox import Ticket
from dispatcher.receipt import Receipt
from dispatcher.retry import SECOND_TRY_TYPES

BACK_S: Final = 15.0  # a killed sender was back after 3 s
ASK_EVERY_S: Final = 0.25
ROUTER_S: Final = 60.0
BATCH: Final = 800
EVERYBODY: Final = ""

_log = logging.getLogger(__name__)
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(RecallAnswer)

#: A message in doubt, and its receipt should those who could know never come back; None: then it is sent again.
Doubt = tuple[Ticket, Receipt | None]
#: Takes messages with the receipts they have now. `refused`: no sender has written it, and under its attempt of before
#: none will.
Told = Callable[[list[Ticket], list[Receipt]], None]


class Inquiry:
    """The messages in doubt, by the sender that had them; those of a router that died may have been anybody's."""

    def __init__(self, next_router: Callable[[], RouterPeer], told: Told, tally: Tally) -> None:
        self._next_router = next_router
        self._told = told
        self._tally = tally
        self._open: dict[tuple[str, float], list[Doubt]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def idle(self) -> bool:
        """Nothing is in doubt."""
        return not self._tasks

    async def finished(self) -> None:
        """Returns once nothing is in doubt."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def after(self, doubts: Sequence[Doubt], sender: str = EVERYBODY) -> None:
        """Ask after these once this sender, or everybody, is there. What may be anybody's is not everybody's business
        when it is a code: of those, who is there now is asked."""
        for doubt in doubts:
            hurried = sender == EVERYBODY and is_hurried(doubt[0])
            key = sender, 0.0 if hurried else BACK_S
            if key in self._open:
                self._open[key].append(doubt)
                continue
            self._open[key] = [doubt]
            task = asyncio.get_running_loop().create_task(self._follow(*key))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _follow(self, sender: str, patience_s: float) -> None:
        await self.there(sender, patience_s)
        doubts = self._open.pop((sender, patience_s))
        for at in range(0, len(doubts), BATCH):
            some = doubts[at : at + BATCH]
            self._told([ticket for ticket, _ in some], await self.ask(some, sender))

    async def there(self, sender: str, patience_s: float) -> None:
        """Returns once this sender, or everybody, can be asked; or when patience is over."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience_s
        while loop.time() < deadline:
            if (await self._recall(RecallCall([], [], sender))).complete:
                return
            await asyncio.sleep(ASK_EVERY_S)

    async def ask(self, doubts: Sequence[Doubt], sender: str = EVERYBODY) -> list[Receipt]:
        """The receipts of these messages, as far as is known now."""
        tickets = [ticket for ticket, _ in doubts]
        answer = await self._recall(
            RecallCall([ticket.message.id for ticket in tickets], [ticket.attempt for ticket in tickets], sender)
        )
        return [
            known or self._unwritten(ticket, answer.complete, otherwise)
            for (ticket, otherwise), known in zip(doubts, answer.receipts, strict=True)
        ]

    def _unwritten(self, ticket: Ticket, complete: bool, otherwise: Receipt | None) -> Receipt:
        """No sender that answered has written it, or will under this attempt. Where one did not answer, its slot stays
        taken whatever comes."""
        if otherwise is not None and not complete:
            return otherwise
        self._tally.add("dispatcher_redispatched", ("recalled",))
        ticket.attempt += 1
        ticket.maybe_sent = ticket.maybe_sent or not complete
        return Receipt(ticket.message.id, "refused")

    async def _recall(self, call: RecallCall) -> RecallAnswer:
        loop, batch, n = asyncio.get_running_loop(), _encoder.encode(call), len(call.ids)
        deadline = loop.time() + ROUTER_S
        while True:
            try:
                answer = _decoder.decode(await self._next_router().recall(batch))
                if len(answer.receipts) == n:
                    return answer
                _log.error("a router recalled %d messages of %d", len(answer.receipts), n)
            except PeerGone:
                pass
            except Exception:  # a bug must not lose messages
                _log.exception("a recall of %d messages failed", n)
            if loop.time() > deadline:
                _log.error("no router can be asked what became of %d messages", n)
                return RecallAnswer([None] * n, complete=False)
            await asyncio.sleep(0.1)


def is_hurried(ticket: Ticket) -> bool:
    """Whether it should rather go out twice than late."""
    return ticket.message.type in SECOND_TRY_TYPES
