"""Whatever vendors post, deliver or answer is read, passed over or refused by every kind: nothing else; and nothing
unsigned is believed. `make fuzz` gives each test 10,000 inputs."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channels import ADAPTERS
from channels.adapter import Reply
from channels.answers import LONGEST_WORD
from channels.kind import Callback, Heard, Missing, NotTrue
from channels.poll import Polled, State
from channels.smpp.ids import Ids
from channels.smpp.mail import Mail
from channels.smpp.pdu import DELIVER_SM, UDHI, Pdu, ShortMessage
from channels.smpp.status import CODES
from dispatcher.ident import place_of
from dispatcher.report import RANKS, Report
from tests.channels.mutations import mutated
from tests.channels.posts import POSTS, Post
from tests.channels.test_contract import adapter
from tests.support import run

#: Kinds whose vendors are asked for reports, whose deliver them over a connection of ours, and whose say nothing later.
POLLED = {"jpush": (b'{"a":{"status":0},"b":{"status":4}}', b'{"error":{"code":1011,"message":"no"}}')}
DELIVERED = {"smpp"}
SILENT = {"apns", "dingtalk", "fcm", "feishu", "smtp", "wecom", "wecom_robot"}
#: `make test` has little time, and most of these bodies go through the vendor's own test as well.
MANY = settings.default.max_examples
examples = settings(max_examples=MANY if MANY > 1_000 else 40)
WAYS = [pytest.param(kind, post, id=f"{kind}-{n}") for kind, posts in POSTS.items() for n, post in enumerate(posts)]
LONGEST_TEXT = 4_096


def heard(kind: str, post: Post, call: Callback) -> list[Heard]:
    """What both addresses make of it; what is refused says nothing."""
    callbacks = ADAPTERS[kind].callbacks
    assert callbacks is not None
    told = []
    for read in (callbacks.reports, callbacks.uplinks):
        with contextlib.suppress(NotTrue, Missing):
            told.append(read("p1", call, post.options))
    return told


def check(told: Heard) -> None:
    assert told.status in (200, 400, 404)
    assert told.status == 200 or (not told.items and told.visit is None)
    assert told.visit is None or told.visit.startswith("https://sns.")
    for item in told.items:
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(item), type=type(item)) == item
        assert item.provider == "p1"
        assert 0 <= item.at_ms < 1 << 53
        if isinstance(item, Report):
            assert item.status in RANKS
            assert item.id is not None or item.find
            assert item.id is None or place_of(item.id) is not None
            # A find may be a reference and a number, or a reference and a hash.
            assert max(len(item.find or ""), len(item.code or ""), len(item.to or "")) <= 2 * LONGEST_WORD + 1
            assert item.to != ""
        else:
            assert item.sender
            assert max(len(item.text), len(item.sender), len(item.to), len(item.key)) <= LONGEST_TEXT


def test_every_kind_is_here() -> None:
    assert set(POSTS) == {kind for kind, one in ADAPTERS.items() if one.callbacks is not None}
    assert set(POLLED) == {kind for kind, one in ADAPTERS.items() if one.build and isinstance(adapter(kind), Polled)}
    assert sorted([*POSTS, *POLLED, *DELIVERED, *SILENT]) == sorted(ADAPTERS)


@pytest.mark.parametrize(("kind", "post"), WAYS)
def test_the_samples_are_understood(kind: str, post: Post) -> None:
    for sample in post.samples:
        told = [one for one in heard(kind, post, post.seal(sample)) if one.items or one.visit]
        assert told
        for one in told:
            check(one)


@pytest.mark.parametrize(("kind", "post"), WAYS)
@examples
@given(data=st.data())
def test_any_body(kind: str, post: Post, data: Any) -> None:
    body = data.draw(mutated(post.samples))
    for told in heard(kind, post, post.seal(body)):
        check(told)
    if post.forge is not None:
        for told in heard(kind, post, post.forge(body)):
            assert told.status in (400, 404)
            assert not told.items


_text = st.text(st.characters(codec=None), max_size=12)
_words = _text | st.sampled_from(["\udcff", "é", "0" * 40, "1e9", "9" * 30, "-1", "v1,", ";", "=", "timestamp=1; non"])
_urls = st.sampled_from(["https://[::1/v1/reports/p1/s", "https://a:99999999/v1/x?a=\udcff", "", "https://a]/é", "//"])


@pytest.mark.parametrize(("kind", "post"), [way for way in WAYS if way.values[1].forge is not None])
@examples
@given(at=st.integers(0, 9), name=st.booleans(), value=_words, url=st.none() | _urls, data=st.data())
def test_any_header(kind: str, post: Post, at: int, name: bool, value: str, url: str | None, data: Any) -> None:
    """One header or query field changed, perhaps that of the signature, perhaps the address as well."""
    true = post.seal(data.draw(st.sampled_from(post.samples)))
    fields = [(where, field) for where in ("headers", "query") for field in getattr(true, where)]
    if post.signature and name:
        fields = [one for one in fields if one[1] == post.signature]
    if not fields:
        return
    where, field = fields[at % len(fields)]
    known = getattr(true, where)
    if where == "headers":
        value = value.replace("\r", "").replace("\n", "")
    changed = msgspec.structs.replace(true, **{where: {**known, field: value}})
    if url is not None:
        changed = msgspec.structs.replace(changed, url=url)
    told = heard(kind, post, changed)
    for one in told:
        check(one)
    if field == post.signature and value != known[field]:
        assert not any(one.items for one in told)


@pytest.mark.parametrize("kind", sorted(POLLED))
@examples
@given(data=st.data(), status=st.sampled_from([200, 200, 200, 429, 500]))
def test_any_polled_states(kind: str, data: Any, status: int) -> None:
    polled = adapter(kind)
    assert isinstance(polled, Polled)
    told = polled.states(["a", "b"], Reply(status, {}, data.draw(mutated(POLLED[kind]))))
    assert set(told) <= {"a", "b"}
    assert all(isinstance(one, State) and one.status in RANKS for one in told.values())


RECEIPT = b"id:0A sub:001 dlvrd:001 submit date:2611240101 done date:2611240102 stat:UNDELIV err:012 text:hi"
_PARTS = ({"esm_class": UDHI}, b"\x05\0\x03\x07\x02\x01hi"), ({"esm_class": UDHI}, b"\x06\x08\x04\0\x07\x02\x02hi")
DELIVERIES = tuple(
    ShortMessage("8613800000000", "10690000", text, 1, 1, **changes).encode()
    for changes, text in (
        ({"esm_class": 4}, RECEIPT),
        ({"esm_class": 4, "tlvs": {0x1E: b"0a\0", 0x0427: b"\x02", 0x0423: b"\x03\0\0"}}, b""),
        ({"coding": 8}, "退订😀".encode("utf-16-be")),
        ({}, b"STOP \x1be"),
        *_PARTS,
        ({"tlvs": {0x020C: b"\0\x07", 0x020E: b"\x02", 0x020F: b"\x01"}}, b"part"),
        ({"tlvs": {0x0424: "退订".encode("utf-16-be") * 90}, "coding": 8}, b""),
    )
)


class _Centre:
    """A session that keeps what it was answered."""

    def __init__(self, wanted: int) -> None:
        self.answers: list[tuple[int, int]] = []
        self.done = asyncio.Event()
        self._wanted = wanted

    def answer(self, request: Pdu, status: int = 0) -> None:
        self.answers.append((request.sequence, status))
        if len(self.answers) == self._wanted:
            self.done.set()


@examples
@given(st.lists(mutated(DELIVERIES), min_size=1, max_size=3))
def test_any_smpp_delivery(bodies: list[bytes]) -> None:
    """Each is answered once, and what is kept can travel."""
    kept: list[Any] = []

    async def inbox(items: Any) -> None:
        kept.extend(items)

    async def whole() -> None:
        mail, one = Mail("p1", Ids()), _Centre(len(bodies))
        mail.inbox = inbox
        running = asyncio.create_task(mail.run())
        for sequence, body in enumerate(bodies):
            mail.take(one, Pdu(DELIVER_SM, 0, sequence, body))  # type: ignore[arg-type]
        await one.done.wait()
        running.cancel()
        assert sorted(sequence for sequence, _ in one.answers) == list(range(len(bodies)))
        assert {status for _, status in one.answers} <= {0, CODES["RX_P_APPN"]}

    with unlogged("channels.smpp.mail"):
        run(whole())
    check(Heard(kept))


@contextlib.contextmanager
def unlogged(name: str) -> Iterator[None]:
    """Fails when this logger is told of a bug."""
    records: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger(name).addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger(name).removeHandler(handler)
    assert records == []
