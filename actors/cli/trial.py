"""`dispatcher doctor --send-test`: one real message through one provider, outside of any running dispatcher."""

import argparse
import asyncio
import os
import secrets
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
import uvloop

from actors.embedded import EmbeddedValkey
from actors.host import wall_ms
from actors.link import Link
from actors.tokens import Tokens
from channels import ADAPTERS, OptionsError, Way, build
from channels.secret import MASK, is_reference, resolve
from config.load import load
from config.schema import Config
from config.seeds import seeds
from dispatcher.catalog import prepare
from dispatcher.documents import Provider
from dispatcher.message import Message
from dispatcher.receipt import Receipt
from dispatcher.store.catalog import CatalogStore
from dispatcher.store.connection import connect
from dispatcher.store.errors import StoreError
from dispatcher.template import CompiledTemplate
from dispatcher.trial import MEANINGS, Trial, Untriable, message_of

#: A shorter value would be struck out of words that have nothing to do with it.
SHORTEST_SECRET: Final = 4
T = TypeVar("T")


class Known(NamedTuple):
    """Where providers and templates were found, and what they are."""

    where: str
    providers: Mapping[str, Provider]
    templates: Mapping[str, CompiledTemplate]


def add_options(parser: argparse.ArgumentParser) -> None:
    """What `--send-test` takes."""
    group = parser.add_argument_group("sending a test")
    group.add_argument("--send-test", metavar="PROVIDER", help="send one real message through this provider")
    group.add_argument("--to", metavar="ADDRESS", help="number, e-mail address, push token, openid or URL")
    group.add_argument("--template", metavar="T", help="what to send (default: a sentence that says it is a test)")
    group.add_argument("--param", metavar="K=V", action="append", default=[], help="a parameter of the template")
    group.add_argument("--yes", action="store_true", help="do not ask before it is sent")


def run(args: argparse.Namespace, overrides: Mapping[str, Any]) -> int:
    """0 when the provider accepted the message, 1 when it did not or nothing was sent, 2 for a wrong command line.
    Raises ConfigError."""
    config = load(args.config, os.environ, overrides)
    id_: str = args.send_test
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            known = runner.run(_known(config))
            provider = _named("--send-test", id_, known.where, known.providers)
            trial = _trial(args, provider, known)
            message = message_of(trial, config.region, wall_ms(), secrets.token_hex(8))
            way = runner.run(_built(id_, provider))
        except Untriable as error:
            print(f"doctor: {error}", file=sys.stderr)
            return 2
        except OptionsError as error:
            for path, what in error.errors:
                print(f"doctor: providers.{id_}.{path}: {what}", file=sys.stderr)
            return 1
        hidden = _hidden(provider, os.environ)
        print(_struck(_plan(id_, provider, known.where, trial, message), hidden))
        if not args.yes and not _confirmed():
            print("nothing was sent")
            return 1
        receipt, took_s = runner.run(_exchanged(id_, provider, way, message))
        print(_struck(_result(receipt, took_s), hidden))
        return int(receipt.answer != "accepted")


async def _known(config: Config) -> Known:
    """Those of the catalog where a store answers that has one, else those of the configuration. Starts nothing."""
    where, documents = "configuration", seeds(config)
    try:
        client = connect(config.redis.url or EmbeddedValkey(Path(config.data_dir)).url)
        try:
            store = CatalogStore(client)
            if await store.seeded():
                rows = {kind: await store.list(kind) for kind in ("providers", "templates")}
                documents = {kind: {id_: row.doc for id_, row in found.items()} for kind, found in rows.items()}
                where = "catalog"
        finally:
            await client.aclose()
    except StoreError:
        pass  # none runs, and to try a provider none has to
    return Known(where, _documents("providers", documents), _documents("templates", documents))


def _documents(kind: str, documents: Mapping[str, Mapping[str, bytes]]) -> dict[str, Any]:
    found = {id_: prepare(kind, id_, doc) for id_, doc in documents[kind].items()}
    return {id_: ready.document for id_, ready in found.items() if ready is not None}


def _named(option: str, id_: str, where: str, there: Mapping[str, T]) -> T:
    found = there.get(id_)
    if found is None:
        raise Untriable(f"{option}: there is no {id_!r} in the {where}; it has: {', '.join(sorted(there)) or 'none'}")
    return found


def _trial(args: argparse.Namespace, provider: Provider, known: Known) -> Trial:
    kind = ADAPTERS.get(provider.kind)
    if kind is None:
        raise Untriable(f"providers.{args.send_test}.kind: unknown kind `{provider.kind}`")
    robot = kind.channels == ("webhook",)  # the group is the provider's
    if not args.to and not robot:
        raise Untriable(f"--to: missing; a provider of channel `{provider.channel}` needs an address")
    template = args.template and _named("--template", args.template, known.where, known.templates)
    extra = {"vendor": provider.kind} if kind.channels == ("push",) else None
    return Trial(provider.channel, args.to or "", template or None, _params(args.param), extra, robot)


def _params(given: Iterable[str]) -> dict[str, str]:
    params = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not name or not equals:
            raise Untriable(f"--param: {one!r} is not k=v")
        params[name] = value
    return params


# -- sending


async def _built(id_: str, provider: Provider) -> Way:
    """In the loop that its connections will live in."""
    return build(id_, provider, os.environ)


async def _exchanged(id_: str, provider: Provider, way: Way, message: Message) -> tuple[Receipt, float]:
    """What the provider answered, and after how many seconds; an access token is fetched where the kind needs one."""
    link = Link(id_, way, provider.timeout_s, Tokens(None, time.time))
    began_s = time.perf_counter()
    try:
        [receipt] = await link.exchange([message], wall_ms)
        return receipt, time.perf_counter() - began_s
    finally:
        await link.retire()


def _confirmed() -> bool:
    try:
        return input("Send it? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        print()
        return False


# -- what is said


def _plan(id_: str, provider: Provider, where: str, trial: Trial, message: Message) -> str:
    enabled = "" if provider.enabled else ", not enabled"
    rows = {
        "provider": f"{id_} (kind {provider.kind}, channel {provider.channel}{enabled}; of the {where})",
        "to": "the robot's own group" if trial.placed else message.to,
        "template": "none" if trial.template is None else message.template,
    }
    return _table({**rows, **{name: _shown(value) for name, value in message.fields.items()}})


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _result(receipt: Receipt, took_s: float) -> str:
    rows = {
        "answer": receipt.answer,
        "ref": receipt.ref or "none",
        "code": receipt.code or "none",
        "took": f"{took_s * 1000:.0f} ms",
    }
    if receipt.retry_after_s is not None:
        rows["try again"] = f"in {receipt.retry_after_s:g} s, it says"
    meaning = MEANINGS.get(receipt.answer)
    if meaning is not None:
        rows |= {"means": meaning.means, "to do": meaning.mend}
    return _table(rows)


def _table(rows: Mapping[str, str]) -> str:
    return "\n".join(f"{name:<10}{value}" for name, value in rows.items())


def _hidden(provider: Provider, environ: Mapping[str, str]) -> list[str]:
    """What the references of its options lead to. A vendor may well say a key back in its answer."""
    found = [resolve(value, environ) for value in provider.options.values() if is_reference(value)]
    parts = {part for text in found for part in (text, *text.splitlines())}
    return sorted((part for part in parts if len(part) >= SHORTEST_SECRET), key=len, reverse=True)


def _struck(text: str, hidden: Iterable[str]) -> str:
    for secret in hidden:
        text = text.replace(secret, MASK)
    return text
