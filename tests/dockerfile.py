"""Read the Dockerfile and `.dockerignore`, as far as the tests ask: what each stage says, and what it is given."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path


def instructions(dockerfile: str) -> Iterator[tuple[str, str]]:
    """Yield each instruction and its value, comments gone and continued lines joined."""
    lines = [line for line in dockerfile.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", "").splitlines():
        instruction, value = line.split(maxsplit=1)
        yield instruction.upper(), value.strip()


def read_stages(dockerfile: str) -> dict[str, dict[str, list[str]]]:
    """Return each stage's values by instruction, in the file's order; a stage begins with those of its parent."""
    stages: dict[str, dict[str, list[str]]] = {}
    values: dict[str, list[str]] = {}  # before the first FROM
    for instruction, value in instructions(dockerfile):
        if instruction == "FROM":
            parent, name = value.split(" AS ")
            inherited = {name: list(its) for name, its in stages.get(parent, {}).items()}
            values = stages[name] = inherited
        values.setdefault(instruction, []).append(value)
    return stages


def environment(stage: dict[str, list[str]]) -> dict[str, str]:
    """Return a stage's environment variables, as they stand."""
    return dict(pair.split("=", 1) for value in stage.get("ENV", []) for pair in value.split())


def command_line(value: str) -> list[str]:
    """Read a command in exec form."""
    return json.loads(value)


def context_files(repository: Path) -> list[str]:
    """List the files that `.dockerignore` lets into the build context; the last pattern that matches decides."""
    lines = (repository / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    rules = [(matcher(pattern.removeprefix("!")), pattern.startswith("!")) for pattern in patterns]

    def is_let_in(file: str) -> bool:
        return next((let_in for matches, let_in in reversed(rules) if matches.fullmatch(file)), True)

    files = []
    for top, folders, names in os.walk(repository):
        place = Path(top).relative_to(repository)
        folders[:] = [folder for folder in folders if is_let_in((place / folder).as_posix())]
        files += [(place / name).as_posix() for name in names]
    return sorted(filter(is_let_in, files))


def matcher(pattern: str) -> re.Pattern[str]:
    """Translate a pattern of `.dockerignore`, which also matches what lies below a folder it names."""
    tokens = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern.strip("/"))
    return re.compile("".join(tokens.get(part, re.escape(part)) for part in parts) + "(?:/.*)?")
