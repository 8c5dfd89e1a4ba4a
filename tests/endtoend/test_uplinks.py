"""Uplinks through a provider's address: an unsubscription holds for the next message, a keyword reaches its line."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from channels.standard_webhooks import is_signed, signing_key
from tests.endtoend.conftest import Pair
from tests.endtoend.talk import notice, phone, samples
from tests.endtoend.test_reports import post, put
from tests.live import Live, until

SECRET = "whsec_c2hhbGxub3RiZXNlZW4="


@contextmanager
def owner(seen: list[dict[str, Any]]) -> Iterator[str]:
    """A line's webhook, which is out of order at first; it notes every signed request."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            assert is_signed(signing_key(SECRET), headers, body, time.time())
            seen.append({"id": headers["webhook-id"], **json.loads(body)["data"]})
            self.send_response(503 if len(seen) == 1 else 204)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/uplinks"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def sent(dispatcher: Live, id_: str, to: str, template: str) -> tuple[str, Any]:
    """Status and reason of one trigger."""
    params = {"code": "123456"} if template == "code" else {"n": id_}
    status, result = dispatcher.call("POST", "/v1/triggers", notice(id_, to, id_, template=template, params=params))
    assert status == 200, result
    return result["status"], result.get("reason")


def test_who_unsubscribes_gets_no_marketing_and_still_gets_codes(pair: Pair, mark: str, area: int) -> None:
    dispatcher, _ = pair
    rules = dispatcher.call("GET", "/v1/rules")[1]
    put(dispatcher, "/v1/rules", [{"kind": "blacklist", "name": "blacklist"}])
    leaves, stays = phone(area, 1), phone(area, 2)
    url = dispatcher.call("GET", "/v1/providers/sms-a")[1]["uplinks_url"]
    assert sent(dispatcher, f"{mark}-0", leaves, "sale")[0] == "accepted"
    began_s = time.monotonic()
    assert post(url, [{"from": leaves, "text": " td "}, {"from": stays, "text": "TD soon?"}]) == 200
    assert sent(dispatcher, f"{mark}-1", leaves, "sale") == ("filtered", "blacklist")
    took_s = time.monotonic() - began_s
    assert sent(dispatcher, f"{mark}-2", leaves, "code")[0] == "accepted"
    assert sent(dispatcher, f"{mark}-3", stays, "sale")[0] == "accepted"
    assert took_s < 10  # a second is promised; this machine may be busy
    entries = dispatcher.call("GET", f"/v1/blacklist?address={leaves.replace('+', '%2B')}")[1]
    assert {(e["type"], e["channel"], e["why"]) for e in entries} == {
        (type_, "sms", "unsubscribed at sms-a: td") for type_ in ("marketing", "notice_marketing")
    }
    put(dispatcher, "/v1/rules", rules)


def test_who_unsubscribes_is_answered_once(pair: Pair, mark: str, area: int) -> None:
    dispatcher, simulated = pair
    leaves = phone(area, 3)
    provider = dispatcher.call("GET", "/v1/providers/sms-a")[1]
    bye = {"type": "notice", "channels": [{"channel": "sms", "text": f"bye {mark}"}]}
    put(dispatcher, f"/v1/templates/{mark}", bye)
    put(dispatcher, "/v1/providers/sms-a", {**provider, "unsubscribe_answer": {"template": mark, "line": "wallet"}})
    for said in ({"id": f"{mark}-1", "text": "TD"}, {"id": f"{mark}-1", "text": "TD"}, {"text": "stop"}):
        assert post(provider["uplinks_url"], [{"from": leaves, **said}]) == 200
    trigger = notice(f"{mark}-after", leaves, mark)  # decided after every answer, and sent after them
    assert dispatcher.call("POST", "/v1/triggers", trigger)[1]["status"] == "accepted"

    def arrived() -> list[str]:
        return [row["template"] for row in simulated.journal() if row["to"] == leaves and row["accepted"]]

    until(lambda: {mark, "notice"} <= set(arrived()), "the answer and what was sent after it")
    assert sorted(arrived()) == sorted([mark, "notice"])
    label = (("provider", "sms-a"), ("status", "duplicate"))
    assert samples(dispatcher)["dispatcher_uplink_answers_total", label] == 1
    put(dispatcher, "/v1/providers/sms-a", {**provider, "unsubscribe_answer": None})


def test_a_keyword_reaches_its_line_once_though_its_webhook_failed_at_first(
    pair: Pair, mark: str, area: int, tmp_path: Path
) -> None:
    dispatcher, _ = pair
    (tmp_path / "secret").write_text(SECRET)
    url = dispatcher.call("GET", "/v1/providers/sms-a")[1]["uplinks_url"]
    seen: list[dict[str, Any]] = []
    with owner(seen) as hook:
        way = {"keywords": [f"CX{mark}"], "url": hook, "secret": f"file:{tmp_path}/secret", "allow_private": True}
        put(dispatcher, "/v1/lines/wallet", {"name": "Wallet", "uplinks": way})
        status, problem = dispatcher.call("PUT", "/v1/lines/loan", {"uplinks": way})
        assert (status, problem["errors"][0]["message"]) == (422, "belongs to the line 'wallet' (Wallet)")
        asked = [{"id": mark, "from": phone(area, 1), "to": "1069", "text": f"cx{mark} 5"}]
        for _ in range(3):
            assert post(url, asked) == 200
        label = (("line", "wallet"), ("outcome", "delivered"))
        until(lambda: samples(dispatcher).get(("dispatcher_forwards_total", label), 0) == 1, "the webhook took it")
        assert [one["id"] for one in seen] == [seen[0]["id"]] * 2
        assert (seen[1]["from"], seen[1]["text"], seen[1]["channel"]) == (phone(area, 1), f"cx{mark} 5", "sms")
    put(dispatcher, "/v1/lines/wallet", {})
