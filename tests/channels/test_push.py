"""What the push kinds share."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.adapter import NoToken, Reply, Tokened
from channels.push import alike, extras, find_of, intent_of, life_s, number_of, report, tag_of, verdict_of
from dispatcher.ident import message_id
from dispatcher.kinds import BULK
from dispatcher.message import Message
from tests.channels.messages import message
from tests.channels.test_contract import adapter
from tests.channels.vendor import reply

NOW_S = 1_800_000_000.0
OURS = message_id("01J0000000", "A" * 13, 3, "push")
_messages = st.lists(
    st.builds(
        lambda to, title, jump, lane, minute: message(
            "m", "push", to=to, lane=lane, expires_ms=minute * 60_000, fields={"title": title, "body": "b", **jump}
        ),
        st.sampled_from(["t1", "t2", "t3", "t4", "bad!"]),
        st.sampled_from(["x", "y"]),
        st.sampled_from([{}, {"jump": {"kind": "h5", "url": "https://a"}}, {"jump": {"kind": "native", "url": "a://b"}}]),
        st.sampled_from([1, BULK]),
        st.sampled_from([1, 2]),
    ),
    max_size=30,
)


@given(_messages, st.integers(1, 5))
def test_parts_hold_every_place_once_and_only_what_is_alike(messages: list[Message], most: int) -> None:
    parts = alike(messages, most, lambda address: address == "bad!")
    assert sorted(place for part in parts for place in part) == list(range(len(messages)))
    for part in parts:
        assert part == sorted(part)
        assert len(part) <= most
        some = [messages[place] for place in part]
        assert len({one.to for one in some}) == len(some)
        for one in some:
            assert (one.fields, one.lane, one.expires_ms) == (some[0].fields, some[0].lane, some[0].expires_ms)
        assert len(some) == 1 or "bad!" not in {one.to for one in some}


def test_a_thousand_alike_are_one_part() -> None:
    assert alike([message("m", "push", to=f"t{i}") for i in range(1000)], 1000) == [list(range(1000))]


@given(st.lists(st.text(min_size=1, max_size=26), min_size=1, max_size=5, unique=True))
def test_tags_tell_batches_apart(ids: list[str]) -> None:
    batch = [message(id_, "push") for id_ in ids]
    assert tag_of(batch) == tag_of(list(batch))
    assert 0 <= number_of(tag_of(batch)) < 1 << 31
    if len(ids) > 1:
        assert len(tag_of(batch)) == 26
        assert len({tag_of(batch), tag_of(batch[1:]), tag_of(batch[::-1])}) == 3
    else:
        assert tag_of(batch) == ids[0]


def test_extras_name_the_message_only_where_it_is_alone() -> None:
    one, two = message("m1", "push"), message("m2", "push")
    jump = {"jump_kind": "h5", "jump_url": "https://example.com"}
    assert extras([one]) == {"message": "m1", **jump}
    assert extras([one, two]) == jump
    assert extras([message("m1", "push", fields={"title": "a", "body": "b"})]) == {"message": "m1"}


@pytest.mark.parametrize(("expires_s", "life"), [(NOW_S + 90.9, 90), (NOW_S - 5, 1), (NOW_S + 1e7, 3600)])
def test_it_lives_until_the_first_expires(expires_s: float, life: int) -> None:
    batch = [message("m", "push", expires_ms=int(expires_s * 1000) + late) for late in (5_000_000_000, 0)]
    assert life_s(batch, NOW_S, 3600) == life


@pytest.mark.parametrize(
    ("url", "intent"),
    [
        ("app://order/1?a=b", "intent://order/1?a=b#Intent;scheme=app;end"),
        ("intent://x#Intent;scheme=s;end", "intent://x#Intent;scheme=s;end"),
        ("com.example.Activity", "com.example.Activity"),
    ],
)
def test_intents(url: str, intent: str) -> None:
    assert intent_of(url) == intent


def test_a_report_names_our_id_or_what_the_receipt_named() -> None:
    ours = report("p1", ("delivered", False), OURS, "r", "token", "0", "1700000000000")
    assert (ours.id, ours.find, ours.to, ours.code, ours.at_ms) == (OURS, None, "token", None, 1_700_000_000_000)
    theirs = report("p1", ("undelivered", True), "tag", "r", "token", "5", None)
    assert (theirs.id, theirs.find, theirs.code) == (None, find_of("r", "token"), "5")
    assert (theirs.at_ms, theirs.dead) == (0, True)
    assert find_of("r", "token") != find_of("r", "other")


@pytest.mark.parametrize(
    ("status", "said", "answer"),
    [(200, "", "unknown"), (200, "7", "rejected"), (500, "7", "transient"), (400, "1", "auth"), (404, "", "rejected")],
)
def test_codes_go_before_statuses(status: int, said: str, answer: str) -> None:
    found: Any = verdict_of(reply(status, {}), said, {"1": "auth"}, NOW_S)
    assert found.answer == answer

_NAMES = (
    *("code", "msg", "data", "error", "details", "errorCode", "status", "message", "result", "id", "name", "msg_id"),
    *("requestId", "t0", "t1", "T1", "token", "access_token", "expires_in", "expire_time", "fieldViolations"),
)
_words = st.none() | st.booleans() | st.integers() | st.text(max_size=6)
_shapes = st.recursive(
    _words | st.sampled_from(["80100000", "80000000", "10001", "UNREGISTERED", '{"illegalTokens":{"x":[1,"t0"]}}']),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(_NAMES),
        inner,
        max_size=5,
    ),
    max_leaves=20,
)


@pytest.mark.parametrize("kind", ["fcm", "getui", "huawei_push", "jpush", "xiaomi"])
@given(status=st.sampled_from([200, 200, 200, 400, 401, 403, 429, 503]), said=_shapes, count=st.integers(1, 2))
def test_replies_of_the_vendors_own_shape_but_of_any_content(kind: str, status: int, said: Any, count: int) -> None:
    made: Any = adapter(kind)
    batch = [message(f"m{i}", "push", to=f"t{i}") for i in range(count)]
    told = made.receipts(batch, reply(status, said), NOW_S)
    assert [receipt.id for receipt in told] == [one.id for one in batch]
    msgspec.msgpack.encode(told)
    if isinstance(made, Tokened):
        assert made.is_stale(reply(status, said)) in (True, False)
        assert granted(made, reply(status, said)) in ("a token", "auth", "transient", "throttled")


def granted(made: Tokened, said: Reply) -> str:
    try:
        token = made.token_of(said, NOW_S)
    except NoToken as none:
        return none.answer
    return "a token" if token.expires_s > NOW_S else "one that ran out"
