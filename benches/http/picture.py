#!/usr/bin/env python3
"""Draws what a session adds to a request, beside the peers: `picture.py FIGURES.json PICTURE.svg`.

Takes the output of `measure.py`: medians of the server's processor time, less that of the application
without sessions on the same framework.
"""

import json
import sys
from xml.sax.saxutils import escape

from measure import BARE, MANY, Results, digits, name_of, pairs

WIDTH, LEFT, GAP, BAR, ROW, TOP = 860, 190, 56, 13, 46, 96
PANEL = (WIDTH - LEFT - 2 * GAP) / 2

STYLE = """
    text { font: 13px system-ui, sans-serif; fill: #24292f }
    .title { font-size: 16px; font-weight: 600 }
    .note { fill: #57606a; font-size: 12px }
    .ours { fill: #0969da }
    .theirs { fill: #afb8c1 }
    .line { stroke: #d0d7de }
    @media (prefers-color-scheme: dark) {
        text { fill: #e6edf3 }
        .note { fill: #9198a1 }
        .ours { fill: #4493f8 }
        .theirs { fill: #656c76 }
        .line { stroke: #3d444d }
    }
"""


def overhead(results, application, path):
    framework = application.split("-")[0]
    bare = next(it for it in BARE["bare"] if it.startswith(framework))
    whole = results.median(MANY, application, path, "server")
    return whole and max(0.0, whole - results.median(MANY, bare, path, "server"))


def draw(results):
    rows = [(name, ours, theirs) for name, ours, theirs in pairs() if not ours.endswith("demand")]
    height = TOP + ROW * len(rows) + 40
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="t d">',
        '<title id="t">What a session adds to a request</title>',
    ]
    told, marks = [], []

    def text(x, y, content, style="", anchor="start"):
        kind = f' class="{style}"' if style else ""
        marks.append(f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}"{kind}>{escape(content)}</text>')

    def bar(x, y, width, whose):
        marks.append(f'<rect x="{x:.0f}" y="{y:.0f}" width="{max(width, 1):.1f}" height="{BAR}" rx="2" class="{whose}"/>')

    text(20, 30, "What a session adds to a request", "title")
    text(20, 50, "Microseconds of the server's processor time over HTTP, less the application without sessions. "
                 "Shorter is better.", "note")
    bar(20, 66, 14, "ours")
    text(40, 77, "session-manager")
    bar(170, 66, 14, "theirs")
    text(190, 77, "actix-session (actix-web), tower-sessions (axum)")
    for number, path in enumerate(["read", "write"]):
        x = LEFT + number * (PANEL + GAP)
        text(x, TOP + 4, f"{path} three keys", "note")
        values = [[overhead(results, it, path) for it in (ours, theirs)] for _, ours, theirs in rows]
        scale = PANEL / max(value for pair in values for value in pair)
        bottom = TOP + ROW * len(rows) + 14
        marks.append(f'<line x1="{x:.0f}" y1="{TOP + 12}" x2="{x:.0f}" y2="{bottom}" class="line"/>')
        for row, (name, ours, theirs) in enumerate(rows):
            y = TOP + 18 + row * ROW
            if number == 0:
                text(LEFT - 14, y + 18, name, anchor="end")
            for place, (application, value) in enumerate(zip((ours, theirs), values[row])):
                at = y + place * (BAR + 2)
                bar(x, at, value * scale, ("ours", "theirs")[place])
                text(x + value * scale + 6, at + 11, digits(value))
                told.append(f"{name}, {path}: {name_of(application)} {digits(value)}")
    out.append(f'<desc id="d">{escape("; ".join(told))}.</desc>')
    out.append(f"<style>{STYLE}</style>")
    return "\n".join([*out, *marks, "</svg>", ""])


if __name__ == "__main__":
    figures, picture = sys.argv[1:]
    with open(figures) as file:
        results = Results(json.load(file))
    with open(picture, "w") as file:
        file.write(draw(results))
