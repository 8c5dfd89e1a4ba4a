"""npm's sms-segments-calculator cuts generated texts where we do."""

import json
import random
import subprocess
import unicodedata

from dispatcher.segments import BASIC, EXTENDED, is_gsm, segments, split
from tests.interop.conftest import HERE

SEED = 20_261_124
TEXTS = 2_000


def alphabets() -> list[str]:
    """Characters that are one grapheme each, since that calculator never cuts a grapheme, and a phone may."""
    plain = "".join(chr(code) for code in (*range(0x20, 0x250), *range(0x391, 0x3CA), *range(0x410, 0x450)))
    wide = "中文短信验证码您好，。【】😀🚀𠀀𠮷"
    gsm = BASIC.replace("\x1b", "").replace("\r", "") + "".join(EXTENDED) * 4
    return [gsm, "".join(EXTENDED), "ab" + "".join(EXTENDED), wide, "中😀", gsm + wide, plain]


def text(rng: random.Random) -> str:
    alphabet = rng.choice(alphabets())
    length = rng.choice((rng.randrange(400), *(n + rng.randrange(-2, 3) for n in (67, 70, 76, 134, 153, 160, 306))))
    return "".join(rng.choices(alphabet, k=length))


def test_calculator_agrees() -> None:
    print("seed", SEED)
    rng = random.Random(SEED)
    texts = [t for t in (text(rng) for _ in range(TEXTS)) if not any(map(unicodedata.combining, t))]
    command = ["node", str(HERE / "segments.mjs")]
    given = "".join(json.dumps(t) + "\n" for t in texts)
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.rstrip("\n").split("\n")]
    assert len(told) == len(texts) > TEXTS * 0.9
    assert {len(one["parts"]) for one in told} >= {1, 2, 3, 4, 5, 6}
    assert {one["gsm"] for one in told} == {True, False}
    for t, one in zip(texts, told, strict=True):
        assert (is_gsm(t), split(t), segments(t)) == (one["gsm"], one["parts"], len(one["parts"])), repr(t)
