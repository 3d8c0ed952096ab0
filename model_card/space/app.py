"""A page for a RoBERTa-GRU text classifier: what it says of a text, and how it came to say so while it read.

    MODEL_ID=user/name python app.py        or        python app.py runs/mine/model

Needs gradio, transformers and torch, and what these bring; the model's own code comes with its weights. Nothing is
sent anywhere, and the page asks for nothing but itself. Files that come and go are deleted after an hour.
"""

import codecs
import csv
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from yaml import YAMLError

MAX_CHARACTERS = 100_000
"""Of one text: about 17,000 words."""
MAX_ROWS = 5_000
MAX_FILE_SIZE = "10mb"
MAX_WAITING = 20
"""One text and one file are read at a time; so many wait, and more are turned away."""
KEPT_SECONDS = 3600
BATCH_SIZE = 8
EXAMPLES = (
    "I had hoped for more, but from the second half on it won me over completely.",
    "Everyone around me loved it; I counted the minutes until it was over.",
)
"""For a model whose card shows none."""

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7"]  # blue, orange, green, purple
GREY = "#6b6b6b"
"""For labels that have no colour of their own."""
NUM_LEVELS = 5
STRONGEST = 0.55
"""Opacity of the strongest colour behind text: it stays readable, in light and in dark."""
MOST_POINTS = 1000
"""A curve of more tokens is drawn through its lowest and highest points."""

STYLE = """
.note { color: var(--body-text-color-subdued); font-size: .875rem; margin: .6rem 0 .3rem; }
.key { border-radius: 3px; color: var(--body-text-color); padding: 0 .4rem; white-space: nowrap; }
.curve { display: grid; grid-template-columns: auto 1fr; column-gap: .5rem; font-size: .8rem;
  color: var(--body-text-color-subdued); font-variant-numeric: tabular-nums; }
.curve .scale { display: flex; flex-direction: column; justify-content: space-between; text-align: right; }
.curve .axis { grid-column: 2; display: flex; justify-content: space-between; }
.curve svg { width: 100%; height: 11rem; overflow: visible; }
.curve svg * { vector-effect: non-scaling-stroke; }
.curve line { stroke: var(--border-color-primary); stroke-width: 1; }
.curve polyline { fill: none; stroke: var(--body-text-color); stroke-width: 1.3; }
.curve polygon { fill-opacity: .55; }
.text { border-top: 1px solid var(--border-color-primary); color: var(--body-text-color); line-height: 1.7;
  max-height: 32rem; overflow: auto; overflow-wrap: anywhere; padding: .8rem 0; white-space: pre-wrap; }
.text span { border-radius: 2px; }
""" + "".join(
    f".h{hue}{level} {{ background: {colour}{round(255 * STRONGEST * level / NUM_LEVELS):02x}; }}\n"
    for hue, colour in enumerate([*COLOURS, GREY])
    for level in range(1, NUM_LEVELS + 1)
)


class Classifier(NamedTuple):
    """A RoBERTa-GRU classifier in eval mode, and its fast tokenizer."""

    model: Any
    tokenizer: Any

    @property
    def labels(self) -> list[str]:
        """The C labels, or targets of a regression."""
        return [str(self.model.config.id2label[index]) for index in range(self.model.config.num_labels)]

    @property
    def problem_type(self) -> str:
        one_or_several = "regression" if self.model.config.num_labels == 1 else "single_label_classification"
        return self.model.config.problem_type or one_or_several

    @property
    def answer(self) -> str:
        """What the scores are, in words."""
        if self.problem_type == "regression":
            return "predicted"
        is_calibrated = self.model.config.calibration_temperature != 1.0
        return "calibrated probability" if is_calibrated else "probability"

    def score(self, texts: list[str]) -> torch.Tensor:
        """Score whole texts together: `(B, C)` float32."""
        inputs = self._encode(texts, padding=True)
        with torch.inference_mode():
            return self._scores(self.model(inputs["input_ids"], inputs["attention_mask"]).logits)

    def read(self, text: str) -> "Reading":
        """Score a whole text after each of its tokens."""
        inputs = self._encode([text], return_offsets_mapping=True)
        with torch.inference_mode():
            scores = self._scores(self.model.running_logits(inputs["input_ids"])[0])
        words, offsets = inputs.word_ids(0), inputs["offset_mapping"][0].tolist()
        ends = {
            end: position
            for position, (start, end) in enumerate(offsets)
            if end > start and words[position] != words[position + 1]
        }
        return Reading(text, ends, scores, self.labels, self.problem_type)

    def _encode(self, texts: list[str], **options: Any) -> Any:
        options |= {"truncation": False, "verbose": False, "return_token_type_ids": False}
        return self.tokenizer(texts, return_tensors="pt", **options).to(self.model.device)

    def _scores(self, logits: torch.Tensor) -> torch.Tensor:
        logits = logits.float().cpu()
        if self.problem_type == "regression":
            return logits
        return logits.softmax(-1) if self.problem_type == "single_label_classification" else logits.sigmoid()


class Reading(NamedTuple):
    """A text and its scores after each of its n tokens."""

    text: str
    ends: dict[int, int]  # where in the text each word ends → the last of its tokens, in order
    scores: torch.Tensor  # (n, C)
    labels: list[str]
    problem_type: str

    @property
    def hues(self) -> dict[int, int]:
        """The labels that have a colour: index → colour, in the order of the legend."""
        if self.is_two_sided:
            return {1: 0, 0: 1}
        highest = self.scores.amax(0).argsort(descending=True, stable=True)[: len(COLOURS)]
        return {int(label): hue for hue, label in enumerate(highest)}

    @property
    def is_two_sided(self) -> bool:
        """Whether one label's score tells the other's."""
        return len(self.labels) == 2 and self.problem_type == "single_label_classification"

    @property
    def range(self) -> tuple[float, float]:
        """The least and the largest score that can be drawn."""
        is_bounded = self.problem_type != "regression"
        return (0.0, 1.0) if is_bounded else (float(self.scores.min()), float(self.scores.max()))

    def written(self, score: float) -> str:
        return f"{score:.4g}" if self.problem_type == "regression" else f"{score:.2f}"


class Table(NamedTuple):
    """A CSV file as it came."""

    name: str
    header: list[str]
    rows: list[list[str]]
    delimiter: str
    encoding: str


def load(name: str) -> Classifier:
    """Load a model from its folder or the Hub, with the code that lies beside its weights.

    Raises:
        ValueError: if it is no RoBERTa-GRU.
    """
    model = AutoModelForSequenceClassification.from_pretrained(name, trust_remote_code=True)
    if not hasattr(model, "running_logits"):
        raise ValueError(f"{name} is a {model.config.model_type}: this page shows how a RoBERTa-GRU reads.")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Classifier(model.eval().to(device), AutoTokenizer.from_pretrained(name, trust_remote_code=True))


def examples(name: str) -> list[str]:
    """Return the texts that the model's card shows in its widget, or [`EXAMPLES`]."""
    card = Path(name) / "README.md"
    try:
        widget = ModelCard.load(str(card) if Path(name).is_dir() else name).data.get("widget")
    except (OSError, ValueError, YAMLError):  # no card, no network, or metadata that cannot be read
        widget = None
    texts = [example.get("text") for example in widget or [] if isinstance(example, dict)]
    return [text for text in texts if isinstance(text, str)] or list(EXAMPLES)


def build(model: str) -> gr.Blocks:
    """Load a model by the name of its folder or its Hub id, and make its page."""
    return page(load(model), examples(model))


def page(classifier: Classifier, texts: list[str]) -> gr.Blocks:
    """Make the page of a loaded model, with texts to begin with."""
    answer, labels = classifier.answer, classifier.labels
    listed = ", ".join(labels) if len(labels) <= 6 else f"{len(labels)} labels"

    def classify(text: str) -> tuple[Any, str]:
        reading = classifier.read(checked(text))
        last = reading.scores[-1].tolist()
        if classifier.problem_type == "regression":
            verdict: Any = ", ".join(reading.written(score) for score in last)
        else:
            verdict = dict(zip(labels, last, strict=True))
        return verdict, draw(reading, answer)

    def columns(file: str | None) -> Any:
        header = read_table(file).header
        chosen = "text" if "text" in header else header[0] if len(header) == 1 else None
        return gr.Dropdown(choices=header, value=chosen)

    def score_file(file: str | None, column: str | None, progress: Any = gr.Progress()) -> Iterator[str]:  # noqa: B008
        scored = score_table(classifier, read_table(file), column, progress)
        with tempfile.TemporaryDirectory() as folder:  # until Gradio has its copy
            yield write_table(scored, folder)

    with gr.Blocks(title="RoBERTa-GRU", analytics_enabled=False, delete_cache=(KEPT_SECONDS, KEPT_SECONDS)) as blocks:
        gr.Markdown(
            "# RoBERTa-GRU\nReads a text from its first word to its last, and shows how the verdict came about. "
            f"{'Predicts' if classifier.problem_type == 'regression' else 'Labels'}: {escape(listed)}."
        )
        with gr.Tab("One text"):
            with gr.Row():
                with gr.Column(scale=3, min_width=300):
                    box = gr.Textbox(
                        label="Text",
                        info=f"Read whole, up to {MAX_CHARACTERS:,} characters.",
                        placeholder="Write or paste a text.",
                        lines=8,
                        max_lines=12,
                    )
                    button = gr.Button("Classify", variant="primary")
                    gr.Examples([[text] for text in texts], [box], label="Examples")
                with gr.Column(scale=2, min_width=300):
                    verdict = gr.Label(label=answer.capitalize(), num_top_classes=8)
            shown = gr.HTML(elem_id="reading")
            gr.on([button.click, box.submit], classify, [box], [verdict, shown], api_name="classify")
        with gr.Tab("A file"):
            file = gr.File(label=f"CSV file, UTF-8, up to {MAX_ROWS:,} rows", file_types=[".csv"], height=150)
            column = gr.Dropdown(
                label="Column of the text",
                info="The file's columns are kept; the label and the score of each label are added.",
                value="text",
                choices=["text"],
                allow_custom_value=True,  # it is the file that knows them
            )
            score = gr.Button("Score the rows", variant="primary")
            scored = gr.File(label="Scored CSV file", interactive=False, height=150)
            file.upload(columns, [file], [column], api_name="columns")
            score.click(score_file, [file, column], [scored], api_name="score_file")
    return blocks.queue(default_concurrency_limit=1, max_size=MAX_WAITING, api_open=False)


def serve(blocks: gr.Blocks, **options: Any) -> None:
    """Serve a page; `options` are those of `gr.Blocks.launch`."""
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # none from elsewhere
    theme = gr.themes.Base(**fonts).set(
        body_text_color_subdued="*neutral_600",  # as it comes, too pale to read
        block_info_text_color="*neutral_600",
        button_primary_background_fill=COLOURS[0],
        button_primary_background_fill_dark=COLOURS[0],
        button_primary_background_fill_hover="#005a8d",
        button_primary_background_fill_hover_dark="#005a8d",
    )
    # Gradio asks its own address whether it answers, which a proxy does not know.
    spared = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    os.environ["no_proxy"] = ",".join(filter(None, [spared, "localhost,127.0.0.1,0.0.0.0"]))
    page_options = {"theme": theme, "css": STYLE, "footer_links": ["api"], "run_history": False, "ssr_mode": False}
    blocks.launch(max_file_size=MAX_FILE_SIZE, **page_options, **options)


def checked(text: str) -> str:
    """Return a text that can be read; say what is wrong with another one."""
    if not text.strip():
        raise mistake("There is no text: write or paste one, or take an example.")
    if len(text) > MAX_CHARACTERS:
        raise mistake(
            f"The text has {len(text):,} characters, and this page reads up to {MAX_CHARACTERS:,}: shorten it."
        )
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise mistake(f"Character {error.start + 1:,} of the text is half a character: paste the text anew.") from None
    return text


def mistake(message: str) -> gr.Error:
    """Build the error for something that the user can mend: it is shown, and not logged."""
    return gr.Error(escape(message, quote=False), print_exception=False)  # the browser reads it as HTML


def read_table(path: str | None) -> Table:
    """Read a CSV file whole; say in which row it breaks."""
    if path is None:
        raise mistake("There is no file: choose a CSV file.")
    name, data = Path(path).name, Path(path).read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise mistake(f"{name} is not UTF-8 text (line {line}): save it as UTF-8.") from error
    if not text.strip():
        raise mistake(f"{name} is empty: its first row has to name the columns.")
    delimiter = max(",;\t", key=text.partition("\n")[0].count)  # as spreadsheets write them
    rows: list[list[str]] = []
    try:
        rows.extend(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise mistake(f"Row {len(rows) + 1} of {name} cannot be read ({error}): check its quotes.") from error
    while not rows[-1]:  # blank lines at the end
        rows.pop()
    header, *rows = rows
    if not rows:
        raise mistake(f"{name} has a header and no rows: add one row for each text.")
    if len(rows) > MAX_ROWS:
        raise mistake(f"{name} has {len(rows):,} rows, and this page scores up to {MAX_ROWS:,}: split the file.")
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise mistake(
                f"Row {number} of {name} has {len(row)} cells and the header {len(header)}: put texts in quotes."
            )
    encoding = "utf-8-sig" if data.startswith(codecs.BOM_UTF8) else "utf-8"
    return Table(name, header, rows, delimiter, encoding)


def score_table(classifier: Classifier, table: Table, column: str | None, progress: Any) -> Table:
    """Add the label and the score of each label to every row."""
    if column not in table.header:
        raise mistake(f"{table.name} has no column {column or ''!r}: choose one of {', '.join(table.header)}.")
    labels = classifier.labels
    added = [*([] if classifier.problem_type == "regression" else ["predicted"]), *(f"score_{one}" for one in labels)]
    if taken := [name for name in added if name in table.header]:
        raise mistake(f"{table.name} has a column {taken[0]!r} already: rename it, or leave it out.")
    place = table.header.index(column)
    texts = [row[place] for row in table.rows]
    for number, text in enumerate(texts, 2):
        if not text.strip() or len(text) > MAX_CHARACTERS:
            has = f"{len(text):,} characters" if text.strip() else "no text"
            raise mistake(f"Row {number} of {table.name} has {has} in {column!r}: 1 to {MAX_CHARACTERS:,} are read.")
    scores = torch.empty(len(texts), len(labels))
    by_length = sorted(range(len(texts)), key=lambda row: len(texts[row]))  # little padding
    for first in range(0, len(texts), BATCH_SIZE):
        progress((first, len(texts)), unit="rows")
        batch = by_length[first : first + BATCH_SIZE]
        scores[batch] = classifier.score([texts[row] for row in batch])
    rows = [
        [*row, *predicted(of_row, labels, classifier.problem_type), *(f"{score:.6f}" for score in of_row)]
        for row, of_row in zip(table.rows, scores.tolist(), strict=True)
    ]
    return table._replace(header=[*table.header, *added], rows=rows)


def predicted(scores: list[float], labels: list[str], problem_type: str) -> list[str]:
    """Return the cell of the label: the highest, or all that are more likely than not; none for a regression."""
    if problem_type == "regression":
        return []
    if problem_type == "single_label_classification":
        return [labels[scores.index(max(scores))]]
    return [", ".join(label for label, score in zip(labels, scores, strict=True) if score >= 0.5)]


def write_table(table: Table, folder: str) -> str:
    path = Path(folder) / f"{Path(table.name).stem}-scored.csv"
    with path.open("w", encoding=table.encoding, newline="") as file:
        csv.writer(file, delimiter=table.delimiter).writerows([table.header, *table.rows])
    return str(path)


def draw(reading: Reading, answer: str) -> str:
    """Draw a reading as HTML: the curve of its scores, and the text coloured by them."""
    low, high = reading.range
    scale = "".join(f"<span>{reading.written(score)}</span>" for score in (high, (low + high) / 2, low))
    return f"""
<p class="note">{legend(reading, answer)}</p>
<div class="curve"><div class="scale">{scale}</div>{curve(reading)}
<div class="axis"><span>first token</span><span>last</span></div></div>
<p class="note">The text in these colours: {meaning(reading)}</p>
<div class="text" role="region" aria-label="The text, coloured" tabindex="0">{coloured(reading)}</div>"""


def curve(reading: Reading) -> str:
    """Draw the scores after every token: two labels as two sides of one line, others as a line each."""
    last = max(len(reading.scores) - 1, 1)
    low, high = reading.range
    heights = (100 * (high - reading.scores) / ((high - low) or 1.0)).T.tolist()  # C times n, 0 at the top

    def points(label: int, top: float = 0.0, bottom: float = 100.0) -> str:
        places = drawn_positions(reading.scores[:, label])
        return " ".join(f"{1000 * at / last:.1f},{min(max(heights[label][at], top), bottom):.1f}" for at in places)

    parts = [f'<line x1="0" x2="1000" y1="{height}" y2="{height}"/>' for height in (0, 50, 100)]
    if reading.is_two_sided:
        for hue, sides in enumerate([(0, 50), (50, 100)]):
            parts.append(f'<polygon points="0,50 {points(1, *sides)} 1000,50" fill="{COLOURS[hue]}"/>')
        parts.append(f'<polyline points="{points(1)}"/>')
    else:
        for label, hue in reading.hues.items():
            parts.append(f'<polyline points="{points(label)}" style="stroke: {COLOURS[hue]}"/>')
    last_scores = zip(reading.labels, reading.scores[-1].tolist(), strict=True)
    verdict = ", ".join(f"{label} {reading.written(score)}" for label, score in last_scores)
    said = escape(f"Curve of the scores while reading; in the end {verdict}")
    return (
        f'<svg viewBox="0 0 1000 100" preserveAspectRatio="none" role="img" aria-label="{said}">{"".join(parts)}</svg>'
    )


def drawn_positions(scores: torch.Tensor) -> list[int]:
    """Choose the tokens (≤ MOST_POINTS) that a curve is drawn through."""
    if len(scores) <= MOST_POINTS:
        return list(range(len(scores)))
    chosen, first = {0, len(scores) - 1}, 0
    for stretch in scores.tensor_split(MOST_POINTS // 2 - 1):
        chosen |= {first + int(stretch.argmin()), first + int(stretch.argmax())}
        first += len(stretch)
    return sorted(chosen)


def coloured(reading: Reading) -> str:
    """Write the whole text, every character once, in spans that tell the score on hovering."""
    colours, parts, done = paint(reading), [], 0
    pieces = ((end, *colours[position]) for end, position in reading.ends.items())
    for (css_class, said), run in groupby(pieces, lambda piece: piece[1:]):
        *_, (end, *_) = run
        parts.append(f'<span class="{css_class}" title="{escape(said)}">{escape(reading.text[done:end])}</span>')
        done = end
    return "".join(parts) + escape(reading.text[done:])


def paint(reading: Reading) -> list[tuple[str, str]]:
    """Give each token a CSS class and words.

    By the label that leads, where there is one label a text; else by the score of the label that ends highest.
    """
    scores, found = reading.scores, []
    if reading.problem_type == "single_label_classification":
        first, second = scores.topk(2).values.T
        strengths, labels = first - second, scores.argmax(-1).tolist()
        hues = [reading.hues.get(label, len(COLOURS)) for label in labels]
    else:
        low, high = reading.range
        labels = [int(scores[-1].argmax())] * len(scores)
        heights = scores[:, labels[0]] - (low + high) / 2
        strengths, hues = 2 * heights.abs() / ((high - low) or 1.0), [int(height < 0) for height in heights]
    for position, (label, hue, strength) in enumerate(zip(labels, hues, strengths.tolist(), strict=True)):
        said = f"{reading.labels[label]} {reading.written(float(scores[position, label]))}"
        found.append((f"h{hue}{round(strength * NUM_LEVELS)}", said))
    return found


def legend(reading: Reading, answer: str) -> str:
    """Say what the curve shows."""
    after = f"after each of {len(reading.scores):,} tokens"
    if reading.is_two_sided:
        name = reading.labels[1]
        return f"{answer.capitalize()} of {escape(name)} {after}: {key(0, name)} or {key(1, reading.labels[0])} leads."
    keys = " ".join(key(hue, reading.labels[label]) for label, hue in reading.hues.items())
    return f"{answer.capitalize()} {after}: {keys}"


def meaning(reading: Reading) -> str:
    """Say what the colours behind the text mean."""
    if reading.problem_type == "single_label_classification":
        others = f" ({key(len(COLOURS), 'another')} for the rest)" if len(reading.labels) > len(COLOURS) else ""
        return f"which label led at each word{others}, the stronger the farther."
    low, high = map(reading.written, reading.range)
    label = reading.labels[int(reading.scores[-1].argmax())]
    return f"{escape(label)} at each word, from {key(1, low)} to {key(0, high)}."


def key(hue: int, name: str) -> str:
    return f'<span class="key h{hue}{NUM_LEVELS}">{escape(name)}</span>'


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("MODEL_ID")
    if not name:
        sys.exit("Name the model: MODEL_ID=user/name python app.py, or python app.py FOLDER")
    try:
        blocks = build(name)
    except (OSError, ValueError) as error:  # no such model, or none for this page
        sys.exit(f"{name} cannot be shown: {error}")
    serve(blocks)


if __name__ == "__main__":
    main()
