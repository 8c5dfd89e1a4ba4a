"""The line of a path in a TOML text."""

import pytest

from config.lines import line_of

TEXT = '''\
a = 1
[x.y] # comment
"k k" = 1
[[rules]]
name = "a"
[[rules]]
name = "b"
text = """
name = "no key"
"""
z.w = 1
[templates.t]
[[templates.t.channels]]
channel = "sms"
[[templates.t.channels]]
text = "x"
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("a", 1),
        ("a.b[0]", 1),
        ("x.y", 2),
        ("x.y.k k", 3),
        ("rules[0].name", 5),
        ("rules[1].name", 7),
        ("rules[1].z.w", 11),
        ("rules[1].missing", 6),
        ("rules[2].name", None),
        ("templates.t.channels[1].text", 16),
        ("templates.t.type", 12),
        ("nope", None),
    ],
)
def test_the_line_that_gives_a_path_its_value(path: str, line: int | None) -> None:
    assert line_of(TEXT, path) == line
