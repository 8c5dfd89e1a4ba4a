"""`dispatcher blacklist` as a process against the HTTP application over ports in memory."""

import asyncio
import os
import sys
from pathlib import Path

import msgspec
import pytest

from dispatcher.http.settings import Key, Settings
from tests.http.memory import House, serving
from tests.support import run

ENTRY = {"address": "+8613800000001", "channel": "sms", "type": "marketing", "why": "asked"}


async def blacklist(house: House, *arguments: str, stdin: bytes | None = None, **environ: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "actors.cli.main", "blacklist", "--url", f"http://127.0.0.1:{house.port}", *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.getcwd(), **environ},
    )  # fmt: skip
    out, err = await process.communicate(stdin)
    return process.returncode or 0, out.decode(), err.decode()


def test_a_good_file(tmp_path: Path) -> None:
    async def main() -> None:
        file = tmp_path / "stop.ndjson"
        file.write_bytes(b"\xef\xbb\xbf" + b"".join(b'{"user":"u%d"}\r\n\n' % n for n in range(3_000)))
        async with serving(Settings(keys=(Key("ops", "secret", ("admin",)),))) as house:
            code, out, err = await blacklist(house, str(file), "--key", "env:K", K="secret")
            assert (code, err) == (0, "")
            assert "3,000 entries in " in out
            assert "3,000 stored, 0 failed" in out
            assert len(house.blacklist.docs) == 3_000
            assert max(house.blacklist.batches) <= 500
            code, _, err = await blacklist(house, str(file))
            assert (code, "401" in err) == (1, True)

    run(main())


def test_wrong_lines_are_named_and_cost_only_themselves(tmp_path: Path) -> None:
    async def main() -> None:
        file = tmp_path / "stop"
        file.write_bytes(b'{"user":"a"}\n\n{"usr":"b"}\n{broken\n{"user":"c"}')
        async with serving() as house:
            code, out, _ = await blacklist(house, str(file))
            assert code == 1
            assert "line 3: invalid: usr: " in out
            assert "line 4: invalid: " in out
            assert "2 stored, 2 failed (50.00 %)" in out
            assert len(house.blacklist.docs) == 2

    run(main())


def test_csv(tmp_path: Path) -> None:
    async def main() -> None:
        file = tmp_path / "stop.CSV"
        rows = ["Type,address,channel,why,expires_at", "marketing,+8613800000001,sms,asked", "",
                ',+8613800000002,,"said ""no"", twice",2027-01-01T00:00:00Z', "a,b,c,d,e,f", ",nobody,sms"]  # fmt: skip
        file.write_text("\n".join(rows))
        async with serving() as house:
            code, out, _ = await blacklist(house, str(file))
            assert code == 1
            assert "line 5: invalid: " in out
            assert "line 6: invalid: address: " in out
            documents = sorted((msgspec.json.decode(doc) for doc in house.blacklist.docs.values()), key=str)
            assert documents == [
                ENTRY,
                {"address": "+8613800000002", "why": 'said "no", twice', "expires_at": "2027-01-01T00:00:00Z"},
            ]
            assert set(house.blacklist.ends.values()) == {None, 1_798_761_600_000}

    run(main())


@pytest.mark.parametrize("header", ["address,chanel", "channel,type", ""])
def test_a_header_that_means_nothing_sends_nothing(header: str) -> None:
    async def main() -> None:
        async with serving() as house:
            code, _, err = await blacklist(house, "-", "--csv", stdin=header.encode() + b"\na,b\n")
            assert (code, "the first line must name columns among user, address" in err) == (1, True)
            assert house.blacklist.docs == {}

    run(main())


def test_nobody_there_and_no_file() -> None:
    async def main() -> None:
        async with serving() as house:
            assert (await blacklist(house, "/nonexistent"))[0] == 1
            house.port = 9
            code, _, err = await blacklist(house, "-", stdin=b'{"user":"a"}\n')
            assert (code, "sending the file again is harmless" in err) == (1, True)

    run(main())


def test_it_teaches() -> None:
    async def main() -> None:
        async with serving() as house:
            code, out, _ = await blacklist(house, "--help")
            assert code == 0
            for taught in ('{"user": "u42"', "address,channel,type,why", "--key env:DISPATCHER_KEY", "Exit code 0"):
                assert taught in out

    run(main())
