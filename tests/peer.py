"""The provider simulator as a real process, for tests."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent


class Simulator:
    """A running simulator. `url` is its root; a provider `a` takes messages at `at("a")`."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url

    @classmethod
    def start(cls, *arguments: str, environ: dict[str, str] | None = None) -> Self:
        process = subprocess.Popen(
            [sys.executable, "-m", "channels.simulator", *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(environ or {})},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("ready "):
            process.kill()
            raise AssertionError(f"the simulator did not start: {line!r}, exit {process.wait()}")
        return cls(process, line.split()[1])

    def at(self, name: str) -> str:
        return f"{self.url}/p/{name}"

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """Status and body of any request; statuses are not errors."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"content-type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def patch(self, name: str, **behaviour: Any) -> dict[str, Any]:
        """Changes a provider's behaviour; fails on a bad field."""
        return self._dict("PATCH", f"/p/{name}/behaviour", behaviour)

    def create(self, name: str, **behaviour: Any) -> dict[str, Any]:
        """Creates a provider, or puts its behaviour back to the defaults and these."""
        return self._dict("PUT", f"/p/{name}/behaviour", behaviour)

    def stats(self) -> dict[str, dict[str, Any]]:
        return self._dict("GET", "/stats")

    def journal(self, name: str | None = None, accepted: bool = False) -> list[dict[str, Any]]:
        """One record for each message that any provider (or this one) received."""
        path = "/journal" if name is None else f"/p/{name}/journal"
        status, body = self.call("GET", path + ("?accepted=1" if accepted else ""))
        assert status == 200, body
        return [json.loads(line) for line in body.splitlines()]

    def reset(self) -> None:
        """Empties the journal."""
        self._dict("DELETE", "/journal")

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """SIGTERM; a process that stays is killed."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def _dict(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        status, answer = self.call(method, path, body)
        assert status < 300, f"{method} {path}: {status} {answer!r}"
        found: dict[str, Any] = json.loads(answer)
        return found


@contextmanager
def simulator(
    providers: Sequence[str] = ("a",), *, journal: Path | None = None, seed: int = 0, secret: str | None = None
) -> Iterator[Simulator]:
    """A simulator with these providers on a free port, gone afterwards."""
    arguments = ["--port", "0", "--seed", str(seed)]
    for name in providers:
        arguments += ["--provider", name]
    if journal is not None:
        arguments += ["--journal", str(journal)]
    if secret is not None:
        arguments += ["--secret", "env:SIMULATOR_SECRET"]
    running = Simulator.start(*arguments, environ={"SIMULATOR_SECRET": secret} if secret is not None else None)
    try:
        yield running
    finally:
        running.stop()
