"""`POST /v1/triggers`: one trigger, an array of them, or a stream."""

import asyncio
from http import HTTPStatus
from typing import Final

import msgspec
from aiohttp import web

from dispatcher.answers import OVERLOADED, Answers, Want
from dispatcher.http.auth import line_of
from dispatcher.http.groups import Group, Sorter
from dispatcher.http.ports import Ports
from dispatcher.http.problem import Problem, json_response, read_body, retry_after
from dispatcher.http.settings import Settings
from dispatcher.http.stream import Stream, submit
from dispatcher.http.wire import JSON, MSGPACK, NDJSON, Bad, MsgpackWire, NdjsonWire, Wire, decode_trigger
from dispatcher.intake import fault_of
from dispatcher.trigger import Trigger

MOST_TRIGGERS: Final = 1_000
_WANTS: Final = {"all": Want.ALL, "failed": Want.FAILED, "none": Want.NONE}
_WIRES: Final[dict[str, type[NdjsonWire] | type[MsgpackWire]]] = {
    NDJSON: NdjsonWire,
    "application/ndjson": NdjsonWire,
    "application/jsonl": NdjsonWire,
    MSGPACK: MsgpackWire,
    "application/msgpack": MsgpackWire,
    "application/vnd.msgpack": MsgpackWire,
}
_raws: Final = msgspec.json.Decoder(list[msgspec.Raw])
_raw: Final = msgspec.json.Decoder(msgspec.Raw)
_UNAVAILABLE: Final = "store_unavailable"


class Triggers:
    """Takes triggers in. `streams` are those that run now."""

    def __init__(self, ports: Ports, settings: Settings) -> None:
        self._ports = ports
        self._settings = settings
        self.streams: set[Stream] = set()

    def stop(self) -> None:
        """Every running stream finishes what it has in hand and ends with its summary."""
        for stream in self.streams:
            stream.stop()

    async def post(self, request: web.Request) -> web.StreamResponse:
        """The handler."""
        want = _want_of(request)
        content_type = request.content_type
        if content_type in _WIRES:
            return await self._stream(request, _WIRES[content_type](), want)
        if content_type == JSON or "Content-Type" not in request.headers:
            return await self._whole(request, Want.REHEARSED if want == Want.REHEARSED else Want.ALL)
        raise Problem(415, f"send {JSON}, {NDJSON} or {MSGPACK}", headers={"Accept-Post": _accepted()})

    def _sorter(self, request: web.Request, want: Want) -> Sorter:
        s = self._settings
        counted = want != Want.REHEARSED
        return Sorter(self._ports.intake, line_of(request), self._new_id, s.region, s.group_orders, counted)

    def _new_id(self) -> str:
        return f"{self._settings.chance.getrandbits(128):032x}"

    async def _stream(self, request: web.Request, wire: Wire, want: Want) -> web.StreamResponse:
        if len(self.streams) >= self._settings.max_streams:
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "too_many_streams", headers={"Retry-After": "1"})
        stream = Stream(self._ports.intake, self._sorter(request, want), wire, want, self._settings)
        self.streams.add(stream)
        try:
            return await stream.run(request)
        finally:
            self.streams.discard(stream)

    # -- a body read whole

    async def _whole(self, request: web.Request, want: Want) -> web.Response:
        body = await read_body(request, self._settings.body_bytes)
        triggers, single = _decode_body(body)
        groups, rejects = self._sorter(request, want).sort(triggers, 0)
        answered = await asyncio.gather(*[submit(self._ports.intake, group, want) for group in groups])
        _refuse(len(triggers), groups, answered, single)
        bodies: list[bytes | None] = [None] * len(triggers)
        for seqs, answers in ((rejects.seqs, rejects.answers(bodies=True)), *_placed(groups, answered)):
            for seq, made in zip(seqs, answers.bodies, strict=True):
                bodies[seq] = made
        results = [b'{"seq":%d,%b}' % (seq, made) for seq, made in enumerate(bodies) if made is not None]
        return json_response(results[0] if single else b"[%b]" % b",".join(results))


def _want_of(request: web.Request) -> Want:
    """The parameters of the request; raises Problem for those that mean nothing."""
    for name, value in request.query.items():
        if name == "results" and value in _WANTS:
            continue
        if name == "dry_run" and value in ("true", "false"):
            continue
        known = {"results": "one of all, failed, none", "dry_run": "true or false"}
        raise Problem(400, "the query cannot be read", [(name, known.get(name, "unknown parameter"))])
    if request.query.get("dry_run") != "true":
        return _WANTS[request.query.get("results", "all")]
    if request.query.get("results", "all") != "all":
        raise Problem(400, "the query cannot be read", [("results", "a dry run shows all results")])
    return Want.REHEARSED


def _decode_body(body: bytes) -> tuple[list[Trigger | Bad], bool]:
    """The triggers of a JSON body, and whether it is one object. Raises Problem."""
    try:
        if body.lstrip(b" \t\r\n")[:1] != b"[":
            if body.lstrip(b" \t\r\n")[:1] not in (b"{", b""):
                raise msgspec.DecodeError("expected an object or an array of objects")
            return [decode_trigger(bytes(_raw.decode(body)))], True
        raws = _raws.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        path, what = fault_of(error, body)
        raise Problem(400, "the body cannot be read", [(path or "body", what)]) from None
    if len(raws) > MOST_TRIGGERS:
        raise Problem(413, f"an array holds at most {MOST_TRIGGERS} triggers; stream more as {NDJSON}")
    return [decode_trigger(bytes(raw)) for raw in raws], False


def _placed(groups: list[Group], answered: list[Answers]) -> list[tuple[list[int], Answers]]:
    return [(group.seqs, answers) for group, answers in zip(groups, answered, strict=True)]


def _refuse(n: int, groups: list[Group], answered: list[Answers], single: bool) -> None:
    """Raises Problem when nothing of the body was taken because of the system's own state."""
    overloaded = sum(answers.statuses.count(OVERLOADED) for answers in answered)
    if not n or overloaded < n:
        return
    reasons = {reason: count for answers in answered for reason, count in answers.reasons.items()}
    retry_after_s = max(answers.retry_after_s for answers in answered)
    headers = {"Retry-After": retry_after(retry_after_s)}
    if _UNAVAILABLE in reasons:
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, _UNAVAILABLE, headers=headers)
    if single:
        raise Problem(HTTPStatus.TOO_MANY_REQUESTS, next(iter(reasons), "overloaded"), headers=headers)


def _accepted() -> str:
    return ", ".join((JSON, NDJSON, MSGPACK))
