"""curl: a body of any length, streamed; kept-alive connections; `Expect: 100-continue`."""

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.live import Live
from tests.peer import Simulator


def curl(*arguments: str, stdin: bytes | None = None) -> tuple[bytes, str]:
    """What it wrote to stdout, and its talk on stderr."""
    done = subprocess.run(["curl", "-sS", "-v", *arguments], input=stdin, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout, done.stderr.decode(errors="replace")


def trigger(n: int, prefix: str) -> dict[str, Any]:
    to = {"sms": f"+86136{n:08d}"}
    return {"id": f"{prefix}-{n}", "to": to, "template": "notice", "line": "wallet", "params": {"n": f"{prefix} {n}"}}


def lines(count: int, prefix: str) -> bytes:
    return b"".join(json.dumps(trigger(n, prefix)).encode() + b"\n" for n in range(count))


def test_a_file_is_streamed(pair: tuple[Live, Simulator], tmp_path: Path) -> None:
    file = tmp_path / "triggers.ndjson"
    file.write_bytes(lines(5_000, "file"))
    url = f"{pair[0].url}/v1/triggers?results=failed"
    for headers in ([], ["-H", "Transfer-Encoding: chunked"]):
        out, _ = curl("-H", "Content-Type: application/x-ndjson", *headers, "--data-binary", f"@{file}", url)
        *results, last = [json.loads(line) for line in out.splitlines()]
        assert last["summary"]["total"] == 5_000
        if headers:
            assert {result["status"] for result in results} == {"duplicate"}
            assert last["summary"]["duplicate"] == 5_000
        else:
            assert results == []
            assert last["summary"]["accepted"] == 5_000


def test_standard_input_is_streamed_as_it_comes(pair: tuple[Live, Simulator]) -> None:
    kind, url = "Content-Type: application/x-ndjson", f"{pair[0].url}/v1/triggers"
    out, talk = curl("-T", "-", "-X", "POST", "-H", kind, url, stdin=lines(300, "pipe"))
    told = [json.loads(line) for line in out.splitlines()]
    assert sorted(result["seq"] for result in told[:-1]) == list(range(300))
    assert told[-1]["summary"]["accepted"] == 300
    assert "Transfer-Encoding: chunked" in talk


def test_connections_are_kept_alive(pair: tuple[Live, Simulator]) -> None:
    url = f"{pair[0].url}/v1/triggers"
    arguments: list[str] = []
    for n in range(3):
        arguments += ["--next"] if n else []
        arguments += ["--http1.1", "-H", "Content-Type: application/json", "-d", json.dumps(trigger(n, "kept")), url]
        arguments += ["-w", "\n"]
    out, talk = curl(*arguments)
    assert [json.loads(line)["status"] for line in out.splitlines() if line] == ["accepted"] * 3
    assert talk.count("Re-using existing connection") == 2


def test_expect_100_continue_is_answered(pair: tuple[Live, Simulator]) -> None:
    out, talk = curl(
        "-H", "Content-Type: application/x-ndjson", "-H", "Expect: 100-continue", "--expect100-timeout", "30",
        "--data-binary", "@-", f"{pair[0].url}/v1/triggers?results=none", stdin=lines(100, "expect"),
    )  # fmt: skip
    assert json.loads(out)["summary"]["accepted"] == 100
    assert "HTTP/1.1 100 Continue" in talk
    assert "Done waiting for 100-continue" not in talk
    assert "HTTP/1.1 200 OK" in talk


def test_a_problem_is_told_as_one(pair: tuple[Live, Simulator]) -> None:
    out, talk = curl("-H", "Content-Type: application/json", "-d", "{", f"{pair[0].url}/v1/triggers")
    assert "HTTP/1.1 400" in talk
    assert "application/problem+json" in talk
    assert json.loads(out)["status"] == 400
