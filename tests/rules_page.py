"""Writes `docs/rules.md` from the rules themselves: `make docs`. A test compares, so the page cannot drift."""

import json
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from config.load import load
from dispatcher.explanation import Rehearsed
from dispatcher.rules import RULE_KINDS, Rule, explain
from tests.scenes import example, scene

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "rules.md"

HEAD: Final = """# Rules

Which messages a user gets, and which not. Two families: **filters** protect users from marketing (`filtered`),
**interceptions** protect users and the bill from faulty callers (`intercepted`). The rules are one ordered list; the
first that objects decides, and its kind is the `reason`. This page is written by `make docs` from the code, and a test
compares the two.

| kind | family | what holds |
|---|---|---|
{kinds}

**Scope.** Each rule sees only messages within its scope: `types`, `channels`, `lines`, `templates`, `levels`. An empty
one means all. A rule outside whose scope a message lies does not appear in its explanation.

**What counts** are the user's messages on that channel that lie within the rule's scope and are reserved or were sent.
A blocked message never counts, and one that surely was not sent (refused, expired, dead) no longer does. The user is
the trigger's `user`, or, where it names addresses only, the first good address.

**Time.** A rolling window is half open: a send at `t` counts at `now` while `now - t < window_s`, to the millisecond.
Windows `per` day or hour, and quiet hours, go by the configured `timezone`, or by the user's own where the rule says
`"timezone": "user"` and the profile has one. A local day has 23 or 25 hours when the clocks change.

**Words.** Fields and listed words alike are folded before they are compared: NFKC, letter case, traditional characters
to simplified ones, and without separators (spaces, invisible characters, marks, punctuation and `_`). Each field is
searched alone; the word as listed, the field and the place in it are reported. Lists are `PUT /v1/keywords/{{list}}`.

**When.** A message is decided when it becomes due. One with a future `send_at` is checked at once by {at_admission}
only, answered `accepted`, kept in the log, and decided by the whole list when due. {at_attempts} and the expiry are
checked once more before each attempt to send.

## Editing them while it runs

`GET /v1/rules` shows the list with its version as `ETag`, `PUT /v1/rules` replaces it. A PUT is answered once every
shard decides by the new list; sends made before keep counting. `If-Match` guards against a colleague's edit (412),
errors name the path (`[2].window_s`), and `GET /v1/rules/versions` tells who changed what and when. A replay after a
crash decides nothing again: the log holds what was decided. A send that no rule of the old list could count any more
may be forgotten already, so a longer window is whole only after it has passed once.

## Asking why

`POST /v1/triggers?dry_run=true` takes what the live call takes, decides by the live rules and the live state of that
user, and does nothing. Each result carries, for each channel tried, what every rule in scope found, past the first
objection too, and which providers could send. `count` excludes the message; what has no meaning for a kind is null;
`resets_at` is when one more would pass, or, where it passes now, when the count falls. A trigger that is known already
is answered `duplicate` and explained as if it were new.

The same numbers, as of the moment of the decision, stand in the log's `block` entry of each blocked message.

## The shipped rules

`config/default.toml` seeds these at the first start:

| name | kind | channels | types | other |
|---|---|---|---|---|
{shipped}
"""

SECTION: Final = """
## `{kind}`

{family}. {doc}

| parameter | default | what it is |
|---|---|---|
{parameters}

```json
{example}
```

```json
{explained}
```
"""


def page() -> str:
    """The whole page."""
    head = HEAD.format(
        kinds="\n".join(_row(f"`{name}`", kind.family, _doc(kind)) for name, kind in RULE_KINDS.items()),
        at_admission=" and ".join(f"`{name}`" for name, kind in RULE_KINDS.items() if kind.at_admission),
        at_attempts=" and ".join(f"`{name}`" for name, kind in RULE_KINDS.items() if kind.at_attempts).capitalize(),
        shipped="\n".join(_shipped(rule) for rule in msgspec.to_builtins(load(None, {}).rules)),
    )
    return head + "".join(_section(name, kind) for name, kind in RULE_KINDS.items())


def _section(name: str, kind: type[Rule]) -> str:
    rule = example(name, 0)
    message, user, now_ms = scene(name)
    [shown] = Rehearsed(message, explain([rule], message, user, now_ms)).explanation([]).rules
    return SECTION.format(
        kind=name,
        family={"filter": "Filter", "intercept": "Interception"}[kind.family],
        doc=_doc(kind),
        parameters="\n".join(_parameters(kind)),
        example=json.dumps({"name": "a rule", "kind": name, **kind.examples[0]}),
        explained=msgspec.json.encode(shown).decode(),
    )


def _parameters(kind: type[Rule]) -> list[str]:
    """A row for each parameter; of the scope only what has a default of its own."""
    schema = msgspec.json.schema(kind)["$defs"][kind.__name__]
    scope = msgspec.json.schema_components([Rule])[1]["Rule"]["properties"]
    rows = []
    for name, field in schema["properties"].items():
        if name in ("kind", "name") or (name in scope and field.get("default") == scope[name].get("default")):
            continue
        default = "required" if name in schema["required"] else f"`{json.dumps(field['default'])}`"
        text = field.get("description") or scope.get(name, {}).get("description", "")
        rows.append(_row(f"`{name}`", default, text))
    return rows or [_row("none of its own", "", "")]


def _shipped(rule: dict[str, Any]) -> str:
    rest = {key: value for key, value in rule.items() if key not in ("name", "kind", "channels", "types")}
    other = ", ".join(f"{key} {value}" for key, value in rest.items())
    channels, types = (", ".join(rule.get(name, ())) for name in ("channels", "types"))
    return _row(f"`{rule['name']}`", rule["kind"], channels, types, other)


def _doc(kind: type[Rule]) -> str:
    return " ".join((kind.__doc__ or "").split())


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.stdout.write(f"written: {PAGE.name}\n")
