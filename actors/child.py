"""What the operating system offers for child processes: ending with the parent, and knowing one again by its pid."""

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

_PR_SET_PDEATHSIG: Final = 1  # prctl(2)


def end_with_parent() -> Callable[[], None] | None:
    """What the child runs before it becomes the server: on Linux, SIGTERM (a clean exit) when the dispatcher is gone.

    The library is loaded here, in the parent: between fork and exec nothing may be imported or locked.
    """
    parent = os.getpid()
    try:
        prctl: Any = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return None  # macOS: a server that was left over is ended by the next start

    def arrange() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:  # it died before the call
            os._exit(1)

    return arrange


def pid_in(path: Path) -> int | None:
    try:
        return int(path.read_text().strip())
    except (OSError, ValueError):
        return None


def serves(pid: int, directory: Path) -> bool:
    """Whether this process is a server over this directory; the number may long belong to another process."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return False
        return _socket_answers(directory)
    except OSError:
        return False
    if not command:  # it has exited and nobody has waited for it
        return False
    with contextlib.suppress(OSError):
        return b"valkey-server" in command and Path(f"/proc/{pid}/cwd").resolve() == directory.resolve()
    return False


def _socket_answers(directory: Path) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(directory / "valkey.sock"))
        return True
    return False


async def within(timeout_s: float, condition: Callable[[], bool | Awaitable[bool]]) -> bool:
    """Whether the condition comes true in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while True:
        answer = condition()
        if await answer if isinstance(answer, Awaitable) else answer:
            return True
        if loop.time() > deadline:
            return False
        await asyncio.sleep(0.01)
