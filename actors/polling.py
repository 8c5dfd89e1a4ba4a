"""Asks a vendor that posts no reports what became of messages, and hands what it says to the sender's inbox.

What is waited for lives and dies with its sender: a successor asks only for what it sent itself. A change of the
provider's document keeps it, unless the account changes: another account does not know these messages, and would call
their addresses strangers. A provider that is switched off is asked again once it is back.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from actors.allowance import Allowance, Permit
from actors.ending import end
from actors.link import Link
from actors.stock import Stock
from channels.adapter import NotWritten, Written
from channels.courier import Inbox
from channels.poll import AT_ONCE, Poll
from dispatcher.http.ports import Unavailable
from dispatcher.kinds import BULK
from dispatcher.message import Message
from dispatcher.receipt import Receipt
from dispatcher.report import Report

#: How often it is looked whether a question is due.
LOOK_S: Final = 0.25
#: After a question that failed no other is asked for so long: each failure costs its messages one of their steps.
PAUSE_S: Final = 5.0
#: Reports that could not be kept are handed over again after this; meanwhile their worker asks nothing more.
AGAIN_S: Final = 1.0

_log = logging.getLogger(__name__)


class Polling:
    """One sender's questions. They have connections of their own, and where there is a rate quota each counts as a
    message that goes after all others: none is asked while a message waits."""

    def __init__(
        self,
        provider_id: str,
        inbox: Inbox | None,
        stock: Stock,
        allowance: Allowance,
        clock_ms: Callable[[], int],
        clock_s: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._provider_id = provider_id
        self._inbox = inbox
        self._stock = stock
        self._allowance = allowance
        self._clock_ms = clock_ms
        self._clock_s = clock_s
        self._sleep = sleep
        self._poll = Poll(provider_id)
        self._account: str | None = None
        self._link: Link | None = None
        self._failing = False
        self._paused_until_s = float("-inf")
        self._stopped = False
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Addresses whose state is not known yet."""
        return self._poll.waiting

    def use(self, link: Link | None) -> None:
        """Ask over this link from now on; None: not at all for now."""
        self._link = link
        if link is None:
            return
        account = link.polled.account if link.polled is not None else None
        if account != self._account:
            self._account, self._poll = account, Poll(self._provider_id)

    def sent(self, link: Link, messages: Sequence[Message], receipts: Sequence[Receipt]) -> None:
        """Ask for these later, as far as they were accepted."""
        if link.polled is None or link.polled.account != self._account or self._inbox is None or self._stopped:
            return
        self._poll.sent(messages, receipts, self._now_s())
        if self._task is None and self._poll.waiting:
            self._task = asyncio.get_running_loop().create_task(self._run(self._inbox))

    async def stop(self) -> None:
        """Ask no more. What was not asked, and what is not handed over yet, is given up."""
        self._stopped = True
        task, self._task = self._task, None
        if task is not None:
            await end(task)

    async def _run(self, inbox: Inbox) -> None:
        await asyncio.gather(*(self._work(inbox) for _ in range(AT_ONCE)))

    async def _work(self, inbox: Inbox) -> None:
        while True:
            try:
                asked = await self._turn(inbox)
            except Exception:
                _log.exception("sender %s: a question for delivery states ended in a bug", self._provider_id)
                asked = False
            if not asked:
                await self._sleep(LOOK_S)

    async def _turn(self, inbox: Inbox) -> bool:
        """One question, if one is due and may be asked; whether it was."""
        poll, link, now_s = self._poll, self._link, self._now_s()
        due_s = poll.next_s()
        if link is None or due_s is None or due_s > now_s or self._clock_s() < self._paused_until_s:
            return False
        may, permit = self._permit()
        if not may:
            return False
        reports: list[Report] = []
        try:
            question = poll.ask(now_s)
            if question is None:
                return False
            try:
                states = await link.ask(question, permit)
            except Exception as error:
                poll.failed(question, self._now_s())
                self._fail(error)
                return True
            reports = poll.told(question, states, self._now_s())
            self._failing = False
        finally:
            if permit is not None:
                permit.close()
        if reports:
            await self._hand(inbox, reports)
        return True

    def _permit(self) -> tuple[bool, Permit | None]:
        """Whether a question may be asked, and under which permit."""
        quota = self._allowance.quota
        if quota is None:
            return True, None
        if self._stock.waiting:
            return False, None
        permit = self._allowance.permit(quota.grant(1, self._clock_s(), BULK))
        return permit is not None, permit

    def _fail(self, error: Exception) -> None:
        """Told once until a question is answered again."""
        self._paused_until_s = self._clock_s() + PAUSE_S
        bug = not isinstance(error, (NotWritten, Written))
        if bug or not self._failing:
            words = "sender %s: the vendor does not tell delivery states: %s"
            _log.warning(words, self._provider_id, error, exc_info=error if bug else None)
        self._failing = True

    async def _hand(self, inbox: Inbox, reports: list[Report]) -> None:
        """Returns once they are kept; they cannot be asked for again."""
        while True:
            try:
                await inbox(reports)
            except Unavailable:
                await self._sleep(AGAIN_S)
            else:
                return

    def _now_s(self) -> float:
        """Epoch seconds."""
        return self._clock_ms() / 1000
