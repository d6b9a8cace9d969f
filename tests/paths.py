#!/usr/bin/env python3
"""Fails if a page or a docstring names a file that is not there: `tests/paths.py`.

Checked are the links of the Markdown files, with their headings, and the paths between backticks in them and
in `src`. A test file may be named without `tests/`, as the tables of `docs/guarantees.md` do.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).parent.parent
FOLDERS = "src|tests|examples|docs|benches|fuzz|common|web|stores|races|attacks|browser"
FILES = [path.name for path in ROOT.glob("*.*")] + [
    str(path.relative_to(ROOT))
    for folder in ("src", "tests", "examples", "docs", "benches", "fuzz")
    for path in (ROOT / folder).rglob("*.*")
]
PATH = re.compile(rf"`((?:{FOLDERS})/[\w./-]+\.(?:rs|md|sh|py|toml|html|txt|svg|png|lua|sql))`")
LINK = re.compile(r"\]\(([^)#:\s]*)(#[^)\s]+)?\)")


def anchors(page):
    """Returns the anchors of a page's headings, as code hosts write them."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {"#" + re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


bad = []
checked = 0
for name in FILES:
    if not name.endswith((".md", ".rs")) or not name.startswith(("src/", "docs/")) and "/" in name:
        continue
    file = ROOT / name
    text = file.read_text()
    for path in PATH.findall(text):
        checked += 1
        if path not in FILES and f"tests/{path}" not in FILES:
            bad.append(f"{name}: `{path}` is not there")
    if name.endswith(".rs"):
        continue
    for path, anchor in LINK.findall(text):
        checked += 1
        target = file.parent / path if path else file
        if not target.exists():
            bad.append(f"{name}: the link to {path} leads nowhere")
        elif anchor and anchor not in anchors(target):
            bad.append(f"{name}: {path} has no heading {anchor}")
if bad or not checked:
    sys.exit("\n".join(bad) or "nothing was checked")
print(f"{checked} paths and links lead to what is there")
