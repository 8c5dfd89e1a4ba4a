"""The arithmetic of the trials; the trials themselves take minutes (`make bench-trials`)."""

from bench.trials.sick import Share, apart_s, back_s, below_s, between


def test_routers_are_apart_from_the_first_difference_to_the_next_agreement() -> None:
    one, other = [0.33, 0.33], [0.33, 0.01]
    assert apart_s([(0.0, one), (0.1, one)]) == 0.0
    assert apart_s([(0.0, one), (0.1, other), (0.2, other), (0.4, one), (0.5, other)]) == 0.3
    assert apart_s([(0.0, [0.1, 0.19])]) == 0.0
    assert apart_s([(0.0, one), (1.0, other), (3.0, other)]) == 2.0, "also when they never agree again"


def shares(*found: float) -> list[Share]:
    """Bins of a quarter second with ten messages each."""
    return [Share(n * 0.25, share, 10) for n, share in enumerate(found)]


def test_a_share_is_below_once_a_whole_second_is() -> None:
    found = shares(0.3, 0.3, 0.05, 0.05, 0.05, 0.05, 0.3)
    assert below_s(found, 0.1, 10) == 0.5
    assert below_s(found, 0.01, 10) is None
    assert below_s(found, 0.1, 0.5) is None


def test_a_provider_is_back_with_half_of_its_share() -> None:
    assert back_s(shares(0.3, 0.0, 0.0, 0.1, 0.2, 0.2, 0.2, 0.2), 0.25) == 0.5
    assert back_s(shares(0.3, 0.0, 0.0, 0.0, 0.0, 0.0), 0.25) is None


def test_a_share_over_a_time_counts_messages() -> None:
    found = [Share(0.0, 0.5, 10), Share(0.25, 0.0, 30), Share(0.5, 1.0, 99)]
    assert between(found, 0.0, 0.5) == 0.125
    assert between([], 0.0, 1.0) == 0.0
