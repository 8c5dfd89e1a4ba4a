"""Every route of the application, in one table: the server is built from it and so is its description."""

from typing import Any, Final

from aiohttp.typedefs import Handler
from msgspec import Struct

from dispatcher.catalog import DOCUMENTS
from dispatcher.deadletter import ReplayReport
from dispatcher.documents import BlacklistEntry, Keywords, Line, Provider, Template, User
from dispatcher.http.blacklist import BlacklistDocuments
from dispatcher.http.bulk import BulkError, BulkProgress, BulkSummary
from dispatcher.http.callbacks import TEXT as CALLBACK_TEXT
from dispatcher.http.callbacks import VendorPages
from dispatcher.http.catalog import Documents, DocumentVersion
from dispatcher.http.deadletters import LIST_TEXT, QUERY, REPLAY_TEXT, DeadLetterDocuments, LetterList, Replay
from dispatcher.http.operations import OperationsPages
from dispatcher.http.ports import Ports
from dispatcher.http.settings import Settings
from dispatcher.http.triggers import Triggers
from dispatcher.http.users import NamedUser, UserDocuments
from dispatcher.http.wire import JSON, MSGPACK, NDJSON, StreamSummary, TriggerResult
from dispatcher.trigger import Trigger

TEXT: Final = "text/plain"


class Route(Struct, frozen=True):
    """One operation. `takes`: content type -> type of the body; `answers`: status -> type of a good answer,
    or a tuple of types."""

    method: str
    path: str
    handler: Handler
    tag: str
    summary: str
    takes: dict[str, Any] = {}
    answers: dict[int, Any] = {}
    content: str = JSON  # of the good answer
    query: dict[str, str] = {}
    problems: tuple[int, ...] = ()
    streams: tuple[str, ...] = ()  # the content types that are answered by a stream of their own kind
    guarded: bool = False  # takes If-Match
    text: str = ""


PROGRESS: Final = {"progress": "`true`: an NDJSON answer says about once a second how far it is"}
TRIGGER_TEXT: Final = """One trigger (an object), up to 1,000 (an array), or a stream of any length:
`application/x-ndjson`, or concatenated `application/x-msgpack` maps, answered in the same form while it is read: one
result for each, not in order, each with its `seq`; last `{"summary": ...}`. A malformed line costs only itself
(`rejected`, `invalid: <path>: <what>`); a MessagePack framing error ends the stream with a last result that says so.
Only a body that is no JSON is a 400: a trigger with wrong fields is `rejected` in its result. Memory is bounded: a
caller that asks for results must read them while it sends, or its own sending stops; one that cannot should ask for
`results=none`. While the system is overloaded a stream is read more slowly and waits up to 30 s before a trigger is
reported `overloaded`. An address-only trigger belongs to its first good address in the order sms, push, wechat, email,
webhook. A gateway that shuts down ends its streams early: triggers without a result were not taken."""


def routes_of(ports: Ports, settings: Settings, triggers: Triggers) -> list[Route]:
    """The table."""
    return [
        Route(
            "POST", "/v1/triggers", triggers.post, "Triggers", "Send triggers",
            takes={JSON: Trigger | list[Trigger], NDJSON: Trigger, MSGPACK: Trigger},
            answers={200: (TriggerResult, list[TriggerResult], StreamSummary)}, problems=(400, 413, 415, 429, 503),
            query={
                "results": "of a stream: `all` (default), `failed` or `none`",
                "dry_run": "`true`: decide by the live rules and state, change nothing, and explain in each result",
            },
            streams=(NDJSON, MSGPACK), text=TRIGGER_TEXT,
        ),
        *_by_id(Documents("templates", ports, settings), Template, "template"),
        *_by_id(Documents("lines", ports, settings), Line, "business line"),
        *_whole(Documents("rules", ports, settings, whole=True), "rules"),
        *_by_id(Documents("keywords", ports, settings), Keywords, "keyword list"),
        *_by_id(Documents("providers", ports, settings), Provider, "provider"),
        *_whole(Documents("routes", ports, settings, whole=True), "routes"),
        *_blacklist(BlacklistDocuments(ports, settings)),
        *_users(UserDocuments(ports)),
        *_letters(DeadLetterDocuments(ports)),
        *_callbacks(VendorPages(ports, settings)),
        *_operations(OperationsPages(ports)),
    ]  # fmt: skip


def _by_id(documents: Documents, type_: Any, noun: str) -> list[Route]:
    kind = documents.kind
    tag, path = kind.capitalize(), f"/v1/{kind}/{{id}}"
    return [
        Route("GET", f"/v1/{kind}", documents.get_all, tag, f"Every {noun} by its id", answers={200: dict[str, type_]}),
        Route("GET", path, documents.get, tag, f"One {noun}", answers={200: type_}, problems=(404,)),
        Route(
            "PUT", path, documents.put, tag, f"Create or replace a {noun}", takes={JSON: type_},
            answers={200: type_, 201: type_}, problems=(400, 412, 413, 422), guarded=True,
            text="Answered once every shard and router decides by it.",
        ),
        Route(
            "DELETE", path, documents.delete, tag, f"Delete a {noun} that nothing names", answers={204: None},
            problems=(404, 409, 412), guarded=True,
        ),
        Route(
            "GET", f"{path}/versions", documents.versions, tag, f"A {noun}'s history, newest first",
            answers={200: list[DocumentVersion]}, problems=(404,),
        ),
    ]  # fmt: skip


def _whole(documents: Documents, noun: str) -> list[Route]:
    kind = documents.kind
    type_, path, tag = DOCUMENTS[kind][0], f"/v1/{kind}", kind.capitalize()
    return [
        Route("GET", path, documents.get, tag, f"The {noun} in their order", answers={200: type_}),
        Route(
            "PUT", path, documents.put, tag, f"Replace the {noun}", takes={JSON: type_}, answers={200: type_},
            problems=(400, 412, 413, 422), guarded=True,
            text="Answered once every shard and router decides by them.",
        ),
        Route(
            "GET", f"{path}/versions", documents.versions, tag, f"The history of the {noun}, newest first",
            answers={200: list[DocumentVersion]},
        ),
    ]  # fmt: skip


def _blacklist(documents: BlacklistDocuments) -> list[Route]:
    tag, path = "Blacklist", "/v1/blacklist/{id}"
    return [
        Route(
            "POST", "/v1/blacklist", documents.post, tag, "Add an entry, or many as NDJSON",
            takes={JSON: BlacklistEntry, NDJSON: BlacklistEntry},
            answers={201: BlacklistEntry, 200: (BulkError, BulkProgress, BulkSummary)},
            problems=(400, 413, 422), streams=(NDJSON,), query=PROGRESS,
            text="The id follows from whom and what the entry blocks: the same again replaces it. An `id` given is "
            "passed over. NDJSON is answered 200 by a line for each entry that is wrong and a summary.",
        ),
        Route(
            "GET", "/v1/blacklist", documents.find, tag, "The entries of one user or address",
            answers={200: list[BlacklistEntry]}, problems=(400,),
            query={"user": "a user's id", "address": "an address"},
        ),
        Route("GET", path, documents.get, tag, "One entry", answers={200: BlacklistEntry}, problems=(404,)),
        Route("DELETE", path, documents.delete, tag, "Remove an entry", answers={204: None}, problems=(404,)),
    ]  # fmt: skip


def _users(users: UserDocuments) -> list[Route]:
    tag, path = "Users", "/v1/users/{user}"
    return [
        Route("GET", path, users.get, tag, "A user's profile", answers={200: User}, problems=(404,)),
        Route(
            "PUT", path, users.put, tag, "Create or replace a profile", takes={JSON: User}, answers={200: User},
            problems=(400, 413, 422),
        ),
        Route(
            "PATCH", path, users.patch, tag, "Merge into a profile", takes={JSON: User}, answers={200: User},
            problems=(400, 404, 413, 422), text="JSON merge patch (RFC 7396): null removes.",
        ),
        Route("DELETE", path, users.delete, tag, "Forget a profile", answers={204: None}, problems=(404,)),
        Route(
            "POST", "/v1/users", users.post, tag, "Create or replace many profiles", takes={NDJSON: NamedUser},
            answers={200: (BulkError, BulkProgress, BulkSummary)}, content=NDJSON, problems=(400, 415), query=PROGRESS,
            text="Streamed; answered by a line for each profile that is wrong and a summary.",
        ),
    ]  # fmt: skip


def _letters(letters: DeadLetterDocuments) -> list[Route]:
    tag, path = "Dead letters", "/v1/dead-letters"
    return [
        Route(
            "GET", path, letters.find, tag, "Messages that ended without being sent, newest first",
            answers={200: LetterList}, problems=(400, 503), query=QUERY, text=LIST_TEXT,
        ),
        Route(
            "POST", f"{path}/replay", letters.replay, tag, "Send dead letters again", takes={JSON: Replay},
            answers={200: ReplayReport}, problems=(400, 413, 422, 503), text=REPLAY_TEXT,
        ),
    ]  # fmt: skip


def _callbacks(pages: VendorPages) -> list[Route]:
    return [
        Route(
            method, f"/v1/{what}/{{provider}}/{{secret}}", handler, "Callbacks", summary, answers={200: str},
            content="*/*", problems=(403, 404, 413, 503), text=CALLBACK_TEXT,
        )
        for what, handler, summary in (
            ("reports", pages.reports, "A vendor's delivery reports"),
            ("uplinks", pages.uplinks, "What users texted back, from a vendor"),
        )
        for method in ("POST", "GET")
    ]  # fmt: skip


def _operations(pages: OperationsPages) -> list[Route]:
    tag = "Operations"
    known: dict[int, Any] = {200: dict[str, Any]}
    return [
        Route("GET", "/healthz", pages.healthz, tag, "This process is alive", answers=known),
        Route("GET", "/readyz", pages.readyz, tag, "Ready for requests, or why not", answers=known, problems=(503,)),
        Route("GET", "/metrics", pages.metrics, tag, "Metrics of this process", answers={200: str}, content=TEXT),
        Route("GET", "/v1/targets", pages.targets, tag, "Where to scrape", answers={200: list[dict[str, Any]]}),
        Route("GET", "/v1/topology", pages.topology, tag, "Nodes, actors, partitions", answers=known),
    ]
