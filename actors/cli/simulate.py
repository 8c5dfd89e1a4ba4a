"""`dispatcher simulate`: simulated providers on their own."""

import argparse
import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import uvloop

from channels.secret import is_reference, resolve
from channels.simulator import run as serve

ABOUT = """\
Simulated providers that speak the `webhook` protocol, each at /p/NAME, with an
exact journal of every message they were given.

  dispatcher simulate --port 8090 --provider sms-a --provider sms-b

  curl -X PATCH localhost:8090/p/sms-a/behaviour -d '{"error": 0.3, "hang": 0.01}'
  curl -X PATCH localhost:8090/p/sms-a/behaviour \\
       -d '{"latency": {"kind": "lognormal", "p50_ms": 20, "p99_ms": 200}, "rate_per_s": 500}'
  curl localhost:8090/stats                    counts, duplicates
  curl localhost:8090/p/sms-a/journal          one line a message
  curl -X DELETE localhost:8090/journal        forget
"""


def add_parser(commands: Any) -> None:
    """Options of `simulate`."""
    parser = commands.add_parser(
        "simulate",
        help="run simulated providers",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8090, help="0 takes a free one (default 8090)")
    parser.add_argument("--provider", action="append", metavar="NAME", help="served at /p/NAME; repeatable")
    parser.add_argument("--journal", type=Path, metavar="FILE", help="append every reception to FILE")
    parser.add_argument("--seed", type=int, default=0, help="of all chance (default 0)")
    parser.add_argument("--secret", metavar="env:NAME", help="refuse requests without this Standard Webhooks signature")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop."""
    secret = resolve(args.secret, os.environ) if args.secret and is_reference(args.secret) else args.secret
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(args, secret))
    return 0


async def _serve(args: argparse.Namespace, secret: str | None) -> None:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await serve(
            args.host,
            args.port,
            args.provider or ["sms", "push"],
            journal=args.journal,
            seed=args.seed,
            secret=secret,
            on_ready=lambda url: print(f"ready {url}", flush=True),
        )
    except asyncio.CancelledError:
        return
