"""The `dispatcher` command."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final

#: Each is a module beside this one. They are imported by `parser`, where Ctrl-C is heard: it takes a second.
COMMANDS: Final = ("up", "demo", "simulate", "send", "blacklist", "doctor", "config")

ABOUT = """\
A message dispatcher: triggers stream in over HTTP, messages leave to providers,
no cap is exceeded and nothing that was accepted is lost.

  dispatcher demo                  see all of it at work, in a minute
  dispatcher up                    run it (embedded store, port 8080)
  dispatcher send triggers.ndjson  stream a file of triggers to it
  dispatcher blacklist stop.csv    stream a file of those who want no messages to it
  dispatcher doctor                find out what is wrong with an installation
"""


class _Version(argparse.Action):
    """Prints the version that is installed."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"dispatcher {version('dispatcher')}")
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """All commands with their options."""
    top = argparse.ArgumentParser(
        prog="dispatcher", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        import_module(f"actors.cli.{command}").add_parser(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return 130


def _run(arguments: Sequence[str] | None) -> int:
    args = parser().parse_args(arguments)
    from channels.secret import Unresolved
    from config.load import ConfigError

    try:
        return int(args.run(args))
    except ConfigError as error:
        print(f"configuration: {error}", file=sys.stderr)
        return 2
    except Unresolved as error:
        print(f"secret: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
