"""Node's http client streams triggers in; a node server takes messages as a provider."""

import base64
import json
import os
import secrets
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.auditor import settled
from tests.interop.conftest import HERE, PARTITIONS
from tests.live import Live, until
from tests.peer import Simulator
from tests.support import run


def streamed(url: str, count: int, prefix: str) -> dict[str, Any]:
    command = ["node", str(HERE / "stream.mjs"), url, str(count), prefix]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_node_streams_and_reads_while_it_writes(pair: tuple[Live, Simulator]) -> None:
    dispatcher, simulated = pair
    told = streamed(dispatcher.url, 4_000, "node")
    assert told["contentType"].startswith("application/x-ndjson")
    assert told["statuses"] == {"accepted": 4_000}
    assert told["seqs"] == told["summary"]["total"] == told["summary"]["accepted"] == 4_000
    assert told["early"] > 0
    ledger = run(settled(dispatcher.store_url, PARTITIONS, set(told["messages"])))
    assert ledger.ended_twice() == []
    taken = {row["id"]: row["to"] for row in simulated.journal(accepted=True) if row["to"].startswith("+86139")}
    assert taken.keys() == set(told["messages"])
    assert sorted(taken.values()) == [f"+86139{n:08d}" for n in range(4_000)]
    again = streamed(dispatcher.url, 4_000, "node")
    assert again["statuses"] == {"duplicate": 4_000}
    assert sorted(again["messages"]) == sorted(told["messages"])


@contextmanager
def provider(secret: str) -> Iterator[int]:
    """The node provider's port."""
    command, environ = ["node", str(HERE / "provider.mjs")], {**os.environ, "WEBHOOK_SECRET": secret}
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def seen_by(port: int) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/seen", timeout=10) as response:
        found: dict[str, Any] = json.load(response)
    return found


@contextmanager
def sending_to(dispatcher: Live, name: str, document: dict[str, Any]) -> Iterator[None]:
    """All text messages go to this provider, until it is gone."""
    assert dispatcher.call("PUT", f"/v1/providers/{name}", document)[0] == 201
    route = {"match": {"channels": ["sms"]}, "providers": [{"id": name}]}
    assert dispatcher.call("PUT", "/v1/routes", [route])[0] in (200, 201)
    yield
    assert dispatcher.call("PUT", "/v1/routes", [])[0] == 200
    assert dispatcher.call("DELETE", f"/v1/providers/{name}")[0] == 204


def test_node_verifies_our_signature_and_takes_our_messages(pair: tuple[Live, Simulator], tmp_path: Path) -> None:
    dispatcher, _ = pair
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    (tmp_path / "secret").write_text(secret)
    with provider(secret) as port:
        url = f"http://127.0.0.1:{port}/messages"
        options = {"url": url, "allow_private": True, "secret": f"file:{tmp_path}/secret"}
        with sending_to(dispatcher, "node", {"kind": "webhook", "channel": "sms", "max_batch": 50, "options": options}):
            triggers = [
                {"id": f"t{n}", "to": {"sms": f"+86137{n:08d}"}, "template": "notice", "line": "wallet",
                 "params": {"n": f"{'refuse' if n % 10 == 0 else '付款'} {n}"}}
                for n in range(200)
            ]  # fmt: skip
            status, answers = dispatcher.call("POST", "/v1/triggers", triggers)
            assert status == 200
            ids = {answer["messages"][0]["message"]: n for n, answer in enumerate(answers)}
            assert len(ids) == 200
            until(lambda: len(seen_by(port)["messages"]) == 200, "node has them all")
            seen = seen_by(port)
            assert seen["bad"] == []
            assert seen["requests"] < 200  # in batches
            for message in seen["messages"]:
                n = ids[message["id"]]
                assert message["to"] == f"+86137{n:08d}"
                assert message["text"] == f"paid {triggers[n]['params']['n']}"  # type: ignore[index]
                assert (message["channel"], message["line"], message["template"]) == ("sms", "wallet", "notice")
            ledger = run(settled(dispatcher.store_url, PARTITIONS, set(ids)))
            outcomes = {id_: (ledger.ends[id_][0][1], ledger.ends[id_][0][2]) for id_ in ids}
            assert outcomes == {id_: ("failed", True) if n % 10 == 0 else ("sent", False) for id_, n in ids.items()}
