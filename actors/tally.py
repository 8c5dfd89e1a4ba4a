"""Counts kept by an actor: plain dictionaries on the hot path, Prometheus families when someone asks.

Names that others rely on: design page `api.md`, "Operations".
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

#: name -> (labels, what it counts). Label values come from closed sets: the catalog's ids and our own words.
COUNTERS: Final[dict[str, tuple[tuple[str, ...], str]]] = {
    "dispatcher_triggers": (("status",), "Triggers answered"),
    "dispatcher_blocked": (("rule", "family", "channel"), "Messages a rule blocked"),
    "dispatcher_answers": (("provider", "answer"), "Answers of providers, one for each attempt"),
    "dispatcher_provider_changes": (("provider", "cause"), "Changes of a provider's score, as a router saw them"),
    "dispatcher_retries": (("lane",), "Attempts at providers after a message's first"),
    "dispatcher_retries_delayed": (("lane",), "Messages whose retry found no budget and waits for it"),
    "dispatcher_shed": (("lane", "level", "reason"), "Triggers turned away while a lane fills"),
    "dispatcher_outcomes": (("channel", "lane", "outcome"), "Messages that ended"),
    "dispatcher_segments": (("provider",), "SMS segments of messages that were accepted"),
    "dispatcher_cost": (("provider",), "What they cost, in the unit of the provider's `price`"),
    "dispatcher_reports": (
        ("provider", "status"),
        "Delivery reports: sent, delivered, undelivered, repeated, or unmatched where there is no such message",
    ),
    "dispatcher_reported_segments": (("provider",), "SMS segments as delivery reports tell them"),
    "dispatcher_reported_cost": (("provider",), "What messages cost, as delivery reports tell it"),
    "dispatcher_uplinks": (
        ("provider", "outcome"),
        "Messages of users: unsubscribed, queued for a line's webhook, full where too many wait for it, repeated, kept",
    ),
    "dispatcher_uplink_answers": (
        ("provider", "status"),
        "Texts back to those who unsubscribe, by the status that a trigger has; duplicate: the number has one already",
    ),
    "dispatcher_forwards": (
        ("line", "outcome"),
        "Users' messages for a line's webhook: delivered, failed, given_up, unclaimed where the line has none any more",
    ),
    "dispatcher_redispatched": (("why",), "Messages handed out again because their outcome was lost with a process"),
    "dispatcher_log_entries": ((), "Entries appended to partition logs"),
    "dispatcher_snapshots": ((), "Partition snapshots written"),
    "dispatcher_catalog_changes": ((), "Catalog changes followed"),
}
GAUGES: Final[dict[str, tuple[tuple[str, ...], str]]] = {
    "dispatcher_outbox_messages": (("lane",), "Messages accepted and not ended"),
    "dispatcher_parked_messages": ((), "Messages waiting for their due time"),
    "dispatcher_provider_share": (("provider",), "Share of its route's traffic a provider gets now"),
    "dispatcher_users": ((), "Users with state in memory"),
    "dispatcher_sender_in_flight": (("provider",), "Requests in the air"),
    "dispatcher_polled_addresses": (("provider",), "Addresses that a vendor is still asked about"),
}
HISTOGRAMS: Final[dict[str, tuple[str, str]]] = {
    "dispatcher_send_seconds": ("provider", "Request to answer at a provider"),
    "dispatcher_end_to_end_seconds": ("lane", "Due time to the provider's acceptance"),
    "dispatcher_report_seconds": ("provider", "A provider's acceptance to its final delivery report"),
}


class Tally:
    """One process's counts. Register it with a Prometheus registry as a collector."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[tuple[str, ...], float]] = {name: {} for name in COUNTERS}
        self._seconds: dict[str, dict[str, list[float]]] = {name: {} for name in HISTOGRAMS}
        self._gauges: dict[str, Callable[[], dict[tuple[str, ...], float]]] = {}

    def add(self, name: str, labels: tuple[str, ...] = (), n: float = 1) -> None:
        """Count `n` more."""
        counts = self._counts[name]
        counts[labels] = counts.get(labels, 0) + n

    def observe(self, name: str, label: str, seconds: float) -> None:
        """One more observation."""
        buckets = self._seconds[name].get(label)
        if buckets is None:
            buckets = self._seconds[name][label] = [0.0] * (len(SECONDS) + 2)
        buckets[bisect_left(SECONDS, seconds)] += 1
        buckets[-1] += seconds

    def observe_all(self, name: str, label: str, seconds: Sequence[float]) -> None:
        """Many observations."""
        for one in seconds:
            self.observe(name, label, one)

    def gauge(self, name: str, read: Callable[[], dict[tuple[str, ...], float]]) -> None:
        """Read this gauge through a callable when asked."""
        if name not in GAUGES:
            raise KeyError(name)
        self._gauges[name] = read

    def value(self, name: str, labels: tuple[str, ...] = ()) -> float:
        """What a counter stands at."""
        return self._counts[name].get(labels, 0)

    def collect(self) -> Iterator[Metric]:
        """Prometheus families of everything counted so far."""
        for name, by_labels in self._counts.items():
            counter = CounterMetricFamily(name, COUNTERS[name][1], labels=COUNTERS[name][0])
            for labels, value in list(by_labels.items()):
                counter.add_metric(labels, value)
            yield counter
        for name, read in self._gauges.items():
            gauge = GaugeMetricFamily(name, GAUGES[name][1], labels=GAUGES[name][0])
            for labels, reading in read().items():
                gauge.add_metric(labels, reading)
            yield gauge
        for name, by_label in self._seconds.items():
            label, text = HISTOGRAMS[name]
            histogram = HistogramMetricFamily(name, text, labels=(label,))
            for label_value, buckets in list(by_label.items()):
                histogram.add_metric((label_value,), _cumulative(buckets), buckets[-1])
            yield histogram


def _cumulative(buckets: list[float]) -> list[tuple[str, float]]:
    total, pairs = 0.0, []
    for bound, n in zip((*map(str, SECONDS), "+Inf"), buckets[:-1], strict=True):
        total += n
        pairs.append((bound, total))
    return pairs
