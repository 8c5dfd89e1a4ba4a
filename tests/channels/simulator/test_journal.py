"""The journal counts exactly and survives a kill."""

from contextlib import closing
from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from channels.simulator.journal import Journal, Received

_reception = st.tuples(
    st.sampled_from(["a", "b"]),
    st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from(["accepted", "rejected", "hang"])), max_size=4),
)


def lines(journal: Journal, provider: str | None = None, accepted: bool = False) -> list[dict[str, object]]:
    return [msgspec.json.decode(line) for chunk in journal.chunks(provider, accepted) for line in chunk.splitlines()]


@given(st.lists(_reception, max_size=12))
def test_counts_are_exact(receptions: list[tuple[str, list[tuple[str, str]]]]) -> None:
    journal = Journal()
    for at_s, (provider, batch) in enumerate(receptions):
        journal.add(provider, at_s, [Received(id_) for id_, _ in batch], [answer for _, answer in batch])
    flat = [(p, id_, answer, at_s) for at_s, (p, batch) in enumerate(receptions) for id_, answer in batch]
    assert {(r["provider"], r["id"]) for r in lines(journal)} == {(p, id_) for p, id_, _, _ in flat}
    for record in lines(journal):
        mine = [(answer, at_s) for p, id_, answer, at_s in flat if (p, id_) == (record["provider"], record["id"])]
        assert (record["times"], record["answer"], record["first_s"]) == (len(mine), mine[-1][0], mine[0][1])
        assert record["accepted"] == sum(answer == "accepted" for answer, _ in mine)
    for provider in "ab":
        stats = journal.stats(provider)
        accepted = [id_ for p, id_, answer, _ in flat if p == provider and answer == "accepted"]
        assert stats["requests"] == sum(p == provider for p, _ in receptions)
        assert stats["messages"] == sum(p == provider for p, *_ in flat)
        assert (stats["accepted"], stats["duplicates"]) == (len(set(accepted)), len(accepted) - len(set(accepted)))


def test_reading_in_slices_and_only_accepted() -> None:
    journal = Journal()
    journal.add("a", 1.0, [Received(str(i)) for i in range(2_500)], ["accepted", "rejected"] * 1_250)
    assert len(lines(journal)) == 2_500
    assert len(lines(journal, "a", accepted=True)) == 1_250
    assert lines(journal, "b") == []


def test_file_is_taken_up_again_without_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with closing(Journal(path)) as first:
        first.add("a", 1.0, [Received("x", "+86", "sms", "notice", "wallet", "pay_ok"), Received("y")], "accepted")
        first.add("a", 2.0, [Received("x")], "hang")
    with path.open("ab") as file:
        file.write(b'["a",3.0,["z"')
    with closing(Journal(path)) as second:
        assert lines(second) == lines(first)
        second.add("a", 4.0, [Received("x")], "accepted")
    with closing(Journal(path)) as third:
        [x, y] = lines(third)
    assert (x["times"], x["accepted"], x["template"], x["first_s"]) == (3, 2, "pay_ok", 1.0)
    assert y["times"] == 1


def test_forgetting_empties_the_file(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with closing(Journal(path)) as journal:
        journal.add("a", 1.0, [Received("x")], "accepted")
        journal.forget()
        journal.add("a", 2.0, [Received("y")], "accepted")
    with closing(Journal(path)) as again:
        assert [record["id"] for record in lines(again)] == ["y"]
