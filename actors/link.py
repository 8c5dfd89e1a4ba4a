"""A way to the provider under one version of its configuration: messages in, a receipt for each out."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from actors.tokens import Tokens
from channels import Way
from channels.adapter import Adapter, NoToken, NotWritten, Request, Splits, Tokened, Unsendable, Written
from channels.courier import Courier
from channels.poll import Polled, Question, State
from channels.transport import Watch
from dispatcher.documents import Provider
from dispatcher.message import Message
from dispatcher.receipt import Answer, Receipt

_log = logging.getLogger(__name__)

Build = Callable[[str, Provider], Way]
Clock = Callable[[], int]


class Link:
    """An adapter with its transport, or a courier. Closes once it is retired and nothing is in the air."""

    def __init__(self, provider_id: str, way: Way, timeout_s: float, tokens: Tokens | None = None) -> None:
        self._provider_id = provider_id
        self._timeout_s = timeout_s
        self._requests = 0
        self._retired = False
        self._plain = False  # one request for all messages, and no token
        self._courier: Courier | None = None
        self.polled: Polled | None = None
        if not isinstance(way, tuple):
            self._close, self._courier = way.close, way
            return
        adapter, self._transport = way
        self._close = self._transport.close
        self._adapter: Adapter = adapter
        self._splits = adapter if isinstance(adapter, Splits) else None
        self._tokened = adapter if isinstance(adapter, Tokened) else None
        self.polled = adapter if isinstance(adapter, Polled) else None
        self._plain = self._splits is None and self._tokened is None
        self._tokens = tokens
        if self._tokened is not None and tokens is not None:
            tokens.configure(self._tokened, self._transport)

    async def exchange(self, messages: Sequence[Message], clock_ms: Clock, watch: Watch | None = None) -> list[Receipt]:
        """A receipt for each message, whatever happens: of one request, or of one for each part."""
        self._requests += 1
        try:
            if self._plain:
                receipts = await self._send(messages, clock_ms, watch)
            elif self._courier is not None:
                receipts = await self._courier.send(messages, self._timeout_s, watch)
            else:
                receipts = await self._parts(messages, clock_ms, watch)
            return self._checked(messages, receipts)
        except Exception as error:
            return self._failed(messages, error)
        finally:
            await self._ended()

    async def ask(self, question: Question, watch: Watch | None = None) -> Mapping[str, State]:
        """What a `polled` vendor says of a question's addresses. Raises NotWritten or Written when it says nothing."""
        assert self.polled is not None
        addresses = list(question.addresses)
        request = self.polled.status_request(question.ref, addresses, question.sent_s)
        self._requests += 1
        try:
            reply = await self._transport.send(request, self._timeout_s, watch)
        finally:
            await self._ended()
        if not 200 <= reply.status < 300:
            raise Written(f"status {reply.status}")
        return self.polled.states(addresses, reply)

    async def _ended(self) -> None:
        self._requests -= 1
        if self._retired and self._requests == 0:
            await self._close()

    async def _send(self, messages: Sequence[Message], clock_ms: Clock, watch: Watch | None) -> list[Receipt]:
        reply = await self._transport.send(self._request(messages, clock_ms), self._timeout_s, watch)
        return self._adapter.receipts(messages, reply, clock_ms() / 1000)

    def _request(self, messages: Sequence[Message], clock_ms: Clock) -> Request:
        try:
            return self._adapter.request(messages, clock_ms() / 1000)
        except Unsendable:
            raise
        except Exception as error:
            _log.exception("sender %s: its adapter could not make a request", self._provider_id)
            raise Unsendable("transient", "adapter_error") from error

    def _checked(self, messages: Sequence[Message], receipts: list[Receipt]) -> list[Receipt]:
        if len(receipts) != len(messages):
            raise ValueError(f"{len(receipts)} receipts for {len(messages)} messages")
        return receipts

    def _failed(self, messages: Sequence[Message], error: Exception) -> list[Receipt]:
        if isinstance(error, NotWritten):
            return self.all(messages, "transient", f"not_written: {error}")
        if isinstance(error, Written):
            return self.all(messages, "unknown", f"no_reply: {error}")
        if isinstance(error, Unsendable):
            return self.all(messages, error.answer, str(error))
        _log.error("sender %s: a request that may have been sent ended in a bug", self._provider_id, exc_info=error)
        return self.all(messages, "unknown", "adapter_error")

    async def retire(self) -> None:
        """No request begins any more."""
        self._retired = True
        if self._requests == 0:
            await self._close()

    def all(self, messages: Sequence[Message], answer: Answer, code: str) -> list[Receipt]:
        """The same answer for every message."""
        return [Receipt(message.id, answer, self._provider_id, code=code[:120]) for message in messages]

    # -- parts and tokens

    async def _parts(self, messages: Sequence[Message], clock_ms: Clock, watch: Watch | None) -> list[Receipt]:
        """The parts of these messages, each in a request of its own, at the same time."""
        places = [list(range(len(messages)))] if self._splits is None else self._splits.parts(messages)
        shared = watch if watch is None or len(places) == 1 else _Shared(watch, len(places))
        parts = [[messages[place] for place in some] for some in places]
        watches = [_Once(shared) if isinstance(shared, _Shared) else shared for _ in parts]
        told = await asyncio.gather(*(self._part(p, clock_ms, w) for p, w in zip(parts, watches, strict=True)))
        receipts: list[Receipt | None] = [None] * len(messages)
        for some, found in zip(places, told, strict=True):
            for place, receipt in zip(some, found, strict=True):
                receipts[place] = receipt
        return [r or Receipt(m.id, "transient", self._provider_id, code="adapter_error")
                for m, r in zip(messages, receipts, strict=True)]  # fmt: skip

    async def _part(self, messages: Sequence[Message], clock_ms: Clock, watch: Watch | None) -> list[Receipt]:
        send = self._send if self._tokened is None else self._with_token
        try:
            return self._checked(messages, await send(messages, clock_ms, watch))
        except Exception as error:
            return self._failed(messages, error)

    async def _with_token(self, messages: Sequence[Message], clock_ms: Clock, watch: Watch | None) -> list[Receipt]:
        """With the pool's token; one that the vendor refuses is replaced once."""
        assert self._tokened is not None
        assert self._tokens is not None
        stale = ""
        for _ in range(2):
            try:
                token = await self._tokens.get(stale)
            except NoToken as error:
                return self.all(messages, error.answer, str(error))
            self._tokened.use(token)
            reply = await self._transport.send(self._request(messages, clock_ms), self._timeout_s, watch)
            if stale or not self._tokened.is_stale(reply):
                break
            stale = token
        return self._adapter.receipts(messages, reply, clock_ms() / 1000)


class _Shared:
    """One watch for the requests of several parts: written once the last part is."""

    def __init__(self, watch: Watch, parts: int) -> None:
        self._watch = watch
        self._left = parts

    def begin(self) -> None:
        self._watch.begin()

    def written(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._watch.written()


class _Once:
    """A part's own: it is written once, though its request may be repeated with another token."""

    def __init__(self, watch: _Shared) -> None:
        self._watch = watch
        self._told = False

    def begin(self) -> None:
        self._watch.begin()

    def written(self) -> None:
        if not self._told:
            self._told = True
            self._watch.written()
