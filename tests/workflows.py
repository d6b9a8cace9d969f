#!/usr/bin/env python3
"""Fails if a workflow of .github/ cannot run: `tests/workflows.py`.

Each file is YAML with triggers and jobs; each line of a `run:` step is a script of this repository, or a Cargo
command that CONTRIBUTING.md lists; each action is pinned to a version; the issue templates are forms. Without
PyYAML, only the lines of `run:` are checked, and it prints a line `NOT CHECKED: …`.
"""
import os
import pathlib
import re
import shlex
import sys

ROOT = pathlib.Path(__file__).parent.parent
GITHUB = ROOT / ".github"
COMMANDS = (ROOT / "CONTRIBUTING.md").read_text()
try:
    import yaml
except ImportError:
    yaml = None
bad = []


def check_line(file, line):
    """Checks one command, which may have variables before it."""
    words = shlex.split(line)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    if not words:
        bad.append(f"{file}: `{line}` runs nothing")
    elif words[0] == "cargo":
        if f"`{' '.join(words)}`" not in COMMANDS:
            bad.append(f"{file}: CONTRIBUTING.md does not list `{line}`")
    elif not os.access(ROOT / words[0], os.X_OK) or not (ROOT / words[0]).is_file():
        bad.append(f"{file}: `{words[0]}` is no script of this repository")


def check_workflow(file, text):
    """Returns how many `run:` lines it has."""
    if yaml is None:
        lines = re.findall(r"^ *(?:- )?run: +(\S.*)$", text, re.M)
        if "\t" in text or any(line[0] in "|>" for line in lines):
            bad.append(f"{file}: a `run:` has more than one line, or there is a tab")
        for line in lines:
            check_line(file, line)
        return len(lines)
    tree, lines = yaml.safe_load(text), []
    # YAML 1.1 reads the key `on` as true.
    if not tree.get("name") or not tree.get(True) or not tree.get("jobs"):
        bad.append(f"{file}: `name`, `on` or `jobs` is missing")
    if tree.get("permissions") != {"contents": "read"}:
        bad.append(f"{file}: `permissions` has to be `contents: read`")
    for name, job in (tree.get("jobs") or {}).items():
        if not job.get("runs-on") or not job.get("timeout-minutes") or not job.get("steps"):
            bad.append(f"{file}: job `{name}` lacks `runs-on`, `timeout-minutes` or `steps`")
        for step in job.get("steps") or []:
            if ("uses" in step) == ("run" in step):
                bad.append(f"{file}: a step of `{name}` has to have either `uses` or `run`")
            if "uses" in step and not re.fullmatch(r"[\w-]+/[\w-]+@v\d+(\.\d+)*|.*@[0-9a-f]{40}", step["uses"]):
                bad.append(f"{file}: `{step['uses']}` has no version")
            lines += str(step.get("run", "")).splitlines()
    for line in lines:
        check_line(file, line)
    return len(lines)


def main():
    workflows = sorted((GITHUB / "workflows").glob("*.y*ml"))
    count = sum(check_workflow(file.relative_to(ROOT), file.read_text()) for file in workflows)
    forms = sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.y*ml"))
    for file in forms if yaml else []:
        form = yaml.safe_load(file.read_text())
        keys = ["blank_issues_enabled"] if file.stem == "config" else ["name", "description", "body"]
        if missing := [key for key in keys if key not in form]:
            bad.append(f"{file.relative_to(ROOT)}: {missing} missing")
    for path in ["PULL_REQUEST_TEMPLATE.md", "ISSUE_TEMPLATE"]:
        if not (GITHUB / path).exists():
            bad.append(f".github/{path} is missing")
    if not count:
        bad.append("no workflow runs anything")
    if yaml is None:
        print("NOT CHECKED: the YAML of .github: python3 -m pip install pyyaml")
        if os.environ.get("STRICT"):
            bad.append("PyYAML is missing")
    print("\n".join(bad) or f"{len(workflows)} workflows run {count} commands, all of this repository")
    sys.exit(bool(bad))


main()
