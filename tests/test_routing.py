"""Who may carry a message, and how a batch is divided."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.documents import Match, Provider, Route, RouteProvider
from dispatcher.routing import KEPT_WARM, TIE, Candidate, Choice, RouteTable, shares_of, split

PROVIDERS = {
    "a": Provider("webhook", "sms", max_batch=100),
    "b": Provider("webhook", "sms", max_batch=100),
    "off": Provider("webhook", "sms", enabled=False),
    "mail": Provider("webhook", "email"),
}


def route(match: Match, *providers: str, mode: str = "auto") -> Route:
    return Route([RouteProvider(id_) for id_ in providers], match, mode)  # type: ignore[arg-type]


def names(choice: Choice) -> list[str]:
    return [c.provider for c in choice.candidates]


class TestTable:
    def test_without_routes_every_enabled_provider_of_the_channel(self) -> None:
        choice = RouteTable([], PROVIDERS).choice("sms", "notice", "default", "t", None)
        assert choice.candidates == (Candidate("a", 1.0, 100), Candidate("b", 1.0, 100))
        assert not choice.pinned

    @pytest.mark.parametrize(
        "match",
        [
            Match(channels=["sms"]),
            Match(types=["notice"]),
            Match(lines=["wallet"]),
            Match(templates=["pay"]),
            Match(regions=["CN"]),
        ],
    )
    def test_each_list_matches_its_own_field(self, match: Match) -> None:
        table = RouteTable([route(match, "b")], PROVIDERS)
        assert names(table.choice("sms", "notice", "wallet", "pay", "CN")) == ["b"]
        others = ("email" if match.channels else "sms", "marketing", "other", "other", "US")
        assert names(table.choice(*others)) == (["mail"] if match.channels else ["a", "b"])

    def test_first_match_wins_and_disabled_are_passed_over(self) -> None:
        routes = [route(Match(types=["notice"]), "off", "b", mode="pinned"), route(Match(), "a")]
        table = RouteTable(routes, PROVIDERS)
        choice = table.choice("sms", "notice", "default", "t", None)
        assert names(choice) == ["b"]
        assert choice.pinned
        assert names(table.choice("sms", "marketing", "default", "t", None)) == ["a"]

    def test_a_route_to_nobody_enabled_is_a_route_to_nobody(self) -> None:
        table = RouteTable([route(Match(), "off")], PROVIDERS)
        assert names(table.choice("sms", "notice", "default", "t", None)) == []

    def test_a_route_of_sms_providers_hides_no_other_channel(self) -> None:
        table = RouteTable([route(Match(), "a")], PROVIDERS)
        assert names(table.choice("email", "notice", "default", "t", None)) == ["mail"]

    def test_a_push_token_goes_to_its_own_vendor(self) -> None:
        push = {kind: Provider(kind, "push") for kind in ("fcm", "apns", "webhook")}

        def takers(vendor: str | None, *listed: str) -> list[str]:
            table = RouteTable([route(Match(), *listed)], push)
            return names(table.choice("push", "notice", "l", "t", None, vendor))

        assert takers("fcm", "fcm", "apns", "webhook") == ["fcm"]
        assert takers(None, "fcm", "apns", "webhook") == ["fcm", "apns", "webhook"]
        assert takers("jpush", "fcm", "apns", "webhook") == ["webhook"]  # a gateway of the house
        assert takers("jpush", "fcm", "apns") == []
        table = RouteTable([], push)
        choices = [table.choice("push", "notice", "l", "t", None, vendor) for vendor in (None, "fcm", "apns")]
        assert len({choice.number for choice in choices}) == 3

    def test_one_choice_for_all_keys_of_a_route(self) -> None:
        table = RouteTable([route(Match(), "a", "b")], PROVIDERS)
        one = table.choice("sms", "notice", "l", "t1", "CN")
        assert one is table.choice("sms", "marketing", "l2", "t2", None)
        assert one.number != table.choice("email", "notice", "l", "t", None).number

    def test_shares_are_those_of_the_first_route(self) -> None:
        weighted = Route([RouteProvider("a", 3), RouteProvider("b", 1)], Match(types=["notice"]))
        table = RouteTable([weighted, route(Match(), "b")], PROVIDERS)
        shares = table.shares(lambda _: 1.0)
        assert shares == {"a": 0.75, "b": 0.25, "mail": 1.0}
        assert table.shares(lambda id_: 0.0 if id_ == "a" else 1.0)["b"] == 1.0


def choice_of(*weights: float, max_batch: int = 100, pinned: bool = False) -> Choice:
    return Choice(0, tuple(Candidate(f"p{i}", w, max_batch) for i, w in enumerate(weights)), pinned)


def well(_: str) -> float:
    return 1.0


class TestSplit:
    @given(
        st.integers(0, 2000),
        st.lists(st.tuples(st.floats(0.01, 100), st.integers(1, 1000), st.floats(0, 1)), max_size=8),
        st.sets(st.integers(0, 7)),
        st.booleans(),
        st.integers(),
    )
    def test_all_of_it_goes_to_live_candidates(
        self, n: int, rows: list[tuple[float, int, float]], tried: set[int], pinned: bool, seed: int
    ) -> None:
        choice = Choice(0, tuple(Candidate(f"p{i}", w, m) for i, (w, m, _) in enumerate(rows)), pinned)
        health = {f"p{i}": h for i, (_, _, h) in enumerate(rows)}
        avoid = [f"p{i}" for i in tried]
        parts = split(n, choice, health.__getitem__, avoid, Random(seed))
        live = {c.provider for c in choice.candidates if c.weight * health[c.provider] > 0}
        assert sum(k for _, k in parts) == (n if live else 0)
        assert all(k > 0 for _, k in parts)
        assert len({p for p, _ in parts}) == len(parts)
        assert {p for p, _ in parts} <= (live - set(avoid) or live)

    @given(st.integers(1, 5000), st.lists(st.floats(0.1, 10), min_size=2, max_size=5), st.integers())
    def test_no_crumbs_and_near_its_share(self, n: int, weights: list[float], seed: int) -> None:
        parts = dict(split(n, choice_of(*weights), well, (), Random(seed)))
        pieces = max(1, n // 100)
        for i, weight in enumerate(weights):
            fair = n * weight / sum(weights)
            assert abs(parts.get(f"p{i}", 0) - fair) <= n / pieces + 1
        if len(parts) > 1:
            assert min(parts.values()) >= 99

    def test_a_batch_of_one_request_stays_whole(self) -> None:
        for seed in range(50):
            assert len(split(100, choice_of(1, 1, 1), well, (), Random(seed))) == 1

    @pytest.mark.parametrize("n", [1, 60, 250, 400])
    def test_fair_over_time(self, n: int) -> None:
        rng, counts = Random(7), Counter[str]()
        for _ in range(6000):
            counts.update(dict(split(n, choice_of(3, 1, 1), well, (), rng)))
        total = counts.total()
        assert counts["p0"] / total == pytest.approx(0.6, abs=0.02)
        assert counts["p1"] / total == pytest.approx(0.2, abs=0.02)

    def test_health_moves_the_share(self) -> None:
        rng, counts = Random(7), Counter[str]()
        for _ in range(4000):
            counts.update(dict(split(10, choice_of(1, 1), {"p0": 1.0, "p1": 0.25}.__getitem__, (), rng)))
        assert counts["p1"] / counts.total() == pytest.approx(0.2, abs=0.03)

    def test_pinned_keeps_the_listed_order(self) -> None:
        choice, rng = choice_of(1, 5, 1, pinned=True), Random(1)
        assert split(400, choice, well, (), rng) == [("p0", 400)]
        assert split(400, choice, {"p0": 0.0, "p1": 0.1, "p2": 1.0}.__getitem__, (), rng) == [("p1", 400)]
        assert split(4, choice, well, ("p0",), rng) == [("p1", 4)]

    def test_tried_ones_only_when_nobody_else_is_left(self) -> None:
        assert split(4, choice_of(9, 1), well, ("p0",), Random(1)) == [("p1", 4)]
        assert sum(k for _, k in split(4, choice_of(9, 1), well, ("p0", "p1"), Random(1))) == 4
        assert split(4, choice_of(9, 1), lambda _: 0.0, (), Random(1)) == []

    @settings(max_examples=15)
    @given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.01, 1)), min_size=2, max_size=5), st.integers(0, 2**32))
    def test_shares_follow_weight_times_health(self, rows: list[tuple[float, float]], seed: int) -> None:
        choice, rng, counts = choice_of(*(w for w, _ in rows)), Random(seed), Counter[str]()
        health = {f"p{i}": h for i, (_, h) in enumerate(rows)}.__getitem__
        runs = 3000
        for _ in range(runs):
            counts.update(dict(split(1, choice, health, (), rng)))
        for id_, share in shares_of(choice, health).items():
            deviation = (runs * share * (1 - share)) ** 0.5
            assert abs(counts[id_] - runs * share) <= 5 * deviation + 1


class TestPrice:
    @given(
        st.lists(
            st.tuples(st.floats(0.01, 10), st.just(0.0) | st.floats(0.01, 1.0), st.none() | st.floats(0.01, 1.0)),
            min_size=1,
            max_size=6,
        )
    )
    def test_the_cheapest_of_the_tied_gets_what_the_dearer_leave(
        self, rows: list[tuple[float, float, float | None]]
    ) -> None:
        candidates = tuple(
            Candidate(f"p{i}", weight, 1, {} if price is None else {"CN": price})
            for i, (weight, _, price) in enumerate(rows)
        )
        choice = Choice(0, candidates, priced=frozenset(["CN"]))
        health = {f"p{i}": h for i, (_, h, _) in enumerate(rows)}.__getitem__
        plain, priced = shares_of(choice, health), shares_of(choice, health, "CN")
        best = max(plain.values())
        assert sum(priced.values()) == pytest.approx(sum(plain.values()))
        tied = {c.provider: c.price["CN"] for c in candidates if plain[c.provider] >= best * (1 - TIE) and c.price}
        for id_, share in plain.items():
            if share == 0:
                assert priced[id_] == 0, "who is out stays out"
            elif id_ in tied and tied[id_] > min(tied.values()) and abs(share / best - 1 + TIE) > 1e-6:
                assert priced[id_] == pytest.approx(share * KEPT_WARM)
            elif id_ not in tied and abs(share / best - 1 + TIE) > 1e-6:
                assert priced[id_] == pytest.approx(share)

    def test_weights_and_health_come_before_price(self) -> None:
        cheap = Candidate("cheap", 1.0, 1, {"CN": 0.01})
        choice = Choice(0, (Candidate("dear", 1.0, 1, {"CN": 0.05}), cheap), priced=frozenset(["CN"]))
        assert shares_of(choice, well, "CN")["cheap"] == pytest.approx(1 - 0.5 * KEPT_WARM)
        assert shares_of(choice, well, "US")["cheap"] == 0.5
        ill = {"dear": 1.0, "cheap": 0.8}.__getitem__
        assert shares_of(choice, ill, "CN")["cheap"] == pytest.approx(0.8 / 1.8)
        counts = Counter[str]()
        for seed in range(1000):
            counts.update(dict(split(1, choice, well, (), Random(seed), "CN")))
        assert counts["dear"] / 1000 == pytest.approx(0.5 * KEPT_WARM, abs=0.02)

    def test_regions_with_two_prices_are_compared_unless_the_route_is_pinned(self) -> None:
        providers = {
            "a": Provider("webhook", "sms", price={"CN": 1.0, "US": 1.0}),
            "b": Provider("webhook", "sms", price={"CN": 2.0}),
        }
        assert RouteTable([], providers).choice("sms", "notice", "l", "t", "CN").priced == {"CN"}
        pinned = RouteTable([route(Match(), "a", "b", mode="pinned")], providers)
        assert pinned.choice("sms", "notice", "l", "t", "CN").priced == set()
