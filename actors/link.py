"""A way to the provider under one version of its configuration: messages in, a receipt for each out."""

import logging
from collections.abc import Callable, Sequence

from channels.adapter import Adapter, NotWritten, Written
from channels.transport import Transport
from dispatcher.documents import Provider
from dispatcher.message import Message
from dispatcher.receipt import Answer, Receipt

_log = logging.getLogger(__name__)

Build = Callable[[str, Provider], tuple[Adapter, Transport]]


class Link:
    """An adapter with its transport. Closes once it is retired and nothing is in the air."""

    def __init__(self, provider_id: str, adapter: Adapter, transport: Transport, timeout_s: float) -> None:
        self._provider_id = provider_id
        self._adapter = adapter
        self._transport = transport
        self._timeout_s = timeout_s
        self._requests = 0
        self._retired = False

    async def exchange(self, messages: Sequence[Message], clock_ms: Callable[[], int]) -> list[Receipt]:
        """One request: a receipt for each message, whatever happens."""
        self._requests += 1
        try:
            try:
                request = self._adapter.request(messages, clock_ms() / 1000)
            except Exception:
                _log.exception("sender %s: its adapter could not make a request", self._provider_id)
                return self.all(messages, "transient", "adapter_error")
            reply = await self._transport.send(request, self._timeout_s)
            receipts = self._adapter.receipts(messages, reply, clock_ms() / 1000)
            if len(receipts) != len(messages):
                raise ValueError(f"{len(receipts)} receipts for {len(messages)} messages")
            return receipts
        except NotWritten as error:
            return self.all(messages, "transient", f"not_written: {error}")
        except Written as error:
            return self.all(messages, "unknown", f"no_reply: {error}")
        except Exception:
            _log.exception("sender %s: a request that may have been sent ended in a bug", self._provider_id)
            return self.all(messages, "unknown", "adapter_error")
        finally:
            self._requests -= 1
            if self._retired and self._requests == 0:
                await self._transport.close()

    async def retire(self) -> None:
        """No request begins any more."""
        self._retired = True
        if self._requests == 0:
            await self._transport.close()

    def all(self, messages: Sequence[Message], answer: Answer, code: str) -> list[Receipt]:
        """The same answer for every message."""
        return [Receipt(message.id, answer, self._provider_id, code=code[:120]) for message in messages]
