"""Python callers of the dispatcher: stream triggers safely, send one, keep users and catalog up to date."""

from dispatcher.client.answers import First, Result, ResultMessage, Results, Summary, UserLoad
from dispatcher.client.client import Client
from dispatcher.client.errors import BadAnswer, ClientError, Cut, GaveUp, Problem, Unavailable

__all__ = [
    "BadAnswer",
    "Client",
    "ClientError",
    "Cut",
    "First",
    "GaveUp",
    "Problem",
    "Result",
    "ResultMessage",
    "Results",
    "Summary",
    "Unavailable",
    "UserLoad",
]
