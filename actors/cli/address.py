"""The option `--url` of commands that talk to a dispatcher."""

import argparse
from typing import Final

from dispatcher.client import url_fault

DEFAULT: Final = "http://127.0.0.1:8080"


def add_url(parser: argparse.ArgumentParser) -> None:
    """The option, checked before anything is read or sent."""
    parser.add_argument("--url", type=_url, default=DEFAULT, help="the dispatcher (default %(default)s)")


def _url(text: str) -> str:
    fault = url_fault(text)
    if fault is not None:
        raise argparse.ArgumentTypeError(f"{text!r} {fault}, such as {DEFAULT}")
    return text
