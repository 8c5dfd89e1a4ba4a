"""Lines and MessagePack objects come out the same however the bytes were cut."""

from random import Random

import msgspec
import pytest

from dispatcher.http.framing import Framer
from dispatcher.http.lines import LineSplitter, each_line, may_hold_longer
from dispatcher.http.wire import Bad, decode_chunk
from dispatcher.trigger import Trigger


def cut(data: bytes, rng: Random) -> list[bytes]:
    at = sorted(rng.sample(range(len(data)), k=min(len(data), rng.randrange(1, 40))))
    return [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)]


@pytest.mark.parametrize("seed", range(50))
def test_lines_survive_any_cut(seed: int) -> None:
    rng = Random(seed)
    lines = [b"x" * rng.choice([0, 1, 5, 19, 20, 21, 60, 300]) for _ in range(60)]
    splitter = LineSplitter(20)
    got: list[bytes | None] = []
    for part in cut(b"\xef\xbb\xbf" + b"\r\n".join(lines), rng):
        piece = splitter.feed(part)
        got += [line if len(line) <= 20 else None for line in each_line(piece.lines)]
        if piece.oversize:
            got.append(None)
    got += [line if len(line) <= 20 else None for line in each_line(splitter.finish())]
    assert got == [line if len(line) <= 20 else None for line in lines if line]


def test_a_line_without_end_is_not_kept() -> None:
    splitter = LineSplitter(1000)
    told = sum(splitter.feed(b"x" * 100).oversize for _ in range(10_000))
    assert told == 1
    assert splitter.feed(b"x\nab\n") == (b"ab\n", False)


def test_long_lines_are_noticed() -> None:
    for before in range(0, 200, 7):
        lines = b"y\n" * (before // 2) + b"x" * 65 + b"\n" + b"y\n" * 50
        assert may_hold_longer(lines, 64)
    assert not may_hold_longer((b"x" * 30 + b"\n") * 100, 64)


A, B = b'{"template":"a","user":"u"}', b'{"template":"b","user":"u"}'


@pytest.mark.parametrize(
    ("lines", "kinds"),
    [
        (A + b"\n" + B + b"\n", "tt"),
        (A + b"\r\n" + B + b"\r\n", "tt"),
        (A + b"\n\n" + B + b"\n", "tt"),
        (b" " + A + b" \n" + B + b"\n", "tt"),
        (A + B + b"\n\n", "b"),  # two on one line, and a blank one: the count alone would not tell
        (A + B + b"\n" + b'{"template":\n"a","user":"u"}\n', "bbb"),
        (b'{"template":\n"a","user":"u"}\n', "bb"),
        (A + b",\n" + B + b"\n", "bt"),
        (A + b"\n" + B[:-1] + b"\n", "tb"),
        (A + b"\n\xff\n" + B + b"\n", "tbt"),
        (b"\n \r\n", ""),
    ],
)
def test_one_line_one_trigger(lines: bytes, kinds: str) -> None:
    assert "".join("t" if isinstance(item, Trigger) else "b" for item in decode_chunk(lines)) == kinds


def test_a_bad_line_keeps_its_id() -> None:
    [bad] = decode_chunk(b'{"id":"t1","template":1}\n')
    assert bad == Bad("t1", "invalid: template: Expected `str`, got `int`")


def anything(rng: Random, depth: int = 0) -> object:
    kinds = ["int", "float", "str", "bytes", "none", "bool", "ext", *(["list", "dict"] * (depth < 3))]
    sizes = (0, 1, 15, 16, 31, 32, 255, 256, 70_000) if depth < 1 else (0, 1, 3, 31, 32, 300)
    small = rng.choice((0, 1, 3, 17)) if depth else rng.choice((0, 1, 15, 16, 70_000 // 8))
    made: dict[str, object] = {
        "int": rng.choice([0, 127, 128, -1, -32, -33, -129, 2**16, -(2**31), 2**32, 2**63, -(2**40)]),
        "float": 1.5, "none": None, "bool": True,
        "str": "x" * rng.choice(sizes), "bytes": b"x" * rng.choice(sizes),
        "ext": msgspec.msgpack.Ext(5, b"x" * rng.choice((1, 2, 3, 4, 8, 16, 17, 300))),
    }  # fmt: skip
    kind = rng.choice(kinds)
    if kind == "list":
        return [anything(rng, depth + 1) if depth else 7 for _ in range(small)]
    if kind == "dict":
        return {f"k{i}": anything(rng, depth + 1) for i in range(min(small, 40))}
    return made[kind]


@pytest.mark.parametrize("seed", range(60))
def test_objects_survive_any_cut(seed: int) -> None:
    rng = Random(seed)
    encoded = [msgspec.msgpack.encode(anything(rng)) for _ in range(30)]
    framer = Framer(1000)
    got: list[bytes | None] = []
    for part in cut(b"".join(encoded), rng):
        found, failure = framer.feed(part)
        assert failure is None
        got += found
    assert got == [one if len(one) <= 1000 else None for one in encoded]
    assert not framer.inside


def test_a_byte_at_a_time() -> None:
    encoded = [msgspec.msgpack.encode({"a": [1, {"b": "x" * 40}], "c": b"y" * 300}), b"\x01", b"\x80"]
    framer = Framer(1000)
    got = [found for byte in b"".join(encoded) for found in framer.feed(bytes([byte]))[0]]
    assert got == encoded


def test_an_object_too_large_is_stepped_over_without_being_kept() -> None:
    framer = Framer(1000)
    assert framer.feed(b"\xc6\x00\x10\x00\x00")[0] == []
    for _ in range(1024):
        assert framer.feed(b"x" * 1024)[0] in ([], [None])
        assert len(framer._buffer) <= 1000
    assert framer.feed(b"\x01") == ([b"\x01"], None)


def test_what_is_no_msgpack_says_so() -> None:
    found, failure = Framer(1000).feed(b"\x01\xc1\x01")
    assert found == [b"\x01"]
    assert "0xc1" in str(failure)
