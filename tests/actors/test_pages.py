"""What callbacks need of vendors' own sites: got once, kept for an hour; a vendor repeats itself when it fails."""

from typing import Any

import pytest

from actors.pages import KEEP_S, MOST_KEPT, Pages
from actors.vendors import OneVendor
from channels.adapter import NotWritten, Reply, Request, Written
from channels.kind import Callback, Heard, Missing, NotTrue
from channels.options import Options
from channels.transport import Watch
from dispatcher.http.ports import Unavailable, Untrue, VendorAnswer, VendorCall
from dispatcher.report import Report
from tests.support import run

PAGE = "https://sns.eu-west-1.amazonaws.com/a.pem"
LINK = "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription"


class Site:
    """A transport that answers by a list; the last answer is repeated."""

    def __init__(self, *answers: Reply | Exception) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    async def send(self, request: Request, timeout_s: float, watch: Watch | None = None) -> Reply:
        self.asked.append(request.url)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        pass


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Notary:
    """Callbacks that need one page, and then say what `heard` is."""

    def __init__(self, heard: Heard) -> None:
        self._heard = heard

    def reports(self, provider: str, call: Callback, options: Options) -> Heard:
        if PAGE not in call.fetched:
            raise Missing(PAGE)
        if call.fetched[PAGE] != b"true":
            raise NotTrue
        return self._heard

    uplinks = reports


class Desk:
    """Keeps what it hears; how much of the site was asked for by then is noted."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.heard_after: list[list[str]] = []

    async def heard(self, items: Any) -> None:
        self.heard_after.append(list(self._site.asked))


def told(site: Site, heard: Heard) -> tuple[VendorAnswer, Desk]:
    desk: Any = Desk(site)
    vendor = OneVendor("p1", "sms", Notary(heard), Options(), desk, Pages(site), lambda: 0)
    return run(vendor.heard(VendorCall("reports", "POST", "https://us.example.com/", {}, {}, b""))), desk


def test_kept_for_an_hour() -> None:
    site, clock = Site(Reply(200, {}, b"one"), Reply(200, {}, b"two")), Clock()
    pages = Pages(site, clock)
    assert [run(pages.get(PAGE)), run(pages.get(PAGE))] == [b"one", b"one"]
    clock.now_s = KEEP_S - 1
    assert run(pages.get(PAGE)) == b"one"
    clock.now_s = KEEP_S
    assert run(pages.get(PAGE)) == b"two"
    assert site.asked == [PAGE, PAGE]


def test_bounded() -> None:
    site = Site(Reply(200, {}, b"one"))
    pages = Pages(site, Clock())
    for n in range(MOST_KEPT + 1):
        run(pages.get(f"{PAGE}{n}"))
    run(pages.get(f"{PAGE}{MOST_KEPT}"))
    assert len(site.asked) == MOST_KEPT + 1
    run(pages.get(f"{PAGE}0"))
    assert len(site.asked) == MOST_KEPT + 2


@pytest.mark.parametrize("answer", [NotWritten("no"), Written("no"), Reply(503, {}, b""), Reply(302, {}, b"x")])
def test_a_failure_is_not_kept(answer: Reply | Exception) -> None:
    site = Site(answer, Reply(200, {}, b"one"))
    pages = Pages(site, Clock())
    with pytest.raises(Unavailable):
        run(pages.get(PAGE))
    assert run(pages.get(PAGE)) == b"one"


def test_a_call_is_judged_with_its_page() -> None:
    site = Site(Reply(200, {}, b"true"))
    answer, desk = told(site, Heard([Report("p1", "delivered", find="f")], b"ok", "text/plain"))
    assert answer == VendorAnswer(200, "text/plain", b"ok")
    assert desk.heard_after == [[PAGE]]


def test_a_false_one_is_untrue() -> None:
    with pytest.raises(Untrue):
        told(Site(Reply(200, {}, b"false")), Heard())


def test_a_link_is_visited_before_the_answer() -> None:
    site = Site(Reply(200, {}, b"true"))
    answer, _ = told(site, Heard(visit=LINK))
    assert (answer.status, site.asked) == (200, [PAGE, LINK])


def test_the_vendor_repeats_itself_when_a_link_fails() -> None:
    with pytest.raises(Unavailable):
        told(Site(Reply(200, {}, b"true"), Reply(500, {}, b"")), Heard(visit=LINK))
