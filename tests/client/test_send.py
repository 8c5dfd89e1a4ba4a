"""`dispatcher send` as a process against the scripted dispatcher."""

import asyncio
import io
import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from actors.cli.source import Source
from tests.client.peer import Step, serving
from tests.support import run

MAIN = "import argparse,sys; from actors.cli import send; p=argparse.ArgumentParser(); s=p.add_subparsers(); " \
       "send.add_parser(s); a=p.parse_args(); sys.exit(a.run(a))"  # fmt: skip


async def dispatch(*arguments: str, stdin: bytes | None = None, **environ: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", MAIN, "send", *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.getcwd(), **environ},
    )  # fmt: skip
    out, err = await process.communicate(stdin)
    return process.returncode or 0, out.decode(), err.decode()


def lines(*documents: Any) -> bytes:
    return b"".join(msgspec.json.encode(d) + b"\n" for d in documents)


def good(n: int) -> dict[str, Any]:
    return {"id": f"i{n}", "user": f"u{n}", "template": "t"}


def test_a_good_file_over_a_cut(tmp_path: Path) -> None:
    async def scene() -> None:
        file = tmp_path / "t.ndjson"
        file.write_bytes(b"\xef\xbb\xbf" + lines(*(good(n) for n in range(2000))).replace(b"\n", b"\r\n\n"))
        async with serving(Step(read=500, answer=0)) as fake:
            code, out, err = await dispatch(str(file), "--url", fake.url, "--key", "env:K", K="secret")
            assert (code, err) == (0, "")
            assert "2,000 triggers" in out
            assert "1 reconnects" in out
            assert "\x1b" not in out
            assert fake.keys[0] == "Bearer secret"
            assert len(fake.memory) == 2000

    run(scene())


def test_bad_lines_are_named_and_cost_only_themselves(tmp_path: Path) -> None:
    async def scene() -> None:
        file, results = tmp_path / "t.ndjson", tmp_path / "r.ndjson"
        filtered = {**good(2), "template": "filtered/frequency"}
        file.write_bytes(lines(good(1)) + b"\n{broken\n\n" + lines(filtered) + b"[1]\n" + lines(good(3))[:-1])
        async with serving() as fake:
            code, out, _ = await dispatch(str(file), "--url", fake.url, "--out", str(results))
            assert code == 1
            assert "line 3: rejected invalid: " in out
            assert "line 6: rejected invalid: " in out
            assert "5 triggers" in out
            assert "reasons: invalid 2, frequency 1" in out
            rows = [msgspec.json.decode(line) for line in results.read_bytes().splitlines()]
            assert {row["line"]: row["status"] for row in rows} == {3: "rejected", 5: "filtered", 6: "rejected"}

    run(scene())


def test_standard_input() -> None:
    async def scene() -> None:
        async with serving() as fake:
            code, out, _ = await dispatch("-", "--url", fake.url, "--results", "all", stdin=lines(good(1), good(2)))
            assert (code, "2 triggers" in out) == (0, True)

    run(scene())


def test_nobody_there_and_no_file() -> None:
    async def scene() -> None:
        code, _, err = await dispatch("-", "--url", "http://127.0.0.1:9", "--patience-s", "0.3", stdin=lines(good(1)))
        assert code == 1
        assert "1 unanswered" in err
        code, _, err = await dispatch("/nonexistent")
        assert (code, "No such file" in err) == (1, True)

    run(scene())


def test_an_address_that_is_none_is_told() -> None:
    async def scene() -> None:
        code, out, err = await dispatch("-", "--url", "foo", stdin=lines(good(1)))
        assert (code, out) == (2, "")
        assert "--url: 'foo' does not begin with http:// or https://, such as http://127.0.0.1:8080" in err

    run(scene())


def test_waiting_for_an_address_where_nobody_is_is_told() -> None:
    async def scene() -> None:
        code, _, err = await dispatch("-", "--url", "http://127.0.0.1:9", "--patience-s", "6", stdin=lines(good(1)))
        assert code == 1
        first, last = err.splitlines()
        assert "Cannot connect to host 127.0.0.1:9" in first
        assert first.endswith("; trying again for up to 6 s")
        assert "gave up after 6 s" in last

    run(scene())


def test_line_numbers_and_long_lines(tmp_path: Path) -> None:
    async def scene() -> None:
        file = tmp_path / "t"
        file.write_bytes(b"\n\na\nb\n\n" + b"x" * 600_000 + b"\nc\n" + b"y" * 70_000)
        with file.open("rb") as opened:
            source = Source(opened)
            seen = [line[:1] async for line in source]
            assert seen == [b"a", b"b", b"x", b"c", b"y"]
            assert [source.line_number(n) for n in range(5)] == [3, 4, 6, 7, 8]
            assert source.read_bytes == source.size_bytes
        assert isinstance(opened, io.BufferedReader)

    run(scene())
