"""The default status table (design page `wire.md`, section 0)."""

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.adapter import NotWritten, Written
from channels.answers import parse_retry_after, receipt_of_status, verdict_of_failure
from tests.channels.messages import messages

NOW_S = 1_800_000_000.0


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (200, "rejected"),
        (204, "rejected"),
        (302, "transient"),
        (307, "transient"),
        (400, "rejected"),
        (401, "auth"),
        (403, "auth"),
        (404, "rejected"),
        (408, "transient"),
        (413, "rejected"),
        (425, "transient"),
        (429, "throttled"),
        (500, "transient"),
        (501, "unknown"),
        (502, "transient"),
        (503, "transient"),
        (504, "unknown"),
        (524, "unknown"),
        (0, "unknown"),
        (999, "unknown"),
    ],
)
def test_status(status: int, answer: str) -> None:
    verdict = receipt_of_status(status, {}, b"", NOW_S)
    assert (verdict.answer, verdict.code, verdict.retry_after_s) == (answer, f"http {status}", None)


def test_503_with_retry_after_is_throttled() -> None:
    verdict = receipt_of_status(503, {"retry-after": "7"}, b"", NOW_S)
    assert (verdict.answer, verdict.retry_after_s) == ("throttled", 7.0)


def test_429_with_a_date() -> None:
    verdict = receipt_of_status(429, {"retry-after": formatdate(NOW_S + 90, usegmt=True)}, b"", NOW_S)
    assert (verdict.answer, verdict.retry_after_s) == ("throttled", 90.0)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1.5", 1.5),
        ("-3", 0.0),
        ("1e30", 86_400.0),
        ("inf", 86_400.0),
        ("nan", None),
        ("", None),
        ("soon", None),
        (formatdate(NOW_S - 90, usegmt=True), 0.0),
        ("Sun, 06 Nov 9999999 08:49:37 GMT", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW_S) == seconds


@given(st.text())
def test_retry_after_never_raises(value: str) -> None:
    seconds = parse_retry_after(value, NOW_S)
    assert seconds is None or 0 <= seconds <= 86_400


def test_not_written_is_transient_and_written_is_unknown() -> None:
    receipts = verdict_of_failure(NotWritten("refused")).receipts(messages(2), "p1")
    assert [(r.id, r.answer, r.provider, r.code) for r in receipts] == [
        ("m0", "transient", "p1", "refused"),
        ("m1", "transient", "p1", "refused"),
    ]
    assert verdict_of_failure(Written("timeout")).answer == "unknown"
