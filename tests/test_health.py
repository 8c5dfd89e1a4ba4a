"""A bad provider is left fast, probed, and comes back."""

import pytest

from dispatcher.health import AUTH_PROBE_S, PROBE_S, Health


def test_nobody_known_is_well() -> None:
    health = Health()
    assert health.score("a", 0.0) == 1.0
    assert health.share("a", 0.0) == 1.0
    assert health.view("a", 0.0).breaker == "closed"


def test_three_bad_batches_put_it_out() -> None:
    health = Health()
    health.answered("a", 100, 0, 0.0)
    health.answered("a", 0, 100, 0.1)
    assert 0 < health.share("a", 0.1) < 0.3
    health.answered("a", 0, 100, 0.2)
    assert 0 < health.share("a", 0.2) < 0.1
    health.answered("a", 0, 100, 0.2)
    assert health.share("a", 0.2) == 0.0
    assert 0 < health.score("a", 0.2) <= 0.01
    assert health.out("a") == "errors"


def test_one_bad_message_does_not() -> None:
    health = Health()
    health.answered("a", 0, 1, 0.0)
    assert health.share("a", 0.0) > 0.8


def test_singles_put_it_out_too() -> None:
    health = Health()
    for _ in range(19):
        assert health.out("a") is None
        health.answered("a", 0, 1, 0.0)
    assert health.out("a") == "errors"


def test_probes_are_rare_and_a_good_one_brings_it_back() -> None:
    health = Health()
    for _ in range(3):
        health.answered("a", 0, 100, 10.0)
    assert not health.probe("a", 10.0 + PROBE_S / 2)
    assert not health.probe("a", 10.0 + PROBE_S, patience=5)
    assert health.probe("a", 10.0 + PROBE_S)
    assert not health.probe("a", 10.0 + PROBE_S)
    health.answered("a", 0, 1, 11.1)
    assert health.out("a") == "errors"
    assert health.probe("a", 12.1)
    health.answered("a", 1, 0, 12.2)
    back = health.share("a", 12.2)
    assert 0.2 < back < 0.5
    health.answered("a", 100, 0, 12.3)
    assert health.share("a", 12.3) > back


def test_errors_fade_with_time() -> None:
    health = Health()
    health.answered("a", 0, 100, 0.0)
    assert health.share("a", 0.0) == pytest.approx(0.25)
    assert health.share("a", 60.0) > 0.99


def test_auth_takes_it_out_with_its_reason() -> None:
    health = Health()
    health.refused_us("a", "E401", 0.0)
    view = health.view("a", 0.0)
    assert (view.breaker, view.reason, view.error_rate) == ("open", "auth: E401", 1.0)
    assert not health.probe("a", PROBE_S)
    assert health.probe("a", AUTH_PROBE_S)
    health.answered("a", 1, 0, 5.5)
    assert health.out("a") is None


def test_latency_jumps_up_and_comes_down_slowly() -> None:
    health = Health()
    health.took("a", 0.1, 0.0)
    assert health.score("a", 0.0) == 1.0
    health.took("a", 4.0, 1.0)
    assert health.score("a", 1.0) == pytest.approx(0.25)
    health.took("a", 0.1, 2.0)
    assert health.view("a", 2.0).latency_s == pytest.approx(3.63, abs=0.01)
    assert health.score("a", 40.0) == 1.0
    assert health.view("a", 2.0).p95_s == 4.0


def test_a_provider_at_its_limit_loses_share() -> None:
    health = Health()
    health.loaded("a", 8, 10, 0.0)
    assert health.score("a", 0.0) == 1.0
    health.loaded("a", 10, 10, 0.0)
    assert health.score("a", 0.0) == pytest.approx(0.1)


def test_others_are_forgotten() -> None:
    health = Health()
    health.refused_us("a", None, 0.0)
    health.keep({"b"})
    assert health.out("a") is None


def test_a_hanging_provider_loses_share_before_its_timeout() -> None:
    health = Health()
    health.took("a", 0.1, 0.0)
    assert health.score("a", 0.0, waited_s=0.2) == 1.0
    assert health.score("a", 0.0, waited_s=1.2) == pytest.approx(0.25)
    assert health.score("new", 0.0, waited_s=1.0) == pytest.approx(0.25)
    health.took("a", 3.0, 0.0)
    assert health.score("a", 0.0, waited_s=6.0) == health.score("a", 0.0)
