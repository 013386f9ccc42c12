"""Plots as SVG: bars with their spread on a logarithmic scale, one group per case."""

import math
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, LABELS, RIGHT, ROW, GAP, TOP, BOTTOM = 900, 330, 90, 18, 12, 56, 34
COLOURS = {"phaul": "#1b7f4d", "runc": "#c0504d", "criu": "#d08a3c", "docker": "#3f6fb5", "podman": "#8064a2", "rsync": "#7f7f7f",
           "iperf3": "#5a9bb0"}


@dataclass
class Bar:
    subject: str
    low: float
    median: float
    high: float


def colour_of(subject):
    return COLOURS.get(subject.split()[0], "#555555")


def short(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


class Scale:
    """Whole decades, from below the smallest value to above the largest."""

    def __init__(self, values):
        values = [value for value in values if value > 0] or [1.0]
        self.first = math.floor(math.log10(min(values)))
        self.last = max(math.ceil(math.log10(max(values))), self.first + 1)

    def x(self, value):
        place = (math.log10(max(value, 10.0**self.first)) - self.first) / (self.last - self.first)
        return LABELS + place * (WIDTH - LABELS - RIGHT)

    def ticks(self):
        return [10.0**i for i in range(self.first, self.last + 1)]


def text(x, y, content, anchor="start", size=12, weight="normal", fill="#222222"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}" fill="{fill}">'
            f"{escape(content)}</text>")


def bar(scale, y, one):
    x, colour = scale.x(one.median), colour_of(one.subject)
    middle = y + ROW / 2
    return [text(LABELS - 8, middle + 4, one.subject, "end"),
            f'<rect x="{LABELS}" y="{y + 3:.1f}" width="{max(x - LABELS, 1):.1f}" height="{ROW - 6}" fill="{colour}"/>',
            f'<path d="M{scale.x(one.low):.1f} {middle:.1f}H{scale.x(one.high):.1f}" stroke="#222222" stroke-width="1.5"/>',
            text(max(x, scale.x(one.high)) + 6, middle + 4, short(one.median))]


def plot(title, unit, groups):
    """`groups`: (heading, bars) pairs. The text of an SVG."""
    scale = Scale([value for _, bars in groups for one in bars for value in (one.low, one.high)])
    y, body = TOP, []
    for heading, bars in groups:
        body.append(text(8, y + 13, heading, weight="bold"))
        y += ROW
        for one in bars:
            body += bar(scale, y, one)
            y += ROW
        y += GAP
    grid = []
    for tick in scale.ticks():
        grid.append(f'<path d="M{scale.x(tick):.1f} {TOP - 6}V{y}" stroke="#d9d9d9"/>')
        grid.append(text(scale.x(tick), y + 16, f"{short(tick)} {unit}", "middle", 11, fill="#555555"))
    height = y + BOTTOM
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
                      'font-family="sans-serif">', f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
                      text(8, 24, title, size=16, weight="bold"), *grid, *body, "</svg>", ""])
