"""`python -m bench.keywords`: what 200,000 words cost a message, the memory, and a loop that goes on meanwhile."""

import argparse
import asyncio
import gc
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

from msgspec import Struct
from rich.console import Console
from rich.table import Table

from bench.report import RESULTS, header, write
from dispatcher.keywords import WordList

LENGTH: Final = 70
#: As services write them; `{n}` is a name, `{x}` an amount, `{c}` a code, `{d}` a day or month.
TEMPLATES: Final = (
    "【某某钱包】您的验证码是{c}，5分钟内有效。请勿将验证码告知他人，如非本人操作，请忽略本短信或致电客服热线95588咨询。感谢您的支持与信任，祝您生活愉快。",
    "【某某银行】您尾号{d}71的储蓄卡账户{d}月{d}日{d}:{d}完成转账交易，人民币支出{x}元，余额{x}元。对方户名：{n}。如有疑问请致电95588，或到网点咨询。",
    "【某某信贷】尊敬的{n}，您本期账单{x}元将于{d}月{d}日到期，请确保还款账户余额充足。逾期将影响您的个人信用记录，如已还款请忽略本短信，谢谢配合。",
    "【某某生活】{n}您好，您的订单{c}已发货，由某某快递承运，运单号{c}{c}。预计{d}月{d}日送达，请保持电话畅通，签收前请检查外包装是否完好，谢谢。",
    "【某某商城】周年庆来了！全场满300减{d}，爆款低至{d}折，更有百元神券等你来领。活动截止{d}月{d}日24:00，打开APP立即参与，拒收请回复R退订本活动。",
    "【某某出行】您预约的{d}月{d}日{d}:{d}从首都机场T3到国贸中心的行程已由{n}师傅接单，车牌京A·{c}，预估费用{x}元，请您提前到达上车地点等候，谢谢。",
    "【某某医院】{n}您好，您已成功预约{d}月{d}日（周三）上午{d}:{d}内科门诊，就诊序号{d}号。请携带身份证、医保卡提前30分钟到二楼自助机取号候诊，谢谢。",
    "【某某政务】您申请的“居住证办理”业务（编号：{c}）已审核通过，请于{d}月{d}日前携带身份证原件到某某街道服务大厅{d}号窗口领取，咨询电话010-{c}{d}。",
    "【某某保险】尊敬的客户{n}：您的车险保单（尾号{d}71）将于{d}月{d}日到期，为保障您的权益，请及时续保。点击链接t.cn/{c}查看详情，续保可享9.5折优惠。",
    "【某某教育】家长您好，{n}同学本周学习报告已生成：完成课程{d}节，作业正确率{d}%，超过{d}%的同学。请登录“某某学习”APP查看详情，继续加油！祝进步！",
    "【某某支付】您于{d}月{d}日{d}:{d}在某某超市消费￥{x}，使用优惠券抵扣{d}元，实付{x}元。本次获得积分{c}分，积分可在会员中心兑换礼品，感谢您的使用。",
    "【某某水务】用户{c}您好，您{d}月份用水{d}吨，水费{x}元，请于{d}月{d}日前通过微信、支付宝或营业厅缴纳。逾期每日收取违约金0.5%，详询96116，谢谢。",
)


class Figures(Struct, frozen=True):
    """`find_us` are medians of a message's whole `find`; pauses are the longest between two ticks of 1 ms."""

    words: int
    characters: int
    find_us: float
    find_p99_us: float
    find_hit_us: float
    find_traditional_us: float
    build_s: float
    build_pause_ms: float
    swap_pause_ms: float
    idle_pause_ms: float
    rss_mb: float


def ideographs(rng: random.Random) -> Callable[[], str]:
    """The common 3,755 of GB 2312, some far more often than others."""
    common = [bytes((high, low)).decode("gb2312") for high in range(0xB0, 0xD8) for low in range(0xA1, 0xFF)
              if high < 0xD7 or low < 0xFA]  # fmt: skip
    rng.shuffle(common)
    weights = [1 / (rank + 20) for rank in range(len(common))]
    return lambda: rng.choices(common, weights)[0]


def messages(rng: random.Random, count: int) -> list[str]:
    """Texts of `LENGTH` characters, each template as often."""
    some = ideographs(rng)
    made = []
    for i in range(count):
        text = TEMPLATES[i % len(TEMPLATES)]
        for hole, fill in _fills(rng, some):
            while hole in text:
                text = text.replace(hole, fill(), 1)
        made.append(text[:LENGTH])
    return made


def _fills(rng: random.Random, some: Callable[[], str]) -> list[tuple[str, Callable[[], str]]]:
    return [
        ("{n}", lambda: some() + some() + some()),
        ("{x}", lambda: f"{rng.randrange(10_000_000) / 100:.2f}"),
        ("{c}", lambda: str(rng.randrange(100_000, 1_000_000))),
        ("{d}", lambda: str(rng.randrange(10, 30))),
    ]


def listed(rng: random.Random, count: int, texts: list[str]) -> list[str]:
    """Words of 2 to 8 characters, a twentieth of them with letters in them, of which the texts contain none."""
    some = ideographs(rng)
    words: dict[str, None] = {}
    while len(words) < count + count // 20:
        word = "".join(some() for _ in range(rng.choice((2, 2, 3, 3, 4, 4, 4, 5, 6, 8))))
        words[rng.choice(("vx", "QQ", "App", "t.me")) + word if rng.random() < 0.05 else word] = None
    said = WordList("said", list(words))
    for text in texts:  # a word found is left out; what it hid is found in the next round
        rest = text
        while hit := said.find({"text": rest}):
            words.pop(hit.word, None)
            rest = rest[: hit.at] + rest[hit.at + 1 :]
    return list(words)[:count]


def each_us(call: Callable[[dict[str, Any]], object], texts: list[str], rounds: int = 7) -> list[float]:
    """The median microseconds of a call with each text, the texts new every time as they are in life."""
    taken: list[list[float]] = [[] for _ in texts]
    clock = time.perf_counter
    for _ in range(rounds):
        for i, text in enumerate(texts):
            fields = {"text": "".join(list(text))}
            start = clock()
            call(fields)
            taken[i].append((clock() - start) * 1e6)
    return [statistics.median(times) for times in taken]


async def longest_pause_ms(work: Awaitable[Any]) -> tuple[float, float]:
    """The longest the loop was kept from a tick every millisecond until the work was done, and the work's seconds."""
    task = asyncio.ensure_future(work)
    start = last = time.perf_counter()
    longest = 0.0
    while not task.done():
        await asyncio.sleep(0.001)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    await task
    return longest * 1000, last - start


def rss_mb() -> float:
    """Resident memory of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


async def measure(count: int, rng: random.Random) -> Figures:
    """All figures, one after the other, in this process."""
    texts = messages(rng, 1200)
    words = listed(rng, count, texts)
    WordList("first", ["赌博"])  # what is made once for all lists
    idle_ms, _ = await longest_pause_ms(asyncio.sleep(1.5))
    before = rss_mb()
    lists: dict[str, WordList] = {}

    async def load() -> None:
        lists["default"] = await asyncio.to_thread(WordList, "default", words)

    build_ms, build_s = await longest_pause_ms(load())
    added = rss_mb() - before
    swap_ms = max([(await longest_pause_ms(load()))[0] for _ in range(3)])  # each drops the one before
    find = lists["default"].find
    clean = [text for text in texts if find({"text": text}) is None]
    hits = [text[:40] + rng.choice(words) + text[40:] for text in texts]
    traditional = [text.replace("账", "賬").replace("码", "碼").replace("请", "請") for text in clean]
    plain = each_us(find, clean)
    return Figures(
        words=count,
        characters=LENGTH,
        find_us=statistics.median(plain),
        find_p99_us=sorted(plain)[len(plain) * 99 // 100],
        find_hit_us=statistics.median(each_us(find, hits)),
        find_traditional_us=statistics.median(each_us(find, traditional)),
        build_s=build_s,
        build_pause_ms=build_ms,
        swap_pause_ms=swap_ms,
        idle_pause_ms=idle_ms,
        rss_mb=added,
    )


def rows(figures: Figures) -> Iterator[tuple[str, str]]:
    """The table's."""
    yield f"find, {figures.characters} characters, no word", f"{figures.find_us:.2f} us (p99 {figures.find_p99_us:.2f})"
    yield "find, a word in it", f"{figures.find_hit_us:.1f} us"
    yield "find, traditional text", f"{figures.find_traditional_us:.1f} us"
    yield "build", f"{figures.build_s:.2f} s"
    yield "longest pause while building", f"{figures.build_pause_ms:.1f} ms"
    yield "longest pause while swapping", f"{figures.swap_pause_ms:.1f} ms"
    yield "longest pause of an idle loop", f"{figures.idle_pause_ms:.1f} ms"
    yield "resident memory of a list", f"{figures.rss_mb:.1f} MB"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.keywords", description=__doc__)
    parser.add_argument("--words", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "keywords.json")
    args = parser.parse_args()
    figures = asyncio.run(measure(args.words, random.Random(args.seed)))
    table = Table(title=f"{figures.words:,} keywords", show_header=False)
    for row in rows(figures):
        table.add_row(*row)
    console = Console()
    console.print(table)
    write(args.out, {**header(), "figures": figures})
    console.print(f"written to {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
