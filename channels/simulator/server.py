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
from channels.simulator.door import Door
from channels.simulator.http import Connection, HeaderConnection, Outgoing
from channels.simulator.journal import Journal
from channels.simulator.play import Play
from channels.simulator.provider import Accepted, SimulatedProvider
from channels.simulator.reports import Reporter
from channels.simulator.scenario import Order, names, read_order, shipped
from channels.standard_webhooks import signing_key

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
        self._plays: dict[str, Play] = {}
        self._doors: dict[str, Door] = {}
        self._open_door: Callable[[], Door] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""

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
        if self._open_door is not None:
            self._doors[name] = self._open_door()
            self._doors[name].set(True)
        return provider

    def give_doors(self, host: str, family: int) -> None:
        """From now on every provider listens on a port of its own too."""
        self._open_door = lambda: Door(host, family, self.connection)

    def play(self, name: str, order: Order) -> Play:
        """Begin this scenario, in place of another. Raises BehaviourError."""
        if name not in self._providers:
            raise BehaviourError("", f"no provider {name!r}")
        provider, old = self._providers[name], self._plays.get(name)
        base = provider.behaviour if old is None else old.base
        play = Play(order, base, partial(self._show, provider))
        if old is not None:
            old.stop()
        provider.use_chance(Random(f"{self._seed}:{name}:{order.seed}"))
        self._plays[name] = play
        play.go_on()
        return play

    def _show(self, provider: SimulatedProvider, behaviour: Behaviour) -> None:
        """This is how it behaves from now on."""
        provider.behaviour = behaviour
        door = self._doors.get(provider.name)
        if door is not None:
            door.set(not behaviour.refuse)

    def _report(self, name: str, accepted: Sequence[Accepted]) -> None:
        if name not in self._reporters:
            reporter = self._reporters[name] = Reporter(Random(f"{self._seed}:{name}:reports"), self._key)
            self._tasks.add(asyncio.get_running_loop().create_task(reporter.run()))
        self._reporters[name].put(accepted, self._providers[name].behaviour)

    async def settled(self) -> None:
        """Every door is as it is wanted."""
        for door in self._doors.values():
            await door.settled()

    async def stop(self) -> None:
        for play in self._plays.values():
            play.stop()
        for door in self._doors.values():
            await door.close()
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
            case "GET", [what]:
                return self._read(what, query)
            case "DELETE", ["journal"]:
                return self._forget()
            case "PUT", ["p", name, "behaviour"]:
                return self._replace(name, body)
            case method, ["p", name, *rest]:
                return self._control_provider(method, name, rest, query, body)
        return problem(404, "no such address")

    def _read(self, what: str, query: str) -> Outgoing:
        """What is to be read of all providers together."""
        match what:
            case "healthz":
                return _json({"status": "ok"})
            case "stats":
                return _json({name: self._stats(name) for name in self._providers})
            case "providers":
                return _json({name: {"url": self._url_of(name)} for name in self._providers})
            case "scenarios":
                return _json({name: shipped(name) for name in names()})
            case "journal":
                return self._read_journal(None, query)
        return problem(404, "no such address")

    def _control_provider(self, method: str, name: str, rest: list[str], query: str, body: bytes) -> Outgoing:
        provider = self._providers.get(name)
        if provider is None:
            return problem(404, f"no provider {name!r}")
        match method, rest:
            case "GET", ["behaviour"]:
                return _json(self._base(provider))
            case "PATCH", ["behaviour"]:
                return self._patch(provider, body)
            case _, ["scenario"]:
                return self._control_scenario(method, name, body)
            case "GET", ["journal"]:
                return self._read_journal(name, query)
            case "GET", ["stats"]:
                return _json(self._stats(name))
        return problem(404, "no such address")

    def _control_scenario(self, method: str, name: str, body: bytes) -> Outgoing:
        play = self._plays.get(name)
        try:
            if method == "PUT":
                return _json(self.play(name, read_order(body)).state())
        except BehaviourError as error:
            return problem(422, "bad scenario", [(error.path, error.message)])
        except ValueError:
            return problem(400, "neither JSON nor TOML")
        if play is None:
            return problem(404, "no scenario was asked for")
        match method:
            case "GET":
                return _json(play.state())
            case "DELETE":
                play.stop()
                return _json(play.state())
        return problem(404, "no such address")

    def _base(self, provider: SimulatedProvider) -> Behaviour:
        """A provider's own behaviour, which a scenario may hide for a while."""
        play = self._plays.get(provider.name)
        return provider.behaviour if play is None else play.base

    def _url_of(self, name: str) -> str:
        door = self._doors.get(name)
        return f"{self.url if door is None else door.url}/p/{name}"

    def _replace(self, name: str, body: bytes) -> Outgoing:
        if not _NAME.fullmatch(name):
            return problem(422, "bad provider name", [("name", "1 to 64 of A-Z a-z 0-9 . _ -")])
        new = self._patched(Behaviour(), body)
        if isinstance(new, Outgoing):
            return new
        known = self._providers.get(name)
        return self._used(known or self.add(name), new, 200 if known is not None else 201)

    def _patch(self, provider: SimulatedProvider, body: bytes) -> Outgoing:
        new = self._patched(self._base(provider), body)
        return new if isinstance(new, Outgoing) else self._used(provider, new)

    def _used(self, provider: SimulatedProvider, own: Behaviour, status: int = 200) -> Outgoing:
        """This is its own behaviour from now on; a scenario goes on over it."""
        play = self._plays.get(provider.name)
        try:
            if play is None:
                self._show(provider, own)
            else:
                play.use(own)
        except BehaviourError as error:
            return problem(422, "bad behaviour under the scenario", [(error.path, error.message)])
        return _json(own, status)

    def _patched(self, start: Behaviour, body: bytes) -> Behaviour | Outgoing:
        """The behaviour that a body makes of another, or what is wrong with the body."""
        try:
            return patched(start, msgspec.json.decode(body) if body.strip() else {})
        except BehaviourError as error:
            return problem(422, "bad behaviour", [(error.path, error.message)])
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return problem(400, "unreadable JSON")

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
    own_ports: bool = False,
    scenarios: Mapping[str, Order] | None = None,
    on_ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serves until cancelled. `on_ready` gets the address. Raises ValueError for a bad name or secret, and
    BehaviourError for a scenario that cannot be. `scenarios` begin at once, each at the provider of that name.
    """
    simulator = Simulator(Journal(journal), seed, secret)
    connections: set[Connection] = set()
    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_server(partial(simulator.connection, connections), host, port, backlog=1024)
        try:
            at, bound = server.sockets[0].getsockname()[:2]
            simulator.url = f"http://{f'[{at}]' if ':' in at else at}:{bound}"
            if own_ports:
                simulator.give_doors(at, server.sockets[0].family)
            for name in providers:
                simulator.add(name)
            for name, order in (scenarios or {}).items():
                simulator.play(name, order)
            await simulator.settled()
            on_ready(simulator.url)
            await asyncio.Event().wait()
        finally:
            server.close()
            for connection in list(connections):
                connection.close()
    finally:
        await simulator.stop()
