"""What Prometheus reads: the values, not only the names."""

import urllib.request

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from actors.exposition import expose, registry_of
from actors.tally import COUNTERS, GAUGES, HISTOGRAMS, SECONDS, Tally

Sample = tuple[str, frozenset[tuple[str, str]]]


def read(text: str) -> dict[Sample, float]:
    """Every sample, by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def samples(tally: Tally) -> dict[Sample, float]:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(tally)
    return read(generate_latest(registry).decode())


def sample(name: str, **labels: str) -> Sample:
    return name, frozenset(labels.items())


def test_counters_count() -> None:
    tally = Tally()
    tally.add("dispatcher_triggers", ("accepted",))
    tally.add("dispatcher_triggers", ("accepted",), 41)
    tally.add("dispatcher_triggers", ("filtered",))
    tally.add("dispatcher_outcomes", ("sms", "urgent", "sent"), 7)
    tally.add("dispatcher_log_entries", n=3)
    found = samples(tally)
    assert found[sample("dispatcher_triggers_total", status="accepted")] == 42
    assert found[sample("dispatcher_triggers_total", status="filtered")] == 1
    assert found[sample("dispatcher_outcomes_total", channel="sms", lane="urgent", outcome="sent")] == 7
    assert found[sample("dispatcher_log_entries_total")] == 3
    assert tally.value("dispatcher_triggers", ("accepted",)) == 42
    assert tally.value("dispatcher_triggers", ("rejected",)) == 0


def test_gauges_are_read_when_asked() -> None:
    tally = Tally()
    backlog: dict[tuple[str, ...], float] = {("urgent",): 3.0}
    tally.gauge("dispatcher_outbox_messages", lambda: backlog)
    assert samples(tally)[sample("dispatcher_outbox_messages", lane="urgent")] == 3
    backlog["urgent",] = 0.0
    backlog["bulk",] = 9.0
    found = samples(tally)
    assert found[sample("dispatcher_outbox_messages", lane="urgent")] == 0
    assert found[sample("dispatcher_outbox_messages", lane="bulk")] == 9


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.0011, 0.25, 0.2500001, 299.0, 300.0, 301.0, 1e6])
def test_an_observation_is_in_every_bucket_that_holds_it(seconds: float) -> None:
    tally = Tally()
    tally.observe("dispatcher_send_seconds", "p", seconds)
    found = samples(tally)
    for bound in SECONDS:
        bucket = found[sample("dispatcher_send_seconds_bucket", provider="p", le=str(bound))]
        assert bucket == (seconds <= bound), bound
    assert found[sample("dispatcher_send_seconds_bucket", provider="p", le="+Inf")] == 1
    assert found[sample("dispatcher_send_seconds_count", provider="p")] == 1
    assert found[sample("dispatcher_send_seconds_sum", provider="p")] == pytest.approx(seconds)


def test_observations_add_up() -> None:
    tally = Tally()
    for seconds in (0.002, 0.002, 0.04, 7.0):
        tally.observe("dispatcher_end_to_end_seconds", "bulk", seconds)
    tally.observe("dispatcher_end_to_end_seconds", "urgent", 0.5)
    found = samples(tally)
    below = {b: found[sample("dispatcher_end_to_end_seconds_bucket", lane="bulk", le=str(b))] for b in SECONDS}
    assert (below[0.001], below[0.0025], below[0.05], below[5.0], below[10.0]) == (0, 2, 3, 3, 4)
    assert found[sample("dispatcher_end_to_end_seconds_sum", lane="bulk")] == pytest.approx(7.044)
    assert found[sample("dispatcher_end_to_end_seconds_count", lane="urgent")] == 1


def test_label_values_are_escaped() -> None:
    tally = Tally()
    tally.add("dispatcher_answers", ('a"b\\c\nd', "accepted"))
    assert samples(tally)[sample("dispatcher_answers_total", provider='a"b\\c\nd', answer="accepted")] == 1


def test_a_name_nobody_declared_is_a_bug() -> None:
    tally = Tally()
    with pytest.raises(KeyError):
        tally.add("dispatcher_things")
    with pytest.raises(KeyError):
        tally.gauge("dispatcher_things", dict)
    with pytest.raises(KeyError):
        tally.observe("dispatcher_things", "a", 1.0)


def test_names_are_those_of_the_house() -> None:
    for name in (*COUNTERS, *GAUGES, *HISTOGRAMS):
        assert name.startswith("dispatcher_")
        assert not name.endswith("_total")
    assert all(name.endswith("_seconds") for name in HISTOGRAMS)


def test_the_exposed_port_serves_the_same_values() -> None:
    tally = Tally()
    tally.add("dispatcher_snapshots", n=5)
    port = expose(registry_of(tally), "127.0.0.1")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        found = read(response.read().decode())
    assert found[sample("dispatcher_snapshots_total")] == 5
    assert found[sample("process_open_fds")] > 0
