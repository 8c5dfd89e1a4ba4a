"""A push goes to all devices of a user: a message each, one slot together, each with an outcome of its own."""

from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from dispatcher.admission import Moment
from dispatcher.entries import End, Settle
from dispatcher.ident import place_of
from dispatcher.message import Message
from dispatcher.partition import Partition
from dispatcher.profile import MOST_DEVICES, Profile, StoredUser, decode_user, profile_of, profile_of_addresses, revived
from dispatcher.rulebook import Rulebook
from dispatcher.user import COUNTED, events_of
from tests.worlds import World

CAP = {"kind": "line_cap", "name": "cap", "limit": 1, "channels": ["push"]}
TEMPLATES: dict[str, Any] = {
    "hello": {"type": "notice", "channels": [{"channel": "push", "title": "hi", "body": "{n}"}]}
}


def user(*tokens: str, dead: tuple[str, ...] = ()) -> StoredUser:
    push = [{"token": token, "app": "main"} for token in tokens]
    return decode_user(msgspec.json.encode({"addresses": {"push": push}, "dead": dead}))


def with_tokens(*tokens: str, dead: tuple[str, ...] = ()) -> Profile:
    return profile_of(user(*tokens, dead=dead), "CN")


def sent(world: World) -> list[Message]:
    return list(world.partition.in_flight.values())


def pushed(world: World, *tokens: str) -> list[Message]:
    """The messages of one trigger to these devices."""
    result = world.submit(world.order("hello", params={"n": "1"}), with_tokens(*tokens))
    assert [(m.channel, m.status) for m in result.messages] == [("push", "accepted")]
    assert sent(world)[0].id == result.messages[0].message  # the answer names the first
    return sent(world)


def slots(world: World) -> int:
    """How many of the user's records count."""
    return sum(event.state == COUNTED for event in events_of(world.partition.users.get("u1", b"")))


def test_all_live_devices_get_one_and_the_cap_counts_one() -> None:
    world = World([CAP], TEMPLATES)
    messages = pushed(world, "t1", "t2", "t3")
    assert [m.to for m in messages] == ["t1", "t2", "t3"]
    assert len({m.id for m in messages}) == 3
    assert {place_of(m.id) for m in messages} == {(world.partition.id, "push")}
    assert [m.slot for m in messages] == [True, False, False]
    assert slots(world) == 1
    assert world.decided(world.order("hello", params={"n": "2"}), with_tokens("t1", "t2")) == "intercepted line_cap"


def test_a_repeated_trigger_names_the_same_message() -> None:
    world = World([], TEMPLATES)
    order = world.order("hello", params={"n": "1"})
    first, again = (world.submit(order, with_tokens("t1", "t2")) for _ in range(2))
    assert again.status == "duplicate"
    assert [m.message for m in again.messages] == [m.message for m in first.messages]
    assert len(sent(world)) == 2


@pytest.mark.parametrize(
    ("profile", "addresses"),
    [
        (with_tokens("t1", "t2", "t3", dead=("t1",)), ["t2", "t3"]),
        (with_tokens("t1", "t2", dead=("t2",)), ["t1"]),
        (with_tokens("t1", "t1", "t2"), ["t1", "t2"]),
        (with_tokens(*[f"t{n}" for n in range(MOST_DEVICES + 3)]), [f"t{n}" for n in range(MOST_DEVICES)]),
        (profile_of_addresses({"push": "named"}, "CN", with_tokens("t1", "t2")), ["named"]),
        (profile_of_addresses({"sms": "13800000000"}, "CN", with_tokens("t1", "t2")), ["t1", "t2"]),
    ],
)
def test_who_gets_one(profile: Profile, addresses: list[str]) -> None:
    world = World([], TEMPLATES)
    world.submit(world.order("hello", params={"n": "1"}), profile)
    assert [m.to for m in sent(world)] == addresses


def test_a_message_for_later_goes_to_the_devices_there_are_then() -> None:
    world = World([], TEMPLATES)
    later_s = world.now_ms / 1000 + 60
    for named in (None, {"push": "named"}):
        order = world.order("hello", params={"n": str(named)}, to=named, send_at=later_s)
        world.submit(order, with_tokens("t1", "t2"))
    assert sent(world) == []
    world.now_ms += 60_000
    for message in list(world.partition.parked.values()):
        world.admission.due(Moment(world.partition, world.now_ms), message, with_tokens("t1", "t3", "t4"))
    assert [m.to for m in sent(world)] == ["t1", "t3", "t4", "named"]
    assert slots(world) == 2


@given(st.integers(2, 5), st.data())
def test_the_slot_is_free_again_only_when_no_device_got_it(n: int, data: st.DataObject) -> None:
    world = World([CAP], TEMPLATES)
    messages = pushed(world, *[f"t{i}" for i in range(n)])
    refunds = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    order = data.draw(st.permutations(range(n)))
    lasts = []
    for step, i in enumerate(order):
        end = End(messages[i].id, "failed" if refunds[i] else "sent", refunds[i])
        ended = world.partition.settle(end)
        assert ended is not None
        assert world.partition.settle(end) is None
        if refunds[i]:
            lasts.append(world.partition.is_last(ended))
        got = any(not refunds[j] for j in order[: step + 1])
        over = step == n - 1
        assert [m.slot for m in sent(world)].count(True) == (0 if got or over else 1)
        assert slots(world) == (0 if over and not got else 1)
        if data.draw(st.booleans()):  # a restart in between changes nothing
            world.partition = copied(world.partition)
    assert sum(lasts) == all(refunds)
    assert not any(lasts[:-1])


def copied(partition: Partition) -> Partition:
    """The partition as its snapshot has it."""
    copy = Partition(partition.id, Rulebook(partition.book.rules))
    for piece in partition.slices(2):
        copy.load(piece)
    return copy


def test_replaying_the_log_gives_the_same_state() -> None:
    world = World([CAP], TEMPLATES)
    first, second, third = pushed(world, "t1", "t2", "t3")
    world.write(Settle(world.now_ms, [End(first.id, "failed", True), End(third.id, "sent", False)]))
    fold = Partition(world.partition.id, Rulebook(world.catalog.rules))
    for entry in world.log:
        fold.apply(entry)
    assert fold.in_flight == world.partition.in_flight
    assert fold.in_flight[second.id].slot is False
    assert list(fold.slices(9)) == list(world.partition.slices(9))


def test_addresses_that_are_registered_anew_are_tried_again() -> None:
    marked = user("t1", "t2", dead=("t1", "t2", "gone"))
    assert revived(marked, ["sms"], "CN").dead == ["t1", "t2"]
    assert revived(marked, ["push"], "CN").dead == []
    assert revived(user("t1"), ["push"], "CN") == user("t1")
