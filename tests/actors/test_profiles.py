"""The profile cache: bounded, and never older than the last write that was answered."""

import asyncio
from random import Random
from typing import Any, cast

import msgspec
import pytest

from actors.profiles import Profiles
from dispatcher.profile import NOBODY, Profile
from dispatcher.store.errors import Away
from tests.actors.fakes import PARTITIONS, MemoryProfiles, MemoryStore, play, turns


def doc(n: int, **more: Any) -> bytes:
    return msgspec.json.encode({"addresses": {"sms": [phone(n)]}, **more})


def phone(n: int) -> str:
    return f"+86138{n:08d}"


class Desk:
    def __init__(self, cache_users: int = 100) -> None:
        self.store = MemoryStore()
        self.behind = MemoryProfiles(self.store)
        self.profiles = Profiles(cast(Any, self.behind), PARTITIONS, "CN", cache_users)

    async def address(self, user: str) -> str | None:
        """Where a decision now would send."""
        fetched = await self.profiles.load([user]) if self.profiles.missing([user]) else {}
        return sms(fetched.get(user) or self.profiles.get(user))


def sms(profile: Profile) -> str | None:
    reach = profile.reach.get("sms")
    return None if reach is None else reach.to


def test_a_profile_is_asked_for_once_and_nobody_too() -> None:
    async def whole() -> None:
        desk = Desk()
        desk.store.profiles["u"] = doc(1)
        for _ in range(3):
            assert await desk.address("u") == phone(1)
            assert await desk.address("nobody") is None
        assert desk.behind.asked == [["u"], ["nobody"]]
        assert desk.profiles.get(None) is NOBODY
        assert desk.profiles.missing([None, "u", "x", "x"]) == ["x"]

    play(whole())


def test_the_cache_keeps_to_its_bound_and_the_answer_does_not_need_it() -> None:
    async def whole() -> None:
        desk = Desk(cache_users=3)
        users = [f"u{i}" for i in range(10)]
        desk.store.profiles = {user: doc(i) for i, user in enumerate(users)}
        loaded = await desk.profiles.load(users)
        assert {user: sms(profile) for user, profile in loaded.items()} == {u: phone(i) for i, u in enumerate(users)}
        assert len(desk.profiles._known) == 3
        await desk.profiles.write([(user, doc(99)) for user in users])
        assert len(desk.profiles._known) == 3

    play(whole())


def test_one_that_others_drove_out_meanwhile_is_asked_for_again() -> None:
    async def whole() -> None:
        desk = Desk(cache_users=2)
        desk.store.profiles = {user: doc(i) for i, user in enumerate("abc")}
        await desk.profiles.load(["a"])
        loaded = await desk.profiles.load(["a", "b", "c"])
        assert {user: sms(profile) for user, profile in loaded.items()} == {
            "a": phone(0), "b": phone(1), "c": phone(2),
        }  # fmt: skip

    play(whole())


@pytest.mark.parametrize("driven_out", [False, True])
def test_a_read_that_began_before_a_write_is_not_believed_after_it(driven_out: bool) -> None:
    async def whole() -> None:
        desk = Desk(cache_users=1)
        desk.store.profiles = {"u": doc(1), "other": doc(7)}
        gate = asyncio.Event()
        desk.behind.read_gates.append(gate)
        reading = asyncio.create_task(desk.address("u"))
        await turns()
        await desk.profiles.write([("u", doc(2))])
        if driven_out:
            assert await desk.address("other") == phone(7)
        gate.set()
        assert await reading == phone(2)
        assert await desk.address("u") == phone(2)

    play(whole())


def test_a_read_during_a_write_is_not_kept() -> None:
    async def whole() -> None:
        desk = Desk()
        gate = asyncio.Event()
        desk.behind.write_gates.append(gate)
        writing = asyncio.create_task(desk.profiles.write([("u", doc(1))]))
        await turns()
        assert await desk.address("u") == phone(1)
        assert desk.profiles.missing(["u"]) == ["u"]
        gate.set()
        await writing
        assert desk.profiles.missing(["u"]) == []

    play(whole())


def test_after_a_write_whose_answer_was_lost_the_store_is_asked() -> None:
    async def whole() -> None:
        desk = Desk()
        await desk.profiles.write([("u", doc(1))])
        desk.behind.write_fails_after = True
        with pytest.raises(Away):
            await desk.profiles.write([("u", doc(2))])
        assert await desk.address("u") == phone(2)

    play(whole())


def test_never_stale_under_interleaved_reads_and_writes(rng: Random) -> None:
    """Numbers are written in order; whoever asks after a write was answered sees that number or a later one."""

    async def whole() -> None:
        desk = Desk(cache_users=2)
        users = ["a", "b", "c", "d"]
        answered = dict.fromkeys(users, 0)
        begun = dict.fromkeys(users, 0)
        desk.store.profiles = {user: doc(0) for user in users}

        def gates() -> None:
            for waiting in (desk.behind.read_gates, desk.behind.write_gates):
                gate = asyncio.Event()
                waiting.append(gate)
                asyncio.get_running_loop().call_later(rng.random() * 0.004, gate.set)

        async def write(user: str) -> None:
            for _ in range(25):
                begun[user] += 1
                number = begun[user]
                gates()
                await desk.profiles.write([(user, doc(number))])
                answered[user] = number
                await asyncio.sleep(rng.random() * 0.003)

        async def read() -> None:
            for _ in range(60):
                wanted = rng.sample(users, rng.randint(1, 4))
                floor = dict(answered)
                gates()
                loaded = await desk.profiles.load(wanted)
                for user in wanted:
                    seen = int((sms(loaded[user]) or "")[6:])
                    assert floor[user] <= seen <= begun[user], f"{user}: {seen}, but {floor[user]} was answered before"
                    assert seen >= answered[user] - 0, f"{user}: {seen} at the answer, {answered[user]} was there"
                await asyncio.sleep(rng.random() * 0.002)

        await asyncio.gather(*(write(user) for user in users), *(read() for _ in range(4)))
        assert len(desk.profiles._known) <= 2

    play(whole())


def test_a_dead_address_is_passed_over_until_the_profile_is_written_anew() -> None:
    async def whole() -> None:
        desk = Desk()
        two = msgspec.json.encode({"addresses": {"sms": [phone(1), phone(2)]}, "tags": {"city": "x"}})
        await desk.profiles.write([("u", two)])
        await desk.profiles.mark_dead("u", phone(1))
        await desk.profiles.mark_dead("u", phone(1))
        assert await desk.address("u") == phone(2)
        stored = msgspec.json.decode(desk.store.profiles["u"])
        assert (stored["dead"], stored["tags"]) == ([phone(1)], {"city": "x"})
        await desk.profiles.mark_dead("u", phone(2))
        assert await desk.address("u") is None
        await desk.profiles.write([("u", two)])
        assert await desk.address("u") == phone(1)
        await desk.profiles.mark_dead("nobody", phone(1))
        assert "nobody" not in desk.store.profiles

    play(whole())


def test_a_dead_push_token_is_marked_alone_and_tried_again_once_it_is_registered_anew() -> None:
    async def whole() -> None:
        desk = Desk()
        tokens = [{"token": f"t{n}", "vendor": "fcm"} for n in range(3)]
        await desk.profiles.write([("u", msgspec.json.encode({"addresses": {"push": tokens}}))])

        async def live() -> list[str]:
            profile = (await desk.profiles.load(["u"]))["u"]
            return [device.to for device in profile.devices or (profile.reach["push"],)]

        assert await live() == ["t0", "t1", "t2"]
        await desk.profiles.mark_dead("u", "t1")
        assert await live() == ["t0", "t2"]
        await desk.profiles.merge("u", {"tags": {"city": "x"}, "addresses": {"email": ["a@example.com"]}})
        await desk.profiles.mark_dead("u", "t0")
        assert await live() == ["t2"]
        await desk.profiles.merge("u", {"addresses": {"push": tokens[:2]}})
        assert await live() == ["t0", "t1"]
        assert "dead" not in msgspec.json.decode(desk.store.profiles["u"])

    play(whole())


def test_marks_and_merges_of_one_user_do_not_undo_each_other() -> None:
    async def whole() -> None:
        desk = Desk()
        ten = msgspec.json.encode({"addresses": {"sms": [phone(i) for i in range(10)]}})
        await desk.profiles.write([("u", ten)])
        await desk.profiles.mark_dead("u", phone(77))  # a trigger's own, not the profile's: nothing to remember
        await asyncio.gather(
            *(desk.profiles.merge("u", {"tags": {f"k{i}": i}}) for i in range(10)),
            *(desk.profiles.mark_dead("u", phone(i)) for i in range(10)),
        )
        stored = msgspec.json.decode(desk.store.profiles["u"])
        assert stored["tags"] == {f"k{i}": i for i in range(10)}
        assert sorted(stored["dead"]) == [phone(i) for i in range(10)]

    play(whole())


@pytest.mark.parametrize(
    ("patch", "tags"),
    [
        ({"tags": {"a": None}}, {"b": {"c": 1}}),
        ({"tags": {"b": {"d": 2}}}, {"a": 1, "b": {"c": 1, "d": 2}}),
        ({"tags": {"b": {"c": None}}}, {"a": 1, "b": {}}),
        ({"tags": {"a": {"x": None, "y": 1}}}, {"a": {"y": 1}, "b": {"c": 1}}),
        ({"tags": {"a": [None, 1]}}, {"a": [None, 1], "b": {"c": 1}}),
        ({"tags": None}, {}),
        ({}, {"a": 1, "b": {"c": 1}}),
    ],
)
def test_merge_patch_is_that_of_rfc_7396(patch: dict[str, Any], tags: dict[str, Any]) -> None:
    async def whole() -> None:
        desk = Desk()
        await desk.profiles.write([("u", doc(1, tags={"a": 1, "b": {"c": 1}}))])
        merged = await desk.profiles.merge("u", patch)
        assert merged == desk.store.profiles["u"]
        assert msgspec.json.decode(merged).get("tags", {}) == tags
        assert await desk.address("u") == phone(1)

    play(whole())


def test_a_patch_that_makes_no_profile_changes_nothing() -> None:
    async def whole() -> None:
        desk = Desk()
        await desk.profiles.write([("u", doc(1))])
        with pytest.raises(msgspec.ValidationError, match=r"addresses\.sms"):
            await desk.profiles.merge("u", {"addresses": {"sms": "one"}})
        assert desk.store.profiles["u"] == doc(1)
        assert await desk.profiles.merge("nobody", {}) is None

    play(whole())
