"""The send-path bench counts what arrives, by both sides."""

import argparse
import re

from bench.sendpath import measure, report
from tests.support import run


def test_every_way_sends_what_it_says_and_nothing_twice() -> None:
    args = argparse.Namespace(processes=2, connections=4, rounds=1, seconds=0.3)
    turns = run(measure(args))  # it raises where a client and the provider count differently
    assert set(turns) == {"bare", "ours", "lean"}
    for [turn] in turns.values():
        assert turn.messages_per_s > 100
        assert turn.client_us > 0
        assert turn.failed == 0
    found = report(args, turns)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT.*Z", str(found["at"]))
    [ours], [bare] = turns["ours"], turns["bare"]
    assert found["ratio"] == {
        "median": round(ours.messages_per_s / bare.messages_per_s, 2),
        "least": round(ours.messages_per_s / bare.messages_per_s, 2),
        "goal": 2.5,
    }
