#!/usr/bin/env python3
"""Fails if a module of src/ names one of a layer above its own: `tests/layers.py`.

A layer may use those before it and itself. Only paths in code that begin with `crate::` or `super::` count;
the unit tests inside of modules may name anything.
"""
import pathlib
import re
import sys

LAYERS = """
log random finite text profile
observer
error key value message expiry future
record
changes
cookie carrier settings
store
backend
manager
session
request
web
testing fuzzing guide
""".split("\n")[1:-1]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer.split()}
SRC = pathlib.Path(__file__).parent.parent / "src"
NAMED = re.compile(r"\buse ((?:crate|super)::[^;]*);|\b(crate(?:::\w+)+)|\b((?:super::)+\w+(?:::\w+)*)")


def paths(tree, prefix=""):
    """Yields the paths of `a::{b, c::d}`."""
    depth, part = 0, ""
    for char in tree + ",":
        if char == "," and depth == 0:
            head, brace, rest = part.partition("{")
            if brace:
                yield from paths(rest.rpartition("}")[0], prefix + head.strip())
            elif part.strip():
                yield prefix + part.strip()
            part = ""
            continue
        depth += (char == "{") - (char == "}")
        part += char


def named(module, code):
    """Yields each module at the root that the code of `module` names, and in which line."""
    for found in NAMED.finditer(code):
        line = code.count("\n", 0, found.start()) + 1
        for path in paths(found[1] or found[2] or found[3]):
            parts, base = path.split("::"), module.split("::")
            while parts[0] == "super":
                parts, base = parts[1:], base[:-1]
            full = parts[1:] if parts[0] == "crate" else base + parts
            yield full[0].split(" ")[0], line


def main():
    files, bad = sorted(SRC.rglob("*.rs")), []
    for file in files:
        module = "::".join(file.relative_to(SRC).with_suffix("").parts)
        top = module.split("::")[0]
        if top == "lib":
            continue
        code = re.split(r"#\[cfg\((?:all\()?test", file.read_text())[0]
        code = re.sub(r"//.*", "", code)
        for other, line in named(module, code):
            if other not in RANK or top not in RANK:
                bad.append(f"{file}:{line}: `{top}` or `{other}` has no layer: add it to tests/layers.py")
            elif RANK[other] > RANK[top]:
                bad.append(f"{file}:{line}: `{top}` names `{other}`, which is above it")
    print("\n".join(bad) or f"{len(files)} files: every import points down")
    sys.exit(bool(bad) or not files)


main()
