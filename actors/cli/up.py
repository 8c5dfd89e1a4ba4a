"""`dispatcher up`: run the system in the foreground."""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from typing import Any

import uvloop

from actors.host import write_log
from actors.system import StartError, System
from config.load import load
from config.schema import Config
from dispatcher.store.errors import StoreError

_log = logging.getLogger(__name__)

ABOUT = """\
Run the dispatcher in the foreground. Prints `ready http://host:port` on stdout
once /readyz answers 200. SIGTERM or Ctrl-C drains: nothing new is read, what is
at providers is settled, everything is written down (each step at most `drain_s`
seconds). A second signal stops at once; even then nothing accepted is lost.

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
    """Run until told to stop; 0 after a drain, 1 when the start failed."""
    config = configuration(args)
    write_log(config.log.level, config.log.format)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(config))


async def _run(config: Config) -> int:
    system = System(config)
    stop = asyncio.Event()
    try:
        await system.start()
    except (StartError, StoreError) as error:
        print(f"cannot start: {error}", file=sys.stderr)
        await system.close()
        return 1
    _on_signals(stop)
    if not config.http.keys:
        _log.warning("http.keys is empty: every caller on this machine is let in, and only loopback is listened on")
    print(f"ready {system.url}", flush=True)
    await stop.wait()
    print("draining", file=sys.stderr, flush=True)
    await system.drain()
    await system.close()
    return 0


def _on_signals(stop: asyncio.Event) -> None:
    """The first signal drains, the second ends this process, and with it Ray and the embedded store."""

    def first_or_second() -> None:
        if stop.is_set():
            with contextlib.suppress(OSError):
                print("stopped at once; what was accepted is in the log", file=sys.stderr, flush=True)
            os._exit(130)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, first_or_second)
