"""`dispatcher up`: run the system in the foreground."""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, Final

import uvloop

from actors.cluster import set_environment
from actors.ending import end
from actors.host import write_log
from config.load import load
from config.schema import Config
from dispatcher.store.errors import StoreError

if TYPE_CHECKING:
    from actors.system import System

CLOSE_S: Final = 30.0
_log = logging.getLogger(__name__)

ABOUT = """\
Run the dispatcher in the foreground. Prints `ready http://host:port` on stdout
once /readyz answers 200. SIGTERM or Ctrl-C drains: nothing new is read, what is
at providers is settled, everything is written down (each step at most `drain_s`
seconds). A second signal stops at once; even then nothing accepted is lost. A
signal that comes while it starts ends the start.

  dispatcher up                                  embedded store, 127.0.0.1:8080
  dispatcher up --config prod.toml
  dispatcher up --redis redis://10.0.0.5:6379
  DISPATCHER__HTTP__PORT=9000 dispatcher up
"""


def add_parser(commands: Any) -> None:
    """Options of `up`."""
    parser = commands.add_parser(
        "up", help="run it", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", metavar="FILE", help="TOML that overlays the shipped defaults")
    parser.add_argument("--ray", metavar="ADDRESS", help="join this Ray cluster (ray.address)")
    parser.add_argument("--redis", metavar="URL", help="use this Redis or Valkey (redis.url)")
    parser.set_defaults(run=run)


def configuration(args: argparse.Namespace) -> Config:
    """The configuration these options ask for."""
    wanted = {"ray.address": args.ray, "redis.url": args.redis}
    overrides = {key: value for key, value in wanted.items() if value is not None}
    return load(args.config, os.environ, overrides)


def run(args: argparse.Namespace) -> int:
    """Run until told to stop; 0 when it was, 1 when the start failed."""
    config = configuration(args)
    write_log(config.log.level, config.log.format)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(config))


async def _run(config: Config) -> int:
    stop = asyncio.Event()
    _on_signals(stop)
    set_environment()
    from actors import root  # imports Ray, which takes a second and reads its environment
    from actors.system import System

    system = System(config)
    try:
        code = await _live(system, stop)
    finally:
        await _close(system)
    if root.half_way():
        _leave_now(code)
    return code


async def _live(system: "System", stop: asyncio.Event) -> int:
    """From the start to the end of the drain; returns the exit code."""
    if (code := await _start(system, stop)) is not None:
        return code
    if not system.config.http.keys:
        _log.warning("http.keys is empty: every caller on this machine is let in, and only loopback is listened on")
    print(f"ready {system.url}", flush=True)
    await stop.wait()
    print("draining", file=sys.stderr, flush=True)
    await system.drain()
    return 0


async def _start(system: "System", stop: asyncio.Event) -> int | None:
    """None once it stands, else the exit code: it cannot start, or was told to stop meanwhile."""
    from actors.system import StartError

    starting, told = asyncio.create_task(system.start()), asyncio.create_task(stop.wait())
    await asyncio.wait((starting, told), return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if not starting.done():
        print("told to stop before it was ready", file=sys.stderr, flush=True)
        await end(starting)
        return 0
    try:
        starting.result()
    except (StartError, StoreError) as error:
        print(f"cannot start: {error}", file=sys.stderr)
        return 1
    return None


async def _close(system: "System") -> None:
    """Nothing that hangs while it is ended keeps this process, and with it the data directory, for ever."""
    try:
        async with asyncio.timeout(CLOSE_S):
            await system.close()
    except TimeoutError:
        _log.error("the end took longer than %.0f s; ended at once, what was accepted is in the log", CLOSE_S)
        _leave_now(1)


def _leave_now(code: int) -> None:
    """End this process, and with it Ray and the embedded store, without asking anybody."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)


def _on_signals(stop: asyncio.Event) -> None:
    """The first signal ends the start or drains, the second ends this process."""

    def first_or_second() -> None:
        if stop.is_set():
            with contextlib.suppress(OSError):
                print("stopped at once; what was accepted is in the log", file=sys.stderr, flush=True)
            _leave_now(130)
        stop.set()
        signal.alarm(0)  # see `root.join`: a signal that came while Ray starts would abort this process

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, first_or_second)
