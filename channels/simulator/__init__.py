"""A provider simulator: real HTTP, scripted behaviour, an exact journal."""

from channels.simulator.server import run

__all__ = ["run"]
