"""`dispatcher config show|check`: what is in force, and whether it makes sense."""

import argparse
import os
from typing import Any

from config.load import load
from config.secrets import resolve_keys
from config.show import show, sources

ABOUT = """\
  dispatcher config show                     every value in force, and where it came from
  dispatcher config check --config prod.toml exit 0 when a start would accept it
"""


def add_parser(commands: Any) -> None:
    """Options of `config`."""
    parser = commands.add_parser(
        "config",
        help="show or check the configuration",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=("show", "check"))
    parser.add_argument("--config", metavar="FILE", help="TOML that overlays the shipped defaults")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 when the configuration is sound; an error is raised as ConfigError."""
    config = load(args.config, os.environ)
    if args.what == "show":
        print(show(config), end="")
    else:
        resolve_keys(config.http.keys, os.environ)
        print(f"sound: {sources(config)}")
    return 0
