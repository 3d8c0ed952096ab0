"""Let the site hold what is outside docs/: README, CONTRIBUTING and CHANGELOG, the recipes, and the options' help."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from modeling_roberta_gru.arguments import help_text

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
RECIPES = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("recipes/**/*.yaml")}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages and the recipes."""
    for path, page in {**PAGES, **{recipe: recipe for recipe in RECIPES}}.items():
        files.append(File.generated(config, page, content=(ROOT / path).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Make links, which lead through the repository, lead through the site; keep the words of those that leave it."""
    if page.file.src_uri == "api/options.md":
        markdown += f"\n```text\n{help_text(full=True)}\n```\n"
    is_outside = page.file.src_uri in PAGES.values()

    def link(match: re.Match[str]) -> str:
        text, target = match.groups()
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        path = target if is_outside else (Path("docs") / target).as_posix()
        path, _, anchor = re.sub(r"^docs/\.\./", "", path).partition("#")
        path = PAGES.get(path) or (
            path if path in RECIPES else path.removeprefix("docs/") if path.startswith("docs/") else ""
        )
        return f"[{text}]({path}{'#' + anchor if anchor else ''})" if path else text

    return re.sub(r"(?<!`)\[([^\]\n]*)\]\(([^)\s]+)\)", link, markdown)
