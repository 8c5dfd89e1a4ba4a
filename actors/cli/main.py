"""The `dispatcher` command."""

import argparse
import sys
from collections.abc import Sequence

import actors.cli.config
import actors.cli.demo
import actors.cli.doctor
import actors.cli.send
import actors.cli.simulate
import actors.cli.up
from channels.secret import Unresolved
from config.load import ConfigError

COMMANDS = (
    actors.cli.up,
    actors.cli.demo,
    actors.cli.simulate,
    actors.cli.send,
    actors.cli.doctor,
    actors.cli.config,
)

ABOUT = """\
A message dispatcher: triggers stream in over HTTP, messages leave to providers,
no cap is exceeded and nothing that was accepted is lost.

  dispatcher demo                  see all of it at work, in a minute
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
    except Unresolved as error:
        print(f"secret: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
