"""`dispatcher simulate`: simulated providers on their own."""

import argparse
import asyncio
import errno
import os
import signal
import sys
from pathlib import Path
from typing import Any

import uvloop

from channels.secret import is_reference, resolve
from channels.simulator import run as serve
from channels.simulator.behaviour import BehaviourError
from channels.simulator.scenario import named_orders, names, shipped

ABOUT = f"""\
Simulated providers that speak the `webhook` protocol, each at /p/NAME, with an
exact journal of every message they were given.

  dispatcher simulate --port 8090 --provider sms-a --provider sms-b

  curl -X PATCH localhost:8090/p/sms-a/behaviour -d '{{"error": 0.3, "hang": 0.01}}'
  curl -X PATCH localhost:8090/p/sms-a/behaviour \\
       -d '{{"latency": {{"kind": "lognormal", "p50_ms": 20, "p99_ms": 200}}, "rate_per_s": 500}}'
  curl localhost:8090/stats                    counts, duplicates
  curl localhost:8090/p/sms-a/journal          one line a message
  curl -X DELETE localhost:8090/journal        forget

Scripted faults, from the start or at any time; seconds count from the beginning:

  dispatcher simulate --provider sms-a --scenario sms-a=flapping
  curl -X PUT localhost:8090/p/sms-a/scenario -d '{{"name": "blackout"}}'
  curl -X PUT localhost:8090/p/sms-a/scenario \\
       -d '{{"steps": [{{"at_s": 0, "behaviour": {{"error": 1}}}}], "ends_s": 5, "repeat": true}}'
  curl localhost:8090/p/sms-a/scenario         where it is
  curl -X DELETE localhost:8090/p/sms-a/scenario
  curl localhost:8090/scenarios                what each is made of

{chr(10).join(f"  {name:<12} {shipped(name).about}" for name in names())}

With --own-ports each provider has a port of its own besides, which can refuse
connections as a dead one does: `curl localhost:8090/providers` tells the addresses.
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
    parser.add_argument("--own-ports", action="store_true", help="a port for each provider too")
    parser.add_argument(
        "--scenario",
        action="append",
        default=[],
        metavar="[PROVIDER=]NAME|FILE",
        help="of all providers or of one, from the start; FILE is JSON or TOML; repeatable",
    )
    parser.add_argument("--secret", metavar="env:NAME", help="refuse requests without this Standard Webhooks signature")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop."""
    secret = resolve(args.secret, os.environ) if args.secret and is_reference(args.secret) else args.secret
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(args, secret))
    except BehaviourError as error:
        print(f"simulate: --scenario {error}", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:  # a taken port, a journal that cannot be written, a bad name
        print(f"simulate: {_said(error, args)}", file=sys.stderr)
        return 1
    return 0


def _said(error: Exception, args: argparse.Namespace) -> str:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return f"--port {args.port}: another program listens on {args.host}:{args.port}; 0 takes a free one"
    return str(error)


async def _serve(args: argparse.Namespace, secret: str | None) -> None:
    task = asyncio.current_task()
    assert task is not None
    providers = args.provider or ["sms", "push"]
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await serve(
            args.host,
            args.port,
            providers,
            journal=args.journal,
            seed=args.seed,
            secret=secret,
            own_ports=args.own_ports,
            scenarios=named_orders(args.scenario, providers),
            on_ready=lambda url: print(f"ready {url}", flush=True),
        )
    except asyncio.CancelledError:
        return
