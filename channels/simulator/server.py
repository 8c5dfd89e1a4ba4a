"""Many simulated providers in one process: `POST /p/{name}` takes messages, the other addresses control and read."""

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec

from channels.simulator.behaviour import Behaviour, BehaviourError, patched
from channels.simulator.http import Connection, HeaderConnection, Outgoing
from channels.simulator.journal import Journal
from channels.simulator.provider import Accepted, SimulatedProvider
from channels.simulator.reports import Reporter
from channels.webhook import signing_key

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NDJSON: Final = b"application/x-ndjson"


def problem(status: int, title: str, errors: Iterable[tuple[str, str]] = ()) -> Outgoing:
    """An RFC 9457 problem document."""
    document: dict[str, Any] = {"type": "about:blank", "title": title, "status": status}
    listed = [{"path": path, "message": message} for path, message in errors]
    if listed:
        document["errors"] = listed
    return Outgoing(status, msgspec.json.encode(document), b"application/problem+json")


def _json(value: Any, status: int = 200) -> Outgoing:
    return Outgoing(status, msgspec.json.encode(value))


class Simulator:
    """The providers of one process and their journal; `serve` answers any request and never raises."""

    def __init__(self, journal: Journal, seed: int, secret: str | None = None) -> None:
        self._journal = journal
        self._seed = seed
        self._key = signing_key(secret) if secret is not None else None
        self._by_path: dict[bytes, SimulatedProvider] = {}
        self._providers: dict[str, SimulatedProvider] = {}
        self._reporters: dict[str, Reporter] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def connection(self, connections: set[Connection]) -> Connection:
        """A protocol for one client; headers are read only where a signature must be checked."""
        return (Connection if self._key is None else HeaderConnection)(self.serve, connections)

    def add(self, name: str) -> SimulatedProvider:
        """A provider of this name. Raises ValueError for a name that does not fit a path."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"provider name {name!r}: 1 to 64 of A-Z a-z 0-9 . _ -")
        rng = Random(f"{self._seed}:{name}")
        provider = SimulatedProvider(name, self._journal, rng, self._key, partial(self._report, name))
        self._providers[name] = provider
        self._by_path[f"/p/{name}".encode()] = provider
        return provider

    def _report(self, name: str, accepted: Sequence[Accepted]) -> None:
        reports = self._providers[name].behaviour.reports
        assert reports is not None
        if name not in self._reporters:
            reporter = self._reporters[name] = Reporter(Random(f"{self._seed}:{name}:reports"))
            self._tasks.add(asyncio.get_running_loop().create_task(reporter.run()))
        self._reporters[name].put(accepted, reports)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._journal.close()

    def serve(self, method: bytes, target: bytes, headers: Mapping[str, str], body: bytes) -> Outgoing:
        if method == b"POST":
            provider = self._by_path.get(target) or self._by_path.get(target.partition(b"?")[0])
            if provider is not None:
                return provider.answer(headers, body, time.time())
        return self._control(method.decode("latin-1"), target.decode("latin-1"), body)

    def _control(self, method: str, target: str, body: bytes) -> Outgoing:
        path, _, query = target.partition("?")
        match method, path.strip("/").split("/"):
            case "GET", ["healthz"]:
                return _json({"status": "ok"})
            case "GET", ["stats"]:
                return _json({name: self._stats(name) for name in self._providers})
            case "GET", ["journal"]:
                return self._read_journal(None, query)
            case "DELETE", ["journal"]:
                return self._forget()
            case "PUT", ["p", name, "behaviour"]:
                return self._replace(name, body)
            case method, ["p", name, *rest]:
                return self._control_provider(method, name, rest, query, body)
        return problem(404, "no such address")

    def _control_provider(self, method: str, name: str, rest: list[str], query: str, body: bytes) -> Outgoing:
        provider = self._providers.get(name)
        if provider is None:
            return problem(404, f"no provider {name!r}")
        match method, rest:
            case "GET", ["behaviour"]:
                return _json(provider.behaviour)
            case "PATCH", ["behaviour"]:
                return self._patch(provider, provider.behaviour, body)
            case "GET", ["journal"]:
                return self._read_journal(name, query)
            case "GET", ["stats"]:
                return _json(self._stats(name))
        return problem(404, "no such address")

    def _replace(self, name: str, body: bytes) -> Outgoing:
        if not _NAME.fullmatch(name):
            return problem(422, "bad provider name", [("name", "1 to 64 of A-Z a-z 0-9 . _ -")])
        known = self._providers.get(name)
        if known is not None:
            return self._patch(known, Behaviour(), body)
        out = self._patch(provider := self.add(name), Behaviour(), body, status=201)
        if out.status != 201:
            del self._providers[name], self._by_path[f"/p/{provider.name}".encode()]
        return out

    def _patch(self, provider: SimulatedProvider, start: Behaviour, body: bytes, status: int = 200) -> Outgoing:
        try:
            provider.behaviour = patched(start, msgspec.json.decode(body) if body.strip() else {})
        except BehaviourError as error:
            return problem(422, "bad behaviour", [(error.path, error.message)])
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return problem(400, "unreadable JSON")
        return _json(provider.behaviour, status)

    def _read_journal(self, name: str | None, query: str) -> Outgoing:
        wanted = parse_qs(query).get("accepted", ["0"])[-1].lower()
        return Outgoing(200, self._journal.chunks(name, wanted in ("1", "true")), _NDJSON)

    def _forget(self) -> Outgoing:
        self._journal.forget()
        for reporter in self._reporters.values():
            reporter.forget()
        return _json({})

    def _stats(self, name: str) -> dict[str, Any]:
        reporter = self._reporters.get(name)
        sent, dropped = (reporter.sent, reporter.dropped) if reporter is not None else (0, 0)
        return {**self._journal.stats(name), "reports_sent": sent, "reports_dropped": dropped}


async def run(
    host: str,
    port: int,
    providers: Sequence[str],
    *,
    journal: Path | None = None,
    seed: int = 0,
    secret: str | None = None,
    on_ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serves until cancelled. `on_ready` gets the address. Raises ValueError for a bad name or secret."""
    simulator = Simulator(Journal(journal), seed, secret)
    for name in providers:
        simulator.add(name)
    connections: set[Connection] = set()
    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_server(partial(simulator.connection, connections), host, port, backlog=1024)
        try:
            at, bound = server.sockets[0].getsockname()[:2]
            on_ready(f"http://{f'[{at}]' if ':' in at else at}:{bound}")
            await asyncio.Event().wait()
        finally:
            server.close()
            for connection in list(connections):
                connection.close()
    finally:
        await simulator.stop()
