"""Calls between actors over sockets: every call gets its own answer, or says that the peer is gone."""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.ports import PeerAbsent, PeerGone
from actors.wire import _HEAD, MOST_BYTES, Address, CallFailed, Frames, Listener, Oversize, Wire, wired
from tests.actors.fakes import play
from tests.support import run, until

ROOT = Path(__file__).resolve().parents[2]


class Role:
    """Something with methods to call."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.begun = 0
        self.ended = 0

    async def double(self, batch: bytes) -> bytes:
        return batch * 2

    async def held(self, batch: bytes) -> bytes:
        self.begun += 1
        await self.gate.wait()
        self.ended += 1
        return batch

    async def broken(self, batch: bytes) -> bytes:
        raise KeyError("no such thing")

    async def surrogates(self, batch: bytes) -> bytes:
        raise ValueError("\ud800")

    async def gives_up(self, batch: bytes) -> bytes:
        raise asyncio.CancelledError

    async def no_bytes(self, batch: bytes) -> bytes:
        return cast(bytes, 7)

    async def _hidden(self, batch: bytes) -> bytes:
        return b"seen"

    def plain(self) -> str:
        return "not for callers"


@contextlib.asynccontextmanager
async def talk() -> AsyncIterator[tuple[Role, Address, Wire]]:
    role = Role()
    listener = Listener(role)
    address = await listener.open("127.0.0.1")
    wire = await wired("role:0", address)
    yield role, address, wire
    wire.cut()
    listener.close()
    await until(lambda: wire.lost, "the connection's end")


def over(scene: Callable[[Role, Address, Wire], Any]) -> None:
    async def whole() -> None:
        async with talk() as (role, address, wire):
            await scene(role, address, wire)

    play(whole())


def test_many_calls_at_once_get_their_own_answers(rng: random.Random) -> None:
    async def scene(role: Role, address: Address, wire: Wire) -> None:
        batches = [rng.randbytes(rng.choice([0, 1, 300, 5_000, 300_000])) for _ in range(300)]
        answers = await asyncio.gather(*(wire.call(b"double", batch) for batch in batches))
        assert answers == [batch * 2 for batch in batches]

    over(scene)


def test_a_slow_call_holds_up_no_other(rng: random.Random) -> None:
    async def scene(role: Role, address: Address, wire: Wire) -> None:
        slow = asyncio.ensure_future(wire.call(b"held", b"slow"))
        assert await wire.call(b"double", b"a") == b"aa"
        assert not slow.done()
        role.gate.set()
        assert await slow == b"slow"

    over(scene)


def test_a_bug_over_there_is_told_apart_from_a_peer_that_is_gone() -> None:
    async def scene(role: Role, address: Address, wire: Wire) -> None:
        with pytest.raises(CallFailed, match="role:0: KeyError: 'no such thing'"):
            await wire.call(b"broken", b"")
        assert await wire.call(b"double", b"b") == b"bb", "and the connection goes on"

    over(scene)


@pytest.mark.parametrize("name", ["_hidden", "__init__", "plain", "gate", "nobody", ""])
def test_only_a_roles_calls_can_be_called(name: str) -> None:
    async def scene(role: Role, address: Address, wire: Wire) -> None:
        with pytest.raises(CallFailed, match="no method"):
            await wire.call(name.encode(), b"")

    over(scene)


def test_one_who_waits_no_more_disturbs_nobody() -> None:
    async def scene(role: Role, address: Address, wire: Wire) -> None:
        waiting = asyncio.ensure_future(wire.call(b"held", b"x"))
        await until(lambda: role.begun == 1, "the call over there")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        role.gate.set()
        await until(lambda: role.ended == 1, "its end, all the same")
        assert await wire.call(b"double", b"c") == b"cc"
        assert wire._out == {}

    over(scene)


@pytest.mark.parametrize(
    ("method", "told"), [(b"surrogates", "ValueError"), (b"gives_up", "cancelled"), (b"no_bytes", "TypeError")]
)
def test_every_call_is_answered_however_it_ends(method: bytes, told: str) -> None:
    async def scene(role: Role, address: Address, wire: Wire) -> None:
        with pytest.raises(CallFailed, match=told):
            await asyncio.wait_for(wire.call(method, b""), 20)
        assert await wire.call(b"double", b"c") == b"cc"

    over(scene)


@pytest.mark.parametrize("key", [b"", bytes(32), b"x" * 31, b"x" * 4_000])
def test_whoever_does_not_have_the_key_is_turned_away(key: bytes) -> None:
    async def scene(role: Role, address: Address, wire: Wire) -> None:
        stranger = await wired("role:0", Address(address.host, address.port, key))
        with pytest.raises(PeerGone):
            await stranger.call(b"double", b"secret")
        assert await wire.call(b"double", b"d") == b"dd"

    over(scene)


@pytest.mark.parametrize("shown", [0, 1, 12, 40])
def test_whoever_stays_silent_is_turned_away(monkeypatch: pytest.MonkeyPatch, shown: int) -> None:
    monkeypatch.setattr("actors.wire.HELLO_S", 0.2)

    async def scene(role: Role, address: Address, wire: Wire) -> None:
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write((_HEAD.pack(len(address.key), 0, 0) + address.key)[:shown])
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()
        assert await wire.call(b"double", b"d") == b"dd", "who has shown it stays"

    over(scene)


def test_nothing_is_kept_of_what_a_stranger_sends() -> None:
    async def scene(role: Role, address: Address, wire: Wire) -> None:
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(_HEAD.pack(MOST_BYTES, 0, 0))
        assert await reader.read() == b""
        writer.close()

    over(scene)


@pytest.mark.parametrize("at_once", [1, 7, 41, 60])
def test_the_key_and_calls_may_come_in_any_pieces(at_once: int) -> None:
    async def scene(role: Role, address: Address, wire: Wire) -> None:
        reader, writer = await asyncio.open_connection(address.host, address.port)
        call = _HEAD.pack(8, 1, 6) + b"doubleab"
        data = _HEAD.pack(len(address.key), 0, 0) + address.key + call
        for at in range(0, len(data), at_once):
            writer.write(data[at : at + at_once])
            await asyncio.sleep(0)
        assert await asyncio.wait_for(reader.readexactly(_HEAD.size + 4), 20) == _HEAD.pack(4, 1, 0) + b"abab"
        writer.close()

    over(scene)


def test_the_key_is_in_no_repr() -> None:
    async def scene(role: Role, address: Address, wire: Wire) -> None:
        assert repr(address) == f"Address('127.0.0.1', {address.port})"

    over(scene)


def test_what_is_no_frame_ends_only_its_own_connection(rng: random.Random) -> None:
    async def scene(role: Role, address: Address, wire: Wire) -> None:
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(_HEAD.pack(len(address.key), 0, 0) + address.key + b"\xff" * 4_000)
        assert await reader.read() == b""
        writer.close()
        assert await wire.call(b"double", b"e") == b"ee"

    over(scene)


def test_nobody_listens_there() -> None:
    async def scene() -> None:
        listener = Listener(Role())
        address = await listener.open("127.0.0.1")
        listener.close()
        with pytest.raises(PeerAbsent, match="role:7"):
            await wired("role:7", address)

    run(scene())


PEER = """
import asyncio, sys, msgspec
from actors.wire import Listener
from tests.actors.test_wire import Role
async def main():
    address = await Listener(Role()).open("127.0.0.1")
    sys.stdout.buffer.write(msgspec.json.encode(address) + b"\\n")
    sys.stdout.flush()
    await asyncio.Event().wait()
asyncio.run(main())
"""


def test_a_peer_that_is_killed_is_gone_at_once() -> None:
    """A real process and SIGKILL: all calls that are out are told, and later ones, too."""

    async def scene() -> None:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", PEER, cwd=ROOT, stdout=subprocess.PIPE)
        assert process.stdout is not None
        address = msgspec.json.decode(await process.stdout.readline(), type=Address)
        wire = await wired("role:0", address)
        assert await wire.call(b"double", b"f") == b"ff"
        out = [asyncio.ensure_future(wire.call(b"held", b"")) for _ in range(20)]
        await wire.call(b"double", b"g")
        os.kill(process.pid, signal.SIGKILL)
        told = await asyncio.wait_for(asyncio.gather(*out, return_exceptions=True), 20)
        assert [type(error) for error in told] == [PeerGone] * 20
        with pytest.raises(PeerGone):
            await wire.call(b"double", b"h")
        await process.wait()

    run(scene())


@given(
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 255), st.binary(max_size=70)), max_size=12),
    st.lists(st.integers(1, 40), min_size=1, max_size=60),
)
def test_frames_are_whole_however_they_come(frames: list[tuple[int, int, bytes]], cuts: list[int]) -> None:
    data = b"".join(_HEAD.pack(len(body), number, byte) + body for number, byte, body in frames)
    splitter, found, at = Frames(), [], 0
    for n in cuts:
        found += splitter.feed(data[at : at + n])
        at += n
    found += splitter.feed(data[at:])
    assert found == frames


def test_a_frame_beyond_the_bound_is_none() -> None:
    with pytest.raises(Oversize):
        Frames().feed(_HEAD.pack(MOST_BYTES + 1, 1, 0))
