"""Turns msgspec's errors into ours: our paths, the value that was found, the nearest known name."""

import re
from typing import Any, Final

import msgspec
from msgspec import inspect

from config.errors import unknown_key
from config.secrets import is_secret

_AT: Final = re.compile(r" - at (?:`key` in )?`\$(?P<path>[^`]*)`$")
_STEP: Final = re.compile(r"\.(?P<key>[^.\[]+)|\[(?P<index>\d+)\]|\[\.\.\.\]")
_EXPECTED: Final = re.compile(r"^Expected (?P<what>.+?)(?:, got `\w+`)?$")
_TYPE: Final = re.compile(r"`([^`]+)`")
_FIELD: Final = re.compile(r"^Object (?P<fault>missing required|contains unknown) field `(?P<name>.+)`$")
_WORDS: Final = {
    "int": "an integer",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "datetime": "a time as RFC 3339",
}
_MAX_SHOWN: Final = 60
Step = str | int | None


def explain(error: msgspec.ValidationError, type_: Any, raw: Any, root: str) -> tuple[str, str]:
    """`(path, what)` of an error met when `raw`, which stands at `root`, was converted to `type_`."""
    text, steps = _split(str(error))
    steps = _resolved(steps, raw)
    node, value = _follow(inspect.type_info(type_), raw, steps)
    path = root + "".join(_written(step) for step in steps)
    field = _FIELD.match(text)
    if field is not None:
        path = f"{path}.{field['name']}".lstrip(".")
        missing = field["fault"].startswith("missing")
        return path, "is missing" if missing else unknown_key(field["name"], _names(node))
    if text.startswith("Invalid value"):  # of the tag: the choice is that of the union around it
        node = _bare(_around(inspect.type_info(type_), raw, steps[:-1]))
    return path, _what(text, node) + ("" if None in steps else _got(text, path, value))


def _split(text: str) -> tuple[str, list[Step]]:
    at = _AT.search(text)
    if at is None:
        return text, []
    steps: list[Step] = [
        step["key"] if step["key"] is not None else None if step["index"] is None else int(step["index"])
        for step in _STEP.finditer(at["path"])
    ]
    return text[: at.start()], steps


def _resolved(steps: list[Step], value: Any) -> list[Step]:
    """msgspec does not say which key of a table it means; where there is only one, it is that."""
    found: list[Step] = []
    for step in steps:
        known = next(iter(value)) if step is None and isinstance(value, dict) and len(value) == 1 else step
        found.append(known)
        try:
            value = value[known]
        except (KeyError, IndexError, TypeError):
            value = None
    return found


def _written(step: Step) -> str:
    if step is None:
        return ".*"
    return f"[{step}]" if isinstance(step, int) else f".{step}"


def _what(text: str, node: inspect.Type | None) -> str:
    expected = _EXPECTED.match(text)
    if expected is not None:
        return "expected " + _TYPE.sub(lambda match: _in_words(match[1]), expected["what"])
    if text.startswith("Invalid enum value"):
        return "expected one of " + ", ".join(_choices(node))
    if text.startswith("Invalid value"):
        return "expected one of " + ", ".join(_tags(node))
    return text


def _in_words(types: str) -> str:
    """`int | null` as people say it; null is left out, since TOML cannot write it."""
    return " or ".join(_WORDS.get(type_, type_) for type_ in types.split(" | ") if type_ != "null")


def _got(text: str, path: str, value: Any) -> str:
    if not text.startswith(("Expected", "Invalid")) or is_secret(path):
        return ""
    shown = msgspec.json.encode(value).decode() if _plain(value) else f"a {type(value).__name__}"
    return f", got {shown if len(shown) <= _MAX_SHOWN else shown[:_MAX_SHOWN] + '...'}"


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


# -- following a path through type and value


def _follow(node: inspect.Type | None, value: Any, steps: list[Step]) -> tuple[inspect.Type | None, Any]:
    for step in steps:
        node = _inner(_variant(node, value), step)
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            value = None
    return _variant(node, value), value


def _around(node: inspect.Type | None, value: Any, steps: list[Step]) -> inspect.Type | None:
    """The type at the end of the steps as it was declared, unions whole."""
    if not steps:
        return node
    before, _ = _follow(node, value, steps[:-1])
    return _inner(before, steps[-1])


def _bare(node: inspect.Type | None) -> inspect.Type | None:
    while isinstance(node, inspect.Metadata):
        node = node.type
    return node


def _variant(node: inspect.Type | None, value: Any) -> inspect.Type | None:
    """The type without its bounds; of a union the member this value is meant for."""
    node = _bare(node)
    if not isinstance(node, inspect.UnionType):
        return node
    members = [_variant(member, value) for member in node.types]
    for member in members:
        if _tagged(member, value):
            return member
    return next((member for member in members if not isinstance(member, inspect.NoneType | inspect.StructType)), None)


def _tagged(member: inspect.Type | None, value: Any) -> bool:
    if not isinstance(member, inspect.StructType) or not isinstance(value, dict):
        return False
    return member.tag_field is None or value.get(member.tag_field) == member.tag


def _inner(node: inspect.Type | None, step: Step) -> inspect.Type | None:
    if isinstance(node, inspect.StructType):
        return next((field.type for field in node.fields if field.encode_name == step), None)
    if isinstance(node, inspect.ListType | inspect.VarTupleType):
        return node.item_type
    return node.value_type if isinstance(node, inspect.DictType) else None


def _names(node: inspect.Type | None) -> list[str]:
    return [field.encode_name for field in node.fields] if isinstance(node, inspect.StructType) else []


def _tags(node: inspect.Type | None) -> list[str]:
    if not isinstance(node, inspect.UnionType):
        return ["its kinds"]
    return sorted(f'"{member.tag}"' for member in node.types if isinstance(member, inspect.StructType))


def _choices(node: inspect.Type | None) -> list[str]:
    return [f'"{value}"' for value in node.values] if isinstance(node, inspect.LiteralType) else []
