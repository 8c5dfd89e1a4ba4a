"""Reads every process's metrics, as Prometheus would, and adds them up."""

import asyncio
from collections.abc import Iterator

import aiohttp
from msgspec import Struct
from prometheus_client.parser import text_string_to_metric_families


class Figures(Struct):
    """What the whole system has counted so far."""

    statuses: dict[str, float] = {}
    blocked: dict[str, float] = {}  # by rule
    answers: dict[str, dict[str, float]] = {}  # by provider, by answer
    outcomes: dict[str, float] = {}
    waiting: dict[str, float] = {}  # by lane

    @property
    def ended(self) -> float:
        """Messages that have an outcome."""
        return sum(self.outcomes.values())


async def read_figures(session: aiohttp.ClientSession, url: str) -> Figures:
    """The counts of all processes now. Ones that do not answer are left out."""
    async with session.get(f"{url}/v1/targets") as response:
        targets = await response.json()
    addresses = [
        address
        for target in targets
        if target["labels"]["role"] == "shard"
        for address in target["targets"]
    ]
    figures = Figures()
    for text in await asyncio.gather(*(_text(session, address) for address in addresses)):
        for name, labels, value in _samples(text):
            _add(figures, name, labels, value)
    return figures


async def _text(session: aiohttp.ClientSession, address: str) -> str:
    try:
        async with session.get(f"http://{address}/metrics") as response:
            return await response.text()
    except aiohttp.ClientError:
        return ""


def _samples(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    for family in text_string_to_metric_families(text):
        if family.name.startswith("dispatcher_") and family.type != "histogram":
            for sample in family.samples:
                yield sample.name, sample.labels, sample.value


def _add(figures: Figures, name: str, labels: dict[str, str], value: float) -> None:
    if name == "dispatcher_triggers_total":
        _count(figures.statuses, labels["status"], value)
    elif name == "dispatcher_blocked_total":
        _count(figures.blocked, labels["rule"], value)
    elif name == "dispatcher_answers_total":
        _count(figures.answers.setdefault(labels["provider"], {}), labels["answer"], value)
    elif name == "dispatcher_outcomes_total":
        _count(figures.outcomes, labels["outcome"], value)
    elif name == "dispatcher_outbox_messages":
        _count(figures.waiting, labels["lane"], value)


def _count(counts: dict[str, float], key: str, value: float) -> None:
    counts[key] = counts.get(key, 0) + value
