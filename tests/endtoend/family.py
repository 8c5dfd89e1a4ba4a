"""One vendor of the whole-path tests: how it is set up, what it answers and checks, what it posts later."""

import asyncio
import threading
import urllib.error
import urllib.request
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

from dispatcher.entries import Delivery, End, Reported, Settle, decode_entry
from dispatcher.store.connection import connect
from dispatcher.store.log import Log
from tests.channels.vendor import Heard, Vendor, vendor
from tests.support import run

T = TypeVar("T")


class Loop:
    """An event loop in a thread of its own, where the vendors live."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def close(self) -> None:
        self.run(_end_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _end_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


class Family:
    """A vendor with an HTTP interface of its own; `path` is how the path ends that takes messages."""

    kind: str
    channel = "sms"
    path = ""
    #: How the vendor knows the template, where it has templates of its own.
    template: dict[str, Any] | None = None
    #: Where it sends something: its messages' address; None: the test's phone number.
    to: str | None = None
    #: Whether it ever tells what became of a message.
    reports = False

    def __init__(self, loop: Loop, place: Path, url: str) -> None:
        self.loop = loop
        self.place = place
        self.ours = url  # where the dispatcher is
        self.stub: Vendor
        self.reports_url = self.uplinks_url = ""

    async def start(self, stack: AsyncExitStack) -> dict[str, Any]:
        """Begin to listen; the provider's options."""
        self.stub = await stack.enter_async_context(vendor(self.answer))
        return self.options(self.stub.url)

    def options(self, url: str) -> dict[str, Any]:
        raise NotImplementedError

    def secret(self, text: str) -> str:
        """A reference to it."""
        path = self.place / f"{self.kind}-{len(list(self.place.iterdir()))}"
        path.write_text(text)
        return f"file:{path}"

    def content(self) -> dict[str, Any]:
        """The template's content for its channel."""
        return {"channel": self.channel, **CONTENTS[self.channel]}

    def answer(self, asked: Heard) -> tuple[int, Any]:
        """As the vendor answers, in its thread."""
        raise NotImplementedError

    @property
    def taken(self) -> int:
        """Requests with messages so far."""
        return len(self.stub.to(self.path))

    @property
    def asked(self) -> Heard:
        """The only one."""
        [one] = self.stub.to(self.path)
        return one

    def check(self, message: str, to: str, n: str) -> None:
        """Whether the request is whole, and signed or authorized as the vendor wants."""
        raise NotImplementedError

    def report(self, message: str, to: str) -> None:
        """Tell that it was delivered, in the vendor's words; nothing where the vendor never does."""

    def forge(self, message: str, to: str) -> int | None:
        """Status of the same with a signature that is not the vendor's; None where it signs nothing."""

    def unsubscribe(self, sender: str) -> str:
        """Hand over a user's text; returns its words."""
        raise NotImplementedError


CONTENTS: dict[str, dict[str, Any]] = {
    "sms": {"text": "paid {n}"},
    "push": {"title": "Paid", "body": "paid {n}", "jump": {"kind": "h5", "url": "https://example.com/orders"}},
    "wechat": {"template_id": "T1", "data": {"content": "paid {n}"}},
    "webhook": {"body": {"text": "paid {n}"}},
    "email": {"subject": "Paid", "text": "paid {n}"},
}


def post(url: str, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    """Status and answer of a vendor's call."""
    request = urllib.request.Request(url, body, headers or {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return int(response.status), response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


class Tail:
    """What the logs of all partitions say of messages, read on from where it was read to."""

    def __init__(self, url: str, partitions: int) -> None:
        self._url = url
        self._at = [0] * partitions
        self.ends: dict[str, list[End]] = {}
        self.told: dict[str, list[Delivery]] = {}

    def read(self) -> "Tail":
        run(self._read())
        return self

    async def _read(self) -> None:
        redis = connect(self._url)
        log = Log(redis)
        for p in range(len(self._at)):
            while rows := await log.read(p, self._at[p], 500):
                for seq, entries in rows:
                    self._at[p] = seq
                    for data in entries:
                        self._note(decode_entry(data))
        await redis.aclose()

    def _note(self, entry: Any) -> None:
        if isinstance(entry, Settle):
            for end in entry.ends:
                self.ends.setdefault(end.message, []).append(end)
        elif isinstance(entry, Reported):
            for one in entry.reports:
                self.told.setdefault(one.message, []).append(one)
