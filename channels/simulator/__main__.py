"""`python -m channels.simulator`: the simulator on its own."""

import argparse
import asyncio
import os
import signal
from pathlib import Path

import uvloop

from channels.secret import is_reference, resolve
from channels.simulator.scenario import named_orders
from channels.simulator.server import run


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m channels.simulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8090, help="0 takes a free one")
    parser.add_argument("--provider", action="append", default=[], metavar="NAME", help="served at /p/NAME; repeatable")
    parser.add_argument("--journal", type=Path, metavar="FILE", help="append every reception to FILE and start from it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--own-ports", action="store_true", help="a port for each provider too")
    parser.add_argument("--scenario", action="append", default=[], metavar="[PROVIDER=]NAME|FILE")
    parser.add_argument("--secret", metavar="env:NAME", help="refuse requests without this Standard Webhooks signature")
    return parser.parse_args()


async def _serve(arguments: argparse.Namespace) -> None:
    secret = arguments.secret
    if secret is not None and is_reference(secret):
        secret = resolve(secret, os.environ)
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await run(
            arguments.host,
            arguments.port,
            arguments.provider,
            journal=arguments.journal,
            seed=arguments.seed,
            secret=secret,
            own_ports=arguments.own_ports,
            scenarios=named_orders(arguments.scenario, arguments.provider),
            on_ready=lambda url: print(f"ready {url}", flush=True),
        )
    except asyncio.CancelledError:
        return


def main() -> None:
    """Runs until SIGTERM or SIGINT."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(_arguments()))


if __name__ == "__main__":
    main()
