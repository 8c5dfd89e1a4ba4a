"""A scripted dispatcher: remembers ids as the real one does, and fails where it is told to."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web

from tests.support import until

STATUSES = ("accepted", "filtered", "intercepted", "rejected", "duplicate", "overloaded")


@dataclass
class Step:
    """What one request meets."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    document: dict[str, Any] | None = None
    read: int | None = None  # stop after so many lines
    answer: int | None = None  # and answer only so many of them
    torn: bytes = b""  # sent last, without a line feed
    summarise: bool = False  # end with a summary although more lines would come
    garbage: bytes = b""  # sent instead of any result
    newest_first: bool = False
    gate: asyncio.Event | None = None  # answers wait for it


class FakeDispatcher:
    """Answers `POST /v1/triggers` and keeps documents."""

    def __init__(self, *script: Step) -> None:
        self.script = list(script)
        self.requests: list[list[dict[str, Any]]] = []
        self.wants: list[str] = []
        self.keys: list[str | None] = []
        self.memory: dict[tuple[Any, Any], dict[str, Any]] = {}
        self.documents: dict[str, Any] = {}
        self.peers: set[Any] = set()  # one for each connection
        self.read_count = 0
        self.url = ""

    async def triggers(self, request: web.Request) -> web.StreamResponse:
        step = self.script.pop(0) if self.script else Step()
        self.peers.add(request.transport.get_extra_info("peername") if request.transport else None)
        self.keys.append(request.headers.get("Authorization"))
        if step.status != 200:
            return web.json_response(step.document or {"title": "no"}, status=step.status, headers=step.headers)
        if request.content_type == "application/json":
            return await self.one(request, step)
        return await self.streamed(request, step)

    async def one(self, request: web.Request, step: Step) -> web.StreamResponse:
        result = self.decide(msgspec.json.decode(await request.read()))
        if step.read is not None:
            cut(request)
        return web.json_response({"seq": 0, **result})

    async def streamed(self, request: web.Request, step: Step) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        if step.garbage:
            await response.write(step.garbage)
            return response
        lines: list[dict[str, Any]] = []
        self.requests.append(lines)
        self.wants.append(request.query["results"])
        results = await self.read_lines(request, response, step, lines)
        if step.newest_first:
            for result in reversed(results):
                await self.write(response, result)
        if step.torn:
            await response.write(step.torn)
        if step.read is not None and not step.summarise:
            cut(request)
            return response
        counts = {status: sum(r["status"] == status for r in results) for status in STATUSES}
        await self.write(response, {"summary": {"total": len(lines), **counts, "reasons": {}}})
        return response

    async def read_lines(
        self, request: web.Request, response: web.StreamResponse, step: Step, lines: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        results: list[dict[str, Any]] = []
        while step.read is None or len(lines) < step.read:
            raw = await request.content.readline()
            if not raw:
                break
            lines.append(msgspec.json.decode(raw))
            self.read_count += 1
            if step.gate is not None:
                await step.gate.wait()
            result = {"seq": len(lines) - 1, **self.decide(lines[-1])}
            results.append(result)
            unsaid = step.newest_first or (step.answer is not None and len(results) > step.answer)
            if not unsaid and (request.query["results"] == "all" or result["status"] != "accepted"):
                await self.write(response, result)
        return results

    def decide(self, trigger: dict[str, Any]) -> dict[str, Any]:
        key = (trigger["id"], trigger.get("user"))
        if (first := self.memory.get(key)) is not None:
            said = {name: first[name] for name in ("status", "reason")}
            return {**first, "status": "duplicate", "reason": None, "first": said}
        status, _, reason = str(trigger.get("template", "")).partition("/")
        answer = {
            "id": trigger["id"],
            "status": status if status in STATUSES else "accepted",
            "reason": reason or None,
            "messages": [{"message": f"m-{trigger['id']}", "channel": "sms", "status": "accepted", "due": None}],
        }
        if answer["status"] not in ("rejected", "overloaded"):
            self.memory[key] = answer
        return answer

    async def write(self, response: web.StreamResponse, line: dict[str, Any]) -> None:
        await response.write(msgspec.json.encode(line) + b"\n")

    async def document(self, request: web.Request) -> web.StreamResponse:
        step = self.script.pop(0) if self.script else Step()
        if step.status != 200:
            return web.json_response(step.document, status=step.status, headers=step.headers)
        if request.method == "PUT":
            self.documents[request.raw_path] = await request.json()
            if step.read is not None:
                cut(request)
            return web.json_response({"version": len(self.documents)})
        if request.method == "DELETE":
            self.documents.pop(request.raw_path)
            return web.Response(status=204)
        return web.json_response(self.documents[request.raw_path])

    async def users(self, request: web.Request) -> web.StreamResponse:
        out = []
        total = 0
        async for raw in request.content:
            user = msgspec.json.decode(raw)
            if "bad" in user["user"]:
                out.append({"seq": total, "error": "invalid: addresses", "id": user["user"]})
            else:
                self.documents[user["user"]] = user
            total += 1
        out.append({"summary": {"total": total, "failed": len(out)}})
        return web.Response(body=b"".join(msgspec.json.encode(line) + b"\n" for line in out))


def cut(request: web.Request) -> None:
    """Ends the connection after what was written."""
    assert request.transport is not None
    request.transport.close()


@asynccontextmanager
async def serving(*script: Step) -> AsyncIterator[FakeDispatcher]:
    """A scripted dispatcher on a free port; afterwards no task of the test may be left."""
    tasks = asyncio.all_tasks()
    fake = FakeDispatcher(*script)
    app = web.Application()
    app.router.add_post("/v1/triggers", fake.triggers)
    app.router.add_post("/v1/users", fake.users)
    app.router.add_route("*", "/v1/{path:.*}", fake.document)
    runner = web.AppRunner(app, shutdown_timeout=0.1, lingering_time=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield fake
    finally:
        await runner.cleanup()
    await until(lambda: asyncio.all_tasks() <= tasks, f"no leaked tasks: {asyncio.all_tasks() - tasks}", 5)


@asynccontextmanager
async def raw_server(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]],
) -> AsyncIterator[str]:
    """Anything that listens on TCP; yields its url."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()
