"""The page of rules says what the rules do."""

import json
import re

import msgspec

from dispatcher.catalog import decode_document
from dispatcher.rules import NAMES
from tests.rules_page import PAGE, page

TEXT = PAGE.read_text()


def test_the_page_is_what_the_code_says() -> None:
    assert page() == TEXT, "docs/rules.md is not what the rules say: run `make docs`"


def test_every_example_on_the_page_is_a_rule_of_its_kind() -> None:
    examples = [json.loads(line) for line in re.findall(r"^```json\n(\{\"name\": .*\})\n```$", TEXT, re.MULTILINE)]
    assert [rule["kind"] for rule in examples] == list(NAMES)
    assert len(decode_document("rules", msgspec.json.encode(examples))) == len(NAMES)
