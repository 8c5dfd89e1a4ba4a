"""Python callers of the dispatcher: stream triggers safely, send one, keep users and catalog up to date."""

from dispatcher.client.answers import First, Result, ResultMessage, Results, Summary, UserLoad
from dispatcher.client.client import Client
from dispatcher.client.errors import BadAnswer, ClientError, Cut, GaveUp, Problem, Unavailable
from dispatcher.client.wire import url_fault

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
    "url_fault",
]
