#!/usr/bin/env python3
"""Puts what it reads into docs/benchmarks.md, between the marks of a section, and prints it.

`cargo bench … | benches/page.py SECTION`; with PREVIEW=1 it prints only.
"""

import os
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs/benchmarks.md"


def put(section, text):
    print(text)
    if os.environ.get("PREVIEW"):
        return
    page = PAGE.read_text()
    begin, end = f"<!-- {section}: begin -->\n", f"<!-- {section}: end -->\n"
    before, rest = page.split(begin)
    after = rest.split(end)[1]
    PAGE.write_text(f"{before}{begin}\n{text.strip()}\n\n{end}{after}")


if __name__ == "__main__":
    (section,) = sys.argv[1:]
    text = sys.stdin.read()
    if not text.strip():
        sys.exit(f"FAILED: nothing to put into {section}")
    put(section, text)
