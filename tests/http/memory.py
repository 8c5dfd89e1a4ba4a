"""The ports in memory, and a server on a real socket over them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Any

import aiohttp
import msgspec
from aiohttp import web

from dispatcher.answers import OVERLOADED, STATUS_NUMBER, Answers, Result, Want, body
from dispatcher.deadletter import LetterFilter, LetterPage, ReplayOrder, ReplayReport
from dispatcher.http.app import make_app
from dispatcher.http.ports import Ports, VendorAnswer, VendorCall
from dispatcher.http.settings import Settings
from dispatcher.ident import partition_of
from dispatcher.profile import StoredUser
from dispatcher.store.blacklist import StoredEntry
from dispatcher.store.catalog import Versioned
from dispatcher.store.errors import VersionMismatch
from dispatcher.trigger import Order

Verdict = tuple[str, str | None]
ACCEPTED: Verdict = ("accepted", None)


def mixed(order: Order) -> Verdict:
    """Four verdicts in turn, by the number in the id."""
    verdicts = [ACCEPTED, ("filtered", "frequency"), ("duplicate", None), ("intercepted", "line_cap")]
    return verdicts[int(order.id[1:]) % 4]


class MemoryIntake:
    """Answers by `judge`; `gate` holds every answer back while it is cleared."""

    def __init__(self, shards: int = 4) -> None:
        self.shards = shards
        self.judge: Callable[[Order], Verdict] = lambda order: ACCEPTED
        self.gate = asyncio.Event()
        self.gate.set()
        self.orders: list[Order] = []
        self.keep = True
        self.total = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self.largest_group = 0
        self.refusals = 0
        self.wants: list[Want] = []
        self.retry_after_s = 0.0
        self.failure: Exception | None = None

    def shard_of(self, identity: str) -> int:
        return partition_of(identity, 64) % self.shards

    def refused(self, n: int) -> None:
        self.refusals += n

    async def submit(self, shard: int, orders: list[Order], want: Want) -> Answers:
        self.wants.append(want)
        self.in_flight += len(orders)
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.largest_group = max(self.largest_group, len(orders))
        try:
            await self.gate.wait()
            if self.failure is not None:
                raise self.failure
            assert all(self.shard_of(order.identity) == shard for order in orders)
            return self._answers(orders, want)
        finally:
            self.in_flight -= len(orders)

    def _answers(self, orders: list[Order], want: Want) -> Answers:
        verdicts = [self.judge(order) for order in orders]
        taken = [o for o, (status, _) in zip(orders, verdicts, strict=True) if STATUS_NUMBER[status] != OVERLOADED]
        self.total += len(taken)
        if self.keep:
            self.orders += taken
        reasons: dict[str, int] = {}
        for _, reason in verdicts:
            if reason is not None:
                reasons[reason] = reasons.get(reason, 0) + 1
        bodies = [
            body(Result(order.id, status, reason))
            if want in (Want.ALL, Want.REHEARSED) or (want == Want.FAILED and status != "accepted")
            else None
            for order, (status, reason) in zip(orders, verdicts, strict=True)
        ]
        statuses = bytes([STATUS_NUMBER[status] for status, _ in verdicts])
        return Answers(statuses, bodies, reasons, self.retry_after_s)


class MemoryCatalog:
    """Documents in dictionaries, with the store's rules for versions."""

    def __init__(self) -> None:
        self.kinds: dict[str, dict[str, Versioned]] = {}
        self.past: dict[tuple[str, str], list[Versioned]] = {}
        self.version = 0

    async def get(self, kind: str, id_: str) -> Versioned | None:
        return self.kinds.get(kind, {}).get(id_)

    async def list(self, kind: str) -> dict[str, Versioned]:
        return dict(self.kinds.get(kind, {}))

    async def ids(self, kind: str) -> set[str]:
        return set(self.kinds.get(kind, {}))

    async def put(self, kind: str, id_: str, doc: bytes, who: str, if_match: int | None) -> int:
        return self._change(kind, id_, doc, who, if_match)

    async def delete(self, kind: str, id_: str, who: str, if_match: int | None) -> int:
        return self._change(kind, id_, b"", who, if_match)

    def _change(self, kind: str, id_: str, doc: bytes, who: str, if_match: int | None) -> int:
        documents = self.kinds.setdefault(kind, {})
        current = documents[id_].version if id_ in documents else 0
        if if_match is not None and if_match != current:
            raise VersionMismatch(current)
        if not doc and not current:
            return 0
        self.version += 1
        versioned = Versioned(self.version, 1_700_000_000_000 + self.version, who, doc)
        self.past.setdefault((kind, id_), []).insert(0, versioned)
        if doc:
            documents[id_] = versioned
        else:
            del documents[id_]
        return self.version

    async def history(self, kind: str, id_: str) -> Sequence[Versioned]:
        return self.past.get((kind, id_), [])


class MemoryUsers:
    """Profiles in a dictionary."""

    def __init__(self) -> None:
        self.docs: dict[str, bytes] = {}
        self.failure: Exception | None = None
        self.batches: list[int] = []

    async def get(self, user: str) -> bytes | None:
        return self.docs.get(user)

    async def put(self, user: str, doc: bytes) -> None:
        self.docs[user] = doc

    async def patch(self, user: str, patch: bytes) -> bytes | None:
        if user not in self.docs:
            return None
        merged = _merge(msgspec.json.decode(self.docs[user]), msgspec.json.decode(patch))
        self.docs[user] = msgspec.json.encode(msgspec.convert(merged, StoredUser))
        return self.docs[user]

    async def delete(self, user: str) -> bool:
        return self.docs.pop(user, None) is not None

    async def put_many(self, users: list[tuple[str, bytes]]) -> None:
        if self.failure is not None:
            raise self.failure
        self.batches.append(len(users))
        self.docs.update(users)


def _merge(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    merged = dict(target)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key, {}), value) if isinstance(value, dict) else value
    return merged


class MemoryBlacklist:
    """Entries in a dictionary. `hold` keeps every write waiting while it is cleared."""

    def __init__(self) -> None:
        self.docs: dict[str, bytes] = {}
        self.ends: dict[str, int | None] = {}
        self.batches: list[int] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.failure: Exception | None = None

    async def put_many(self, entries: list[StoredEntry], who: str) -> None:
        await self.hold.wait()
        if self.failure is not None:
            raise self.failure
        self.batches.append(len(entries))
        self.docs.update((entry.id, entry.doc) for entry in entries)
        self.ends.update((entry.id, entry.expires_ms) for entry in entries)

    async def find(self, user: str | None, address: str | None) -> list[tuple[str, bytes]]:
        name, wanted = ("user", user) if user is not None else ("address", address)
        return [(id_, doc) for id_, doc in self.docs.items() if msgspec.json.decode(doc).get(name) == wanted]

    async def get(self, id_: str) -> bytes | None:
        return self.docs.get(id_)

    async def delete(self, id_: str, who: str) -> bool:
        return self.docs.pop(id_, None) is not None


class MemoryOperations:
    """Says what the test wants it to say."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.health: dict[str, Any] = {}

    def ready(self) -> list[str]:
        return self.reasons

    async def topology(self) -> dict[str, Any]:
        return {"nodes": []}

    def metrics(self) -> bytes:
        return b"dispatcher_triggers_total 1\n"

    async def targets(self) -> list[dict[str, Any]]:
        return [{"targets": ["127.0.0.1:1"], "labels": {}}]

    async def provider_health(self, id_: str) -> dict[str, Any] | None:
        return self.health.get(id_)


class MemoryDeadLetters:
    """Answers with what it is given; notes what it was asked for."""

    def __init__(self) -> None:
        self.pages: list[tuple[LetterFilter, str | None, int]] = []
        self.orders: list[ReplayOrder] = []
        self.found = LetterPage()
        self.report = ReplayReport()
        self.failure: Exception | None = None

    async def page(self, wanted: LetterFilter, cursor: str | None, limit: int) -> LetterPage:
        self._check()
        self.pages.append((wanted, cursor, limit))
        return self.found

    async def replay(self, order: ReplayOrder) -> ReplayReport:
        self._check()
        self.orders.append(order)
        return self.report

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure


class MemoryVendor:
    """Says what it is told to; `told` are the calls it heard."""

    def __init__(self) -> None:
        self.calls: list[VendorCall] = []
        self.answer = VendorAnswer(200, "application/json", b'{"code":0}')
        self.failure: Exception | None = None

    async def heard(self, call: VendorCall) -> VendorAnswer:
        self.calls.append(call)
        if self.failure is not None:
            raise self.failure
        return self.answer


class MemoryVendors:
    """Vendors by (provider, secret)."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], MemoryVendor] = {}
        self.addresses: list[str | None] = []

    async def find(self, provider: str, secret: str, address: str | None) -> MemoryVendor | None:
        self.addresses.append(address)
        return self.known.get((provider, secret))


class House:
    """The ports and a client that talks to the server over them."""

    def __init__(self) -> None:
        self.intake = MemoryIntake()
        self.catalog = MemoryCatalog()
        self.users = MemoryUsers()
        self.blacklist = MemoryBlacklist()
        self.operations = MemoryOperations()
        self.letters = MemoryDeadLetters()
        self.vendors = MemoryVendors()
        self.client: aiohttp.ClientSession
        self.runner: web.AppRunner
        self.port = 0

    @property
    def ports(self) -> Ports:
        return Ports(
            self.intake, self.catalog, self.users, self.blacklist, self.operations, self.letters, self.vendors
        )

    async def call(
        self, method: str, path: str, data: Any = None, type_: str = "application/json", **headers: str
    ) -> tuple[int, Any, Any]:
        """Status, headers, and the body: decoded JSON, a list for NDJSON, else bytes."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if data is not None:
            headers["Content-Type"] = type_
            data = data if isinstance(data, bytes) or hasattr(data, "__aiter__") else msgspec.json.encode(data)
            data = BytesIO(data) if isinstance(data, bytes) else data  # aiohttp warns of large bytes
        async with self.client.request(method, path, data=data, headers=headers) as response:
            raw = await response.read()
            content_type = response.content_type
            if content_type == "application/x-ndjson":
                return response.status, response.headers, [msgspec.json.decode(line) for line in raw.splitlines()]
            if content_type.endswith("json"):
                return response.status, response.headers, msgspec.json.decode(raw)
            return response.status, response.headers, raw

    async def stream(self, data: Any, query: str = "", **headers: str) -> tuple[list[Any], dict[str, Any]]:
        """The results of an NDJSON stream by `seq`, and its summary."""
        status, _, lines = await self.call("POST", "/v1/triggers" + query, data, "application/x-ndjson", **headers)
        assert status == 200, lines
        *results, last = lines
        return sorted(results, key=lambda result: int(result["seq"])), last["summary"]


@asynccontextmanager
async def serving(settings: Settings | None = None) -> AsyncIterator[House]:
    """A server on a free port of loopback. At its end no task may be left."""
    house = House()
    before = asyncio.all_tasks()
    app = make_app(house.ports, settings or Settings())
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=2)
    house.runner = runner
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    house.port = runner.addresses[0][1]
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{house.port}") as client:
            house.client = client
            yield house
    finally:
        await runner.cleanup()
    for _ in range(400):
        left = [task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()]
        if not left:
            break
        await asyncio.sleep(0.01)
    assert not left, left


def line(number: int, **fields: Any) -> bytes:
    """One good NDJSON trigger."""
    return msgspec.json.encode({"id": f"t{number}", "user": f"u{number}", "template": "pay_ok", **fields}) + b"\n"
