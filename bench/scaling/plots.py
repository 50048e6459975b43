"""Plots as SVG text, since a plotting library would be a large dependency for two pictures."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import log10
from xml.sax.saxutils import escape

COLOURS = {
    "ours": "#0b6e4f",
    "Knative KPA": "#c44536",
    "KEDA": "#3d5a98",
    "15 s / 5 min average": "#b8860b",
    "fixed number": "#999999",
}
WIDTH, HEIGHT = 330, 240
LEFT, RIGHT, TOP, BOTTOM = 48, 10, 26, 34

Line = Sequence[tuple[float, float]]


def draw_frontiers(panels: Mapping[str, Mapping[str, Line]]) -> str:
    """Draw late requests in per cent (logarithmic) over instance-hours: a panel per trace.

    Each line joins one policy's frontier; lower left is better.
    """
    parts: list[str] = []
    for number, (title, lines) in enumerate(panels.items()):
        x, y = (number % 3) * WIDTH, (number // 3) * HEIGHT
        parts.append(f'<g transform="translate({x},{y})">{_frontier_panel(title, lines)}</g>')
    rows = (len(panels) + 2) // 3
    return _svg(3 * WIDTH, rows * HEIGHT + 30, "".join(parts) + _legend(rows * HEIGHT + 16))


def draw_course(title: str, demand: Line, counts: Mapping[str, Line]) -> str:
    """Draw what was in progress, and below it how many instances each policy had."""
    width, top, height = 3 * WIDTH, 130, 170
    ends = max((at for at, _ in demand), default=1.0)
    most = max((value for _, value in demand), default=1.0) or 1.0
    instances = max((value for line in counts.values() for _, value in line), default=1.0) + 1

    def place(line: Line, low: float, size: float, high: float) -> str:
        scale_x = (width - LEFT - RIGHT) / ends
        return " ".join(f"{LEFT + at * scale_x:.1f},{low - v / high * size:.1f}" for at, v in line)

    parts = [
        f'<text x="{LEFT}" y="16" font-weight="bold">{escape(title)}</text>',
        f'<polyline points="{place(demand, top, top - TOP, most)}" fill="none" stroke="#666"/>',
        f'<text x="4" y="{TOP + 8}">{most:.0f}</text>',
        f'<text x="{LEFT}" y="{TOP + 10}" fill="#666">requests in progress (ours)</text>',
    ]
    bottom = top + height
    for value in range(0, int(instances) + 1, 2):
        y = bottom - value / instances * (height - 14)
        parts.append(f'<line x1="{LEFT}" x2="{width - RIGHT}" y1="{y}" y2="{y}" stroke="#eee"/>')
        parts.append(f'<text x="20" y="{y + 4}">{value}</text>')
    for name, line in counts.items():
        changes = [(a, b) for a, b in pairwise(line) if a[1] != b[1]]
        stepped = [*line[:1], *(p for a, b in changes for p in ((b[0], a[1]), b)), *line[-1:]]
        points = place(stepped, bottom, height - 14, instances)
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{COLOURS[name]}" stroke-width="1.5"/>'
        )
    for minute in range(0, int(ends / 60) + 1, 15):
        x = LEFT + minute * 60 * (width - LEFT - RIGHT) / ends
        parts.append(
            f'<text x="{x:.0f}" y="{bottom + 16}" text-anchor="middle">{minute} min</text>'
        )
    return _svg(width, bottom + 50, "".join(parts) + _legend(bottom + 36))


def _frontier_panel(title: str, lines: Mapping[str, Line]) -> str:
    costs = [cost for line in lines.values() for cost, _ in line]
    low, high = 0.0, max(costs, default=1.0) * 1.05
    floor, ceiling = -2.0, 2.0

    def place(cost: float, late: float) -> tuple[float, float]:
        share = (log10(max(late, 10**floor)) - floor) / (ceiling - floor)
        x = LEFT + (cost - low) / (high - low) * (WIDTH - LEFT - RIGHT)
        return x, HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    parts = [f'<text x="{LEFT}" y="16" font-weight="bold">{escape(title)}</text>']
    for late in (0.01, 0.1, 1, 10, 100):
        _, y = place(low, late)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}" stroke="#eee"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 4}" text-anchor="end">{late:g} %</text>')
    step = 2 if high > 5 else 0.5
    for tick in range(int(high / step) + 1):
        x, _ = place(tick * step, 1)
        y = HEIGHT - BOTTOM + 14
        parts.append(f'<text x="{x:.0f}" y="{y}" text-anchor="middle">{tick * step:g} h</text>')
    for name, line in lines.items():
        colour, placed = COLOURS[name], [place(*point) for point in line]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in placed]
    return "".join(parts)


def _legend(y: float) -> str:
    parts: list[str] = []
    for number, (name, colour) in enumerate(COLOURS.items()):
        x = LEFT + number * 180
        parts.append(f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{x + 15}" y="{y}">{escape(name)}</text>')
    return "".join(parts)


def _svg(width: float, height: float, body: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="11"><rect width="{width}" height="{height}" '
        f'fill="white"/>{body}</svg>\n'
    )
