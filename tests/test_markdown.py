"""Markdown made of words of others: what is read is what was written, and nothing else happens."""

import html
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from modeling_roberta_gru.errors import visible
from modeling_roberta_gru.markdown import cell, code, table

RENDERER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
ACTIVE_TEXTS = [
    "![](http://evil.example/pixel.png)",
    "[click](javascript:alert(1))",
    "<img src=x onerror=alert(1)>",
    "<!-- hidden",
    "**bold** _it_ `code` ~~gone~~",
    "a|b \\| c",
    "# heading",
    "- item",
    "10. item",
    "---",
    "&lt;b&gt;",
    "[ref]: http://evil.example",
    "line\n\n# heading\r\n",
    "\x1b[2Jgone\u202egnp.exe",
    "/r/movies",
    "snake_case_name and __init__",
]
texts = st.text(st.sampled_from("ab1 .-_*`[]()!<>&|\\#~$@:/\n\x1b="), max_size=20)


def as_one_line(text: str) -> str:
    return " ".join(visible(text).split())


def shown(markdown: str) -> str:
    """Return what a browser shows of a paragraph or a cell, whose HTML must hold no other tags."""
    inner = re.sub(r"</?(p|td|th|tr|table|thead|tbody)( style=.*)?>", "", markdown)
    assert "<" not in inner, inner
    return html.unescape(inner).strip()


@given(texts)
def test_any_text_in_a_paragraph_is_shown_as_it_is(text):
    assert shown(RENDERER.render(cell(text))) == as_one_line(text)


@pytest.mark.parametrize("text", ACTIVE_TEXTS)
@pytest.mark.parametrize("render", [RENDERER.render, lambda line: RENDERER.render(f"label {line}")])
def test_active_text_is_shown_as_it_is(text, render):
    assert shown(render(cell(text))).removeprefix("label ") == as_one_line(text)


@given(st.lists(texts, min_size=2, max_size=2))
@example(["a|b", "\\|"])
def test_a_table_has_the_cells_it_was_given(pair):
    lines = table(["first", "second"], [[cell(text) for text in pair]])
    cells = re.findall(r"<td>(.*?)</td>", RENDERER.render("\n".join(lines)), re.DOTALL)
    assert [shown(held) for held in cells] == [as_one_line(text) for text in pair]


@pytest.mark.parametrize("text", ["https://evil.example", "www.evil.example", "me@evil.example", "$x^2$", "@user"])
def test_what_needs_no_mark_to_be_active_is_broken_up(text):
    # Addresses, mentions and formulas, which the Hub finds in the text itself.
    assert not re.search(r"://|www\.|@|\$", cell(text))
    assert shown(RENDERER.render(cell(text))) == text


@given(texts.filter(lambda text: text.strip()))
def test_code_is_shown_as_it_is(text):
    inner = RENDERER.render(code(text)).strip().removeprefix("<p><code>").removesuffix("</code></p>")
    assert "<" not in inner
    assert html.unescape(inner) == as_one_line(text)
