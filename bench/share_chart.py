"""Line charts of shares over time, as one SVG without a library: a panel for each scenario, a line for each policy."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from msgspec import Struct

WIDTH, HEIGHT = 430, 190  # of a panel's plot
LEFT, TOP, GAP_X, GAP_Y = 46, 64, 70, 84
ACROSS: Final = 2
HEAD: Final = "Share of the first provider over time, by policy (shaded: the fault)"
COLOURS: Final = ("#9aa0a6", "#b07aa1", "#e0a030", "#4e79a7", "#d62728")
STYLE: Final = (
    "text{font-family:system-ui,Helvetica,Arial,sans-serif;font-size:12px;fill:#333}"
    ".title{font-size:13px;font-weight:600}.tick{font-size:10px;fill:#777}"
    ".grid{stroke:#e3e3e3}.fault{fill:#fdf0ee}path{fill:none;stroke-width:1.5}"
)


class Line(Struct, frozen=True):
    """A series over evenly spaced times, 0 to 1, with a note for the legend."""

    name: str
    values: Sequence[float]
    note: str = ""


class Panel(Struct, frozen=True):
    """One plot. The fault lasts from `from_s` to `until_s`."""

    title: str
    lines: Sequence[Line]
    seconds: float
    from_s: float = 0.0
    until_s: float = 0.0


def draw(out: Path, panels: Sequence[Panel], head: str = HEAD) -> None:
    """Write the picture."""
    rows = -(-len(panels) // ACROSS)
    across = min(len(panels), ACROSS)
    width = LEFT + across * (WIDTH + GAP_X)
    height = TOP + rows * (HEIGHT + GAP_Y)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f"<title>{escape(head)}</title>",
        f"<desc>{escape('; '.join(panel.title for panel in panels))}</desc>",
        f'<style>{STYLE}</style><rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="{LEFT}" y="22" class="title">{escape(head)}</text>',
    ]
    for n, panel in enumerate(panels):
        x, y = LEFT + n % ACROSS * (WIDTH + GAP_X), TOP + n // ACROSS * (HEIGHT + GAP_Y)
        parts += [f'<g transform="translate({x},{y})">', *_panel(panel), "</g>"]
    out.parent.mkdir(exist_ok=True)
    out.write_text("\n".join([*parts, "</svg>", ""]), encoding="utf-8")


def _panel(panel: Panel) -> list[str]:
    most = min(1.0, max(0.5, *(max(line.values) for line in panel.lines)))
    scale_x, scale_y = WIDTH / panel.seconds, HEIGHT / most
    parts = [f'<text y="-10" class="title">{escape(panel.title)}</text>']
    if panel.until_s:
        x, wide = panel.from_s * scale_x, (panel.until_s - panel.from_s) * scale_x
        parts.append(f'<rect class="fault" x="{x:.1f}" y="0" width="{wide:.1f}" height="{HEIGHT}"/>')
    for percent in range(0, int(most * 100) + 1, 20 if most > 0.6 else 10):
        y = HEIGHT - percent / 100 * scale_y
        parts.append(f'<line class="grid" x1="0" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="-6" y="{y + 3:.1f}" text-anchor="end">{percent} %</text>')
    for second in range(0, int(panel.seconds) + 1, 20):
        x = second * scale_x
        parts.append(f'<text class="tick" x="{x:.1f}" y="{HEIGHT + 14}" text-anchor="middle">{second} s</text>')
    for n, (line, colour) in enumerate(zip(panel.lines, COLOURS, strict=False)):
        parts.append(_path(line, colour, panel.seconds, scale_x, scale_y))
        parts += _key(n, line, colour)
    return parts


def _path(line: Line, colour: str, seconds: float, scale_x: float, scale_y: float) -> str:
    step_s = seconds / len(line.values)
    points = (
        f"{(k + 0.5) * step_s * scale_x:.1f},{HEIGHT - min(value * scale_y, HEIGHT):.1f}"
        for k, value in enumerate(line.values)
    )
    return f'<path stroke="{colour}" d="M{" L".join(points)}"/>'


def _key(n: int, line: Line, colour: str) -> list[str]:
    x, y = n % 3 * 150, HEIGHT + 32 + n // 3 * 16
    return [
        f'<line x1="{x}" x2="{x + 14}" y1="{y - 4}" y2="{y - 4}" stroke="{colour}" stroke-width="3"/>',
        f'<text class="tick" x="{x + 18}" y="{y}">{escape(line.name)}: {escape(line.note)}</text>',
    ]
