"""Asking for delivery states: every address ends, nothing is asked for too early or forever, memory has an end."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from channels.poll import MOST_ADDRESSES, STEPS_S, Poll, State
from dispatcher.receipt import Receipt
from tests.channels.messages import message

T0_S = 1_000_000.0


def sent(poll: Poll, ref: str, count: int, now_s: float, answer: str = "accepted") -> None:
    batch = [message(f"{ref}-{i}", "push", to=f"t{i}") for i in range(count)]
    poll.sent(batch, [Receipt(m.id, answer, "p1", ref) for m in batch], now_s)  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.integers(1, 4), st.floats(0, 1000)), max_size=8), st.randoms(use_true_random=False))
def test_every_address_is_reported_once_or_given_up(groups: list[tuple[int, float]], chance: Random) -> None:
    poll, reported = Poll("p1"), []
    for number, (count, at_s) in enumerate(sorted(groups, key=lambda group: group[1])):
        sent(poll, f"r{number}", count, T0_S + at_s)
    questions = 0
    while (due_s := poll.next_s()) is not None:
        assert poll.ask(due_s - 0.001) is None
        question = poll.ask(due_s)
        if question is None:
            continue
        questions += 1
        fate = ["delivered", "sent", "undelivered", None]
        states = {
            address: State(status)
            for address in question.addresses
            if (status := chance.choice(fate)) is not None
        }
        if chance.random() < 0.2:
            poll.failed(question, due_s)
        else:
            reported += poll.told(question, states, due_s)
    assert questions <= len(groups) * len(STEPS_S)
    ids = [report.id for report in reported]
    assert len(ids) == len(set(ids)) <= sum(count for count, _ in groups)
    assert {report.status for report in reported} <= {"delivered", "undelivered"}
    assert poll.waiting == 0


def test_what_is_forgotten_leaves_nothing_though_nobody_asks() -> None:
    poll = Poll("p1", most=5)
    for n in range(5_000):
        sent(poll, f"r{n}", 1, T0_S + n)
    assert (poll.waiting, poll.forgotten) == (5, 4_995)
    assert len(poll._due) <= 2_000
    asked = []
    while (question := poll.ask(T0_S + 10_000)) is not None:
        asked.append(question.ref)
    assert asked == [f"r{n}" for n in range(4_995, 5_000)]


def test_the_oldest_are_forgotten_for_want_of_room() -> None:
    poll = Poll("p1", most=5)
    for number in range(3):
        sent(poll, f"r{number}", 2, T0_S + number)
    assert (poll.waiting, poll.forgotten) == (4, 2)
    question = poll.ask(T0_S + 60)
    assert question is not None
    assert question.ref == "r1"
    sent(poll, "huge", 50, T0_S + 10)
    assert (poll.waiting, poll.forgotten) == (5, 6)
    assert poll.told(question, {"t0": State("delivered")}, T0_S + 61) == [], "forgotten meanwhile"


def test_what_was_not_accepted_is_not_asked_for() -> None:
    poll = Poll("p1")
    sent(poll, "r", 3, T0_S, "unknown")
    assert (poll.next_s(), poll.waiting) == (None, 0)


def test_a_repeated_answer_of_the_vendor_is_asked_for_once() -> None:
    poll = Poll("p1")
    sent(poll, "r", 3, T0_S)
    sent(poll, "r", 3, T0_S + 1)
    assert poll.waiting == 3
    question = poll.ask(T0_S + 100)
    assert question is not None
    assert poll.ask(T0_S + 100) is None


def test_steps_that_went_by_are_left_out() -> None:
    poll = Poll("p1")
    sent(poll, "r", 1, T0_S)
    question = poll.ask(T0_S + 4000)
    assert question is not None
    poll.failed(question, T0_S + 4000)
    assert poll.next_s() == T0_S + 7200


def test_a_question_holds_what_a_vendor_takes() -> None:
    poll = Poll("p1")
    sent(poll, "r", MOST_ADDRESSES + 1, T0_S)
    question = poll.ask(T0_S + 60)
    assert question is not None
    assert len(question.addresses) == MOST_ADDRESSES
    reports = poll.told(question, dict.fromkeys(question.addresses, State("delivered")), T0_S + 60)
    assert len(reports) == MOST_ADDRESSES
    rest = poll.ask(T0_S + 300)
    assert rest is not None
    assert list(rest.addresses) == [f"t{MOST_ADDRESSES}"]
