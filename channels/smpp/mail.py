"""What the centre delivers, on its way to the inbox: acknowledged once that has kept it."""

import asyncio
import logging
from collections import deque
from typing import Final

from msgspec import Struct

from channels.courier import Inbox
from channels.smpp.delivery import Part, is_outcome, outcome_of, part_of
from channels.smpp.flight import Tag
from channels.smpp.ids import Ids
from channels.smpp.joins import Joins
from channels.smpp.pdu import Pdu, PduError, ShortMessage, decode_short_message
from channels.smpp.session import Session
from channels.smpp.status import CODES
from channels.smpp.submit import international
from dispatcher.report import Report, Uplink

_log = logging.getLogger(__name__)

#: deliver_sm that wait for the inbox, at most; the centre is told to come again with more.
MOST: Final = 1_000
_TOGETHER: Final = 100  # given to the inbox in one call
_SWEEP_S: Final = 60.0
#: SMPP allows 20 characters of a number, and some centres send more; what is longer is no number.
_LONGEST_NUMBER: Final = 64
_LONGEST_TEXT: Final = 4_096
_TRY_AGAIN: Final = CODES["RX_T_APPN"]
_NEVER: Final = CODES["RX_P_APPN"]


class _Read(Struct, frozen=True):
    """What one deliver_sm came to. `join`: the text it completed, to be forgotten once it is kept."""

    status: int = 0
    items: list[Report | Uplink] = []
    join: tuple[tuple[str, str], Part] | None = None


class Mail:
    """Reads what sessions are delivered, in order, and hands it to the inbox many at a time."""

    def __init__(self, provider: str, ids: Ids, joins: Joins | None = None) -> None:
        self._provider = provider
        self._ids = ids
        self._joins = joins if joins is not None else Joins()
        self._waiting: deque[tuple[Session[Tag], Pdu]] = deque()
        self._given_up: list[Report | Uplink] = []  # texts without all of their parts, not kept yet
        self._ring = asyncio.Event()
        self.inbox: Inbox | None = None

    def take(self, session: Session[Tag], pdu: Pdu) -> None:
        """The centre delivers this."""
        if self.inbox is None:
            session.answer(pdu, _TRY_AGAIN)
        elif len(self._waiting) >= MOST:
            session.answer(pdu, CODES["RMSGQFUL"])
        else:
            self._waiting.append((session, pdu))
            self._ring.set()

    async def run(self) -> None:
        """Until cancelled; what is then not kept was not acknowledged, so the centre delivers it again."""
        while True:
            try:
                async with asyncio.timeout(_SWEEP_S if self._joins or self._given_up else None):
                    await self._ring.wait()
            except TimeoutError:
                self._give_up(self._joins.expire(asyncio.get_running_loop().time()))
            self._ring.clear()
            while self._waiting or self._given_up:
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _TOGETHER))]
                if not await self._deliver(batch) and not self._waiting:
                    break

    async def _deliver(self, batch: list[tuple[Session[Tag], Pdu]]) -> bool:
        read = [self._read(pdu) for _, pdu in batch]
        given_up, self._given_up = self._given_up, []
        items = given_up + [item for one in read for item in one.items]
        kept = not items or await self._keep(items)
        if not kept:
            self._given_up = given_up
        for (session, pdu), one in zip(batch, read, strict=True):
            if one.join is not None and kept:
                self._joins.forget(*one.join)
            session.answer(pdu, _TRY_AGAIN if one.items and not kept else one.status)
        return kept

    async def _keep(self, items: list[Report | Uplink]) -> bool:
        assert self.inbox is not None
        try:
            await self.inbox(items)
        except Exception as error:
            _log.warning("provider %s: %d of its reports could not be kept: %s", self._provider, len(items), error)
            return False
        return True

    def _read(self, pdu: Pdu) -> _Read:
        try:
            message = decode_short_message(pdu.body)
            if is_outcome(message):
                report = self._report(message)
                return _Read(items=[report] if report is not None else [])
            return self._text(message)
        except PduError as error:
            _log.warning("provider %s delivers what cannot be read: %s", self._provider, error)
            return _Read(_NEVER)
        except Exception:  # a bug, which must not keep the others from being read
            _log.exception("provider %s: a delivery could not be read", self._provider)
            return _Read(_NEVER)

    def _report(self, message: ShortMessage) -> Report | None:
        """A message's own report is its last part's; another part's counts when it says that the part is missing."""
        outcome = outcome_of(message)
        if outcome is None:
            _log.warning("provider %s sends a receipt that cannot be understood", self._provider)
            return None
        find, sent = self._ids.find(outcome.id, (message.source, message.to))
        if sent is not None and not sent.last and outcome.status != "undelivered":
            return None
        to = _number(message.source_ton, message.source) or None
        message_id = sent.message if sent is not None else None
        return Report(self._provider, outcome.status, message_id, find, to, outcome.code)

    def _text(self, message: ShortMessage) -> _Read:
        sender = _number(message.source_ton, message.source)
        to = _number(message.to_ton, message.to)
        if not sender:
            raise PduError("a text without a sender")
        part = part_of(message)
        text, given_up = self._joins.put((sender, to), part, asyncio.get_running_loop().time())
        self._give_up(given_up)
        if text is None:
            return _Read()
        join = ((sender, to), part) if part.total > 1 else None
        return _Read(items=[self._uplink((sender, to), text)], join=join)

    def _give_up(self, texts: list[tuple[tuple[str, str], str]]) -> None:
        for key, text in texts:
            _log.warning("provider %s: a text came without some of its parts", self._provider)
            self._given_up.append(self._uplink(key, text))
        del self._given_up[:-MOST]

    def _uplink(self, key: tuple[str, str], text: str) -> Uplink:
        """SMPP gives a delivery no name, so `key` stays empty: one sent again after a lost answer cannot be told."""
        return Uplink(self._provider, "sms", key[0], text[:_LONGEST_TEXT], key[1])


def _number(ton: int, number: str) -> str:
    """As messages have it; empty where it can be no number."""
    return international(ton, number) if len(number) <= _LONGEST_NUMBER else ""
