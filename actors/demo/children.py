"""Processes the demo starts: each says `ready URL` on its stdout, and is stopped by its own pid."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO


class ChildError(Exception):
    """A child did not come up; the text says where its last words are."""


class Child:
    """One `dispatcher` command as a process of its own."""

    def __init__(self, process: Process, url: str) -> None:
        self.process = process
        self.url = url

    @classmethod
    async def start(cls, arguments: Sequence[str], log: Path, patience_s: float = 60.0) -> "Child":
        """Start it, wait for its ready line. Its stderr goes to `log`."""
        with _log_file(log) as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "actors.cli.main", *arguments, stdout=PIPE, stderr=errors, start_new_session=True
            )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(patience_s):
                async for line in process.stdout:
                    if line.startswith(b"ready "):
                        return cls(process, line.split()[1].decode())
        except TimeoutError:
            process.kill()
        last = _last_words(log)
        raise ChildError(f"`dispatcher {arguments[0]}` did not start; {log}: {' | '.join(last) or 'no words'}")

    async def stop(self, patience_s: float = 90.0) -> int:
        """SIGTERM, and wait; SIGKILL when it takes too long. Returns the exit code."""
        if self.process.returncode is None:
            self.process.terminate()
        try:
            async with asyncio.timeout(patience_s):
                return await self.process.wait()
        except TimeoutError:
            self.process.kill()
            return await self.process.wait()


def _last_words(log: Path) -> list[str]:
    return log.read_text(errors="replace").strip().splitlines()[-3:]


def _log_file(log: Path) -> BinaryIO:
    return log.open("wb")
