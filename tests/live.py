"""The whole dispatcher as users run it, `dispatcher up` in a process of its own, for tests that break it on purpose."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from config.show import toml_of
from dispatcher.documents import Provider
from tests.peer import ROOT, Simulator, simulator

READY_S: Final = 60.0
TEMPLATES: Final = {
    "code": {"type": "verification", "channels": [{"channel": "sms", "text": "code {code}"}]},
    "notice": {"type": "notice", "channels": [{"channel": "sms", "text": "paid {n}"}]},
    "hello": {"type": "notice", "channels": [{"channel": "push", "title": "hello", "body": "{n}"}]},
    "sale": {"type": "marketing", "channels": [{"channel": "sms", "text": "sale {n}"}]},
}


class Live:
    """A running dispatcher. `up` starts it (again), `kill` ends parts of it with SIGKILL."""

    def __init__(self, place: Path, settings: dict[str, Any]) -> None:
        self.place = place
        self.data = place / "data"
        self.config = place / "test.toml"
        self.settings = settings
        self.url = ""
        self.process: subprocess.Popen[str] | None = None

    def begin(self) -> "subprocess.Popen[str]":
        """Start, and wait for nothing."""
        self.config.write_text(toml_of(self.settings))
        with (self.place / "up.log").open("ab") as log:
            self.process = process = subprocess.Popen(
                [sys.executable, "-m", "actors.cli.main", "up", "--config", str(self.config)],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        return process

    def up(self, timeout_s: float = READY_S) -> None:
        """Start, and wait for the ready line."""
        process = self.begin()
        lines: queue.Queue[str] = queue.Queue()
        assert process.stdout is not None
        threading.Thread(target=_pump, args=(process.stdout, lines), daemon=True).start()
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                line = lines.get(timeout=max(deadline - time.monotonic(), 0.01))
            except queue.Empty:
                raise AssertionError(f"not ready within {timeout_s} s\n{self.words()}") from None
            if line.startswith("ready "):
                self.url = line.split()[1]
                return
            if line == "":
                raise AssertionError(f"ended with {process.wait()} instead of starting\n{self.words()}")

    def words(self, lines: int = 40) -> str:
        """The last lines of its log."""
        return "\n".join((self.place / "up.log").read_text(errors="replace").splitlines()[-lines:])

    def down(self, timeout_s: float = 90.0) -> int:
        """SIGTERM, and wait for the drain; returns the exit code."""
        assert self.process is not None
        self.process.terminate()
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill_tree()
            raise AssertionError(f"did not drain within {timeout_s} s\n{self.words()}") from None

    # -- asking

    def call(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> tuple[int, Any]:
        """Status and answer of one request; JSON is decoded."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"content-type": kind}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, _read(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _read(error)

    def change_provider(self, name: str, **fields: Any) -> None:
        """Change these fields of a provider's document; returns when senders work by it."""
        status, found = self.call("GET", f"/v1/providers/{name}")
        assert status == 200, found
        document = {field: found[field] for field in Provider.__struct_fields__ if field in found} | fields
        status, answer = self.call("PUT", f"/v1/providers/{name}", document)
        assert status == 200, answer

    def topology(self) -> dict[str, Any]:
        status, answer = self.call("GET", "/v1/topology")
        assert status == 200, answer
        found: dict[str, Any] = answer
        return found

    def actors(self, role: str) -> list[dict[str, Any]]:
        """The actors of one role that answer now."""
        return [actor for actor in self.topology()["actors"] if actor["role"] == role and "pid" in actor]

    @property
    def valkey_pid(self) -> int:
        return int((self.data / "valkey" / "valkey.pid").read_text())

    @property
    def store_url(self) -> str:
        return f"unix://{self.data / 'valkey' / 'valkey.sock'}"

    # -- breaking

    def kill(self, role: str) -> int:
        """SIGKILL one actor of this role, or `valkey`; returns its pid."""
        pid = self.valkey_pid if role == "valkey" else int(self.actors(role)[0]["pid"])
        os.kill(pid, signal.SIGKILL)
        return pid

    def kill_sender(self, provider: str) -> int:
        """SIGKILL this provider's only sender; returns its pid."""
        [pid] = [int(actor["pid"]) for actor in self.actors("sender") if actor["provider"] == provider]
        os.kill(pid, signal.SIGKILL)
        return pid

    def kill_tree(self) -> None:
        """SIGKILL everything that was started, all at once."""
        assert self.process is not None
        pids = [self.process.pid, *descendants(self.process.pid)]
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()
        until(lambda: not any(alive(pid) for pid in pids), "the killed processes to be gone")


def _pump(lines: Any, to: "queue.Queue[str]") -> None:
    with lines:
        for line in lines:
            to.put(line)
    to.put("")


def _read(response: Any) -> Any:
    data = response.read()
    return json.loads(data) if "json" in response.headers.get("content-type", "") else data


def descendants(pid: int) -> list[int]:
    """All processes below this one."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return found


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def until(condition: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    """Wait for a condition by asking it."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s in vain for {what}"
        time.sleep(0.02)


def settings_of(place: Path, simulated: Simulator, **more: Any) -> dict[str, Any]:
    """A configuration with two SMS providers and one for push, all simulated."""
    providers = {
        name: {
            "kind": "webhook",
            "channel": channel,
            "max_batch": 100,
            "timeout_s": 2.0,
            "options": {"url": simulated.at(name), "allow_private": True},
        }
        for name, channel in (("sms-a", "sms"), ("sms-b", "sms"), ("push-a", "push"))
    }
    return {
        "data_dir": str(place / "data"),
        "partitions": 8,
        "http": {"port": 0},
        "templates": TEMPLATES,
        "lines": {"wallet": {}, "loan": {}},
        "providers": providers,
        **more,
    }


@contextmanager
def live(place: Path, **more: Any) -> Iterator[tuple[Live, Simulator]]:
    """A dispatcher that is ready, and its simulator; both are gone afterwards, whatever happened to them."""
    with simulator(["sms-a", "sms-b", "push-a"]) as simulated:
        running = Live(place, settings_of(place, simulated, **more))
        try:
            running.up()
            yield running, simulated
        finally:
            if running.process is not None and running.process.poll() is None:
                running.kill_tree()
