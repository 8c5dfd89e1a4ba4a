"""The `dispatcher` command."""

import argparse
import sys
from collections.abc import Sequence

from actors.cli import config, demo, doctor, send, simulate, up
from config.load import ConfigError

COMMANDS = (up, demo, simulate, send, doctor, config)

ABOUT = """\
A message dispatcher: triggers stream in over HTTP, messages leave to providers,
no cap is exceeded and nothing that was accepted is lost.

  dispatcher demo                  see all of it at work, in two minutes
  dispatcher up                    run it (embedded store, port 8080)
  dispatcher send triggers.ndjson  stream a file of triggers to it
  dispatcher doctor                find out what is wrong with an installation
"""


def parser() -> argparse.ArgumentParser:
    """All commands with their options."""
    top = argparse.ArgumentParser(
        prog="dispatcher", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    args = parser().parse_args(arguments)
    try:
        return int(args.run(args))
    except ConfigError as error:
        print(f"configuration: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
