"""A page for a RoBERTa-GRU text classifier: what it says of a text, and how it came to say so while it read.

    MODEL_ID=user/name python app.py        or        python app.py runs/mine/model

Needs gradio, transformers and torch, and what these bring, and dialect.py, reading.py and reading.html beside it or
the package installed; the model's own code comes with its weights. Nothing is sent anywhere, and the page asks for
nothing but itself. Files that come and go are deleted after an hour.
"""

import codecs
import ctypes
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import torch
from huggingface_hub import ModelCard
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from yaml import YAMLError

try:
    from modeling_roberta_gru.data import dialect
    from modeling_roberta_gru.inference import reading
except ImportError:  # not installed: copies of dialect.py, reading.py and reading.html lie beside this file
    import dialect  # type: ignore[import-not-found, no-redef]
    import reading  # type: ignore[import-not-found, no-redef]

MAX_CHARACTERS = 100_000
"""Of one text: about 17,000 words."""
MAX_TOKENS = 100_000
"""Of one text: as many as characters, which only odd characters need."""
LIVE_CHARACTERS = 2_000
"""That are read at once while one types: more wait for the button."""
LIVE_SECONDS, MAX_SECONDS, MAX_FILE_SECONDS = 5, 120, 1_800
MAX_ROWS = 5_000
MAX_FILE_SIZE = "10mb"
MAX_WAITING = 20
"""One text and one file are read at a time; so many wait, and more are turned away."""
KEPT_SECONDS = 3600
BATCH_SIZE = 8
DELIMITERS = {".csv": ",", ".tsv": "\t"}
"""Endings of the files that are read, and what usually stands between their cells."""
EXAMPLES = (
    "I had hoped for more, but from the second half on it won me over completely.",
    "Everyone around me loved it; I counted the minutes until it was over.",
)
"""For a model whose card shows none."""

STYLE = (
    reading.style()
    + """
#reading .reading { --page: var(--background-fill-primary); --text: var(--body-text-color);
  --faint: var(--body-text-color-subdued); --line: var(--border-color-primary); background: none; }
#reading .reading .text { max-height: 32rem; overflow: auto; }
"""
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
        # Padded here: a fast tokenizer keeps padding as a setting, which would reach the other visitors' threads.
        encoded = self.tokenizer(texts, truncation=False, verbose=False, return_token_type_ids=False)["input_ids"]
        documents = [torch.tensor(ids) for ids in encoded]
        input_ids = pad_sequence(documents, batch_first=True).to(self.model.device)
        mask = pad_sequence([torch.ones_like(ids) for ids in documents], batch_first=True).to(self.model.device)
        with torch.inference_mode():
            logits = self.model(input_ids, mask).logits.float().cpu().numpy()
        return torch.from_numpy(reading.to_scores(logits, self.problem_type)).float()

    def read(self, text: str) -> reading.Trace:
        """Score a whole text after each of its tokens."""
        return reading.read(self.model, self.tokenizer, text)


class Live(NamedTuple):
    """A text that is being typed, and what has read it so far."""

    text: str
    reader: Any


class Table(NamedTuple):
    """A CSV or TSV file as it came.

    Attributes:
        name: the file's.
        header: the cells of its header.
        rows: as many cells for each.
        written: how it is written.
        has_byte_order_mark: whether it begins with one.
        faults: row (from 0) → why it cannot be read, or scored.
    """

    name: str
    header: list[str]
    rows: list[list[str]]
    written: dialect.Dialect
    has_byte_order_mark: bool
    faults: dict[int, str]

    @property
    def names(self) -> list[str]:
        """The names of its columns; those that have none are numbered."""
        return dialect.column_names(self.header)


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
    answer, time = classifier.answer, reading.TimeLimit(classifier.model)
    # A fast tokenizer keeps cut and padding as settings. Once they are off, no call here changes them again.
    classifier.tokenizer("", truncation=False, padding=False)

    def classify(text: str) -> tuple[Any, str]:
        return classify_text(classifier, time, text)

    def type_on(text: str, live: Live | None) -> tuple[Any, Live | None]:
        try:
            with time.seconds(LIVE_SECONDS):
                return read_on(classifier, text, live)
        except TimeoutError:
            return gr.skip(), None

    def columns(file: str | None) -> Any:
        names = read_table(file).names
        chosen = "text" if "text" in names else names[0] if len(names) == 1 else None
        return gr.Dropdown(choices=names, value=chosen)

    def score_file(
        file: str | None,
        column: str | None,
        skip_bad_rows: bool = False,
        progress: Any = gr.Progress(),  # noqa: B008
    ) -> Iterator[tuple[str, str]]:
        with in_time(time, MAX_FILE_SECONDS):
            scored = score_table(classifier, read_table(file), column, progress, skip_bad_rows)
        with tempfile.TemporaryDirectory() as folder:  # until Gradio has its copy
            yield write_table(scored, folder), f"<p>{escape(reading.visible(described(scored)))}</p>"
        release_memory()

    with gr.Blocks(title="RoBERTa-GRU", analytics_enabled=False, delete_cache=(KEPT_SECONDS, KEPT_SECONDS)) as blocks:
        gr.HTML(introduction(classifier))  # a label's Markdown would be active
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
                    prediction = gr.Label(label=answer.capitalize(), num_top_classes=8)
            shown = gr.HTML(elem_id="reading")
            gr.on([button.click, box.submit], classify, [box], [prediction, shown], api_name="classify")
            if can_read_on(classifier):
                live = gr.State(None)
                box.input(
                    type_on,
                    [box, live],
                    [prediction, live],
                    trigger_mode="always_last",
                    show_progress="hidden",
                    api_visibility="private",
                )
        with gr.Tab("A file"):
            file = gr.File(
                label=f"CSV or TSV file, UTF-8, up to {MAX_ROWS:,} rows", file_types=[*DELIMITERS], height=150
            )
            column = gr.Dropdown(
                label="Column of the text",
                info="The file's columns are kept; the label and the score of each label are added.",
                value="text",
                choices=["text"],
                allow_custom_value=True,  # it is the file that knows them
            )
            skip = gr.Checkbox(
                label="Skip bad rows",
                info="Rows that cannot be read or have no text stay in the file, without a prediction.",
            )
            score = gr.Button("Score the rows", variant="primary")
            scored = gr.File(label="Scored file", interactive=False, height=150)
            counted = gr.HTML()
            file.upload(columns, [file], [column], api_name="columns")
            score.click(score_file, [file, column, skip], [scored, counted], api_name="score_file")
    return blocks.queue(default_concurrency_limit=1, max_size=MAX_WAITING, api_open=False)


def serve(blocks: gr.Blocks, **options: Any) -> None:
    """Serve a page; `options` are those of `gr.Blocks.launch`."""
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # none from elsewhere
    theme = gr.themes.Base(**fonts).set(
        body_text_color_subdued="*neutral_600",  # as it comes, too pale to read
        block_info_text_color="*neutral_600",
        button_primary_background_fill=reading.BLUE,
        button_primary_background_fill_dark=reading.BLUE,
        button_primary_background_fill_hover="#005a8d",
        button_primary_background_fill_hover_dark="#005a8d",
    )
    # Gradio asks its own address whether it answers, which a proxy does not know.
    spared = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    os.environ["no_proxy"] = ",".join(filter(None, [spared, "localhost,127.0.0.1,0.0.0.0"]))
    page_options = {"theme": theme, "css": STYLE, "footer_links": ["api"], "run_history": False, "ssr_mode": False}
    blocks.launch(max_file_size=MAX_FILE_SIZE, **page_options, **options)


def introduction(classifier: Classifier) -> str:
    """Say as HTML what the page does."""
    labels = classifier.labels
    listed = reading.visible(", ".join(labels)) if len(labels) <= 6 else f"{len(labels)} labels"
    kind = "Predicts" if classifier.problem_type == "regression" else "Labels"
    return (
        "<h1>RoBERTa-GRU</h1><p>Reads a text from first word to last, and shows how the prediction came about. "
        f"{kind}: {escape(listed)}.</p>"
    )


def classify_text(classifier: Classifier, time: reading.TimeLimit, text: str) -> tuple[Any, str]:
    """Return what the model says of a text, for `gr.Label`, and how it came to say so, as HTML."""
    text = checked(text)
    if reading.has_more_tokens(classifier.tokenizer, text, MAX_TOKENS):
        raise mistake(f"The text has more than {MAX_TOKENS:,} tokens, which is what this page reads: shorten it.")
    with in_time(time, MAX_SECONDS):
        trace = classifier.read(text)
    last = trace.scores[-1].tolist()
    if classifier.problem_type == "regression":
        return ", ".join(trace.written(score) for score in last), reading.html(trace)
    return dict(zip(map(reading.visible, trace.labels), last, strict=True)), reading.html(trace)


def can_read_on(classifier: Classifier) -> bool:
    """Tell whether a text can be read while it is typed: left to right, by a model whose code knows how."""
    return hasattr(classifier.model, "reader") and not classifier.model.config.gru_bidirectional


def read_on(classifier: Classifier, text: str, live: Live | None) -> tuple[Any, Live | None]:
    """Read on in a text that is being typed: what was read before is not read again.

    Returns:
        The prediction, for `gr.Label`, and what to give with the next text. What would take long, or is not text, is
        left to the button: the prediction then stays as it is.
    """
    if not text.strip():
        return None, None
    if len(text) > MAX_CHARACTERS:
        return gr.skip(), None
    if live is None or not text.startswith(live.text):
        live = Live("", classifier.model.reader(classifier.tokenizer))
    added = text[len(live.text) :]
    if len(reading.last_word(live.text)) + len(added) > LIVE_CHARACTERS:
        return gr.skip(), None
    try:
        scores = live.reader.append(added).tolist()
    except ValueError:  # half a character
        return gr.skip(), None
    live = Live(text, live.reader)
    if classifier.problem_type == "regression":
        return ", ".join(f"{score:.3f}" for score in scores), live
    return dict(zip(map(reading.visible, classifier.labels), scores, strict=True)), live


def checked(text: str) -> str:
    """Return a text that can be read; say what is wrong with another one."""
    if not text.strip():
        raise mistake("Enter a text, paste one, or choose an example.")
    if len(text) > MAX_CHARACTERS:
        raise mistake(
            f"The text has {len(text):,} characters, and this page reads up to {MAX_CHARACTERS:,}: shorten it."
        )
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise mistake(
            f"Character {error.start + 1:,} of the text is half a character: paste the text again."
        ) from None
    return text


@contextmanager
def in_time(time: reading.TimeLimit, seconds: int) -> Iterator[None]:
    """Say so where the block takes longer."""
    try:
        with time.seconds(seconds):
            yield
    except TimeoutError:
        raise mistake(
            f"Reading takes longer than {seconds:,} seconds, which is all this page has: give less."
        ) from None


def mistake(message: str) -> gr.Error:
    """Build the error for something that the user can mend: it is shown, and not logged."""
    return gr.Error(
        escape(reading.visible(message), quote=False), print_exception=False
    )  # the browser reads it as HTML


def read_table(path: str | None) -> Table:
    """Read a CSV or TSV file whole, as the package's commands do."""
    if path is None:
        raise mistake("Choose a CSV or TSV file first.")
    name, data = Path(path).name, Path(path).read_bytes()
    has_byte_order_mark = data.startswith(codecs.BOM_UTF8)
    data = data.removeprefix(codecs.BOM_UTF8)
    if not data.strip():
        raise mistake(f"{name} is empty: its first row has to name the columns.")
    written = dialect.find_dialect(
        data[: dialect.SAMPLE_BYTES].decode(errors="surrogateescape"),
        preferred=DELIMITERS.get(Path(name).suffix.lower(), ","),
        is_cut=len(data) > dialect.SAMPLE_BYTES,
    )
    text = data.decode(errors="surrogateescape")
    lines = dialect.split_lines(text, only_feeds=written.quoting == dialect.NONE and "\n" in text)
    read = list(dialect.read_rows(lines, written))
    if not read:
        raise mistake(f"{name} has no rows: its first row has to name the columns.")
    header, *rows = read
    if header.fault or not dialect.is_decoded("".join(header.cells)):
        raise mistake(f"{name}: in the header {header.fault or dialect.not_text('UTF-8')}.")
    if not rows:
        raise mistake(f"{name} has a header and no rows: add one row for each text.")
    if len(rows) > MAX_ROWS:
        raise mistake(f"{name} has {len(rows):,} rows, and this page scores up to {MAX_ROWS:,}: split the file.")
    cells = dialect.without_trailing(header.cells, rows[0])
    rows = [dialect.fitted(row, len(cells), written) for row in rows]
    faults = {at: row.fault for at, row in enumerate(rows) if row.fault}
    for at, row in enumerate(rows):
        if not dialect.is_decoded("".join(row.cells)):
            faults.setdefault(at, dialect.not_text("UTF-8"))
    return Table(name, cells, [row.cells for row in rows], written, has_byte_order_mark, faults)


def score_table(
    classifier: Classifier, table: Table, column: str | None, progress: Any, skip_bad_rows: bool = False
) -> Table:
    """Add the label and the score of each label to every row; to bad ones nothing, if they may be skipped."""
    names = table.names
    if column not in names:
        raise mistake(f"{table.name} has no column {column or ''!r}: choose one of {', '.join(names)}.")
    labels = classifier.labels
    added = [*([] if classifier.problem_type == "regression" else ["predicted"]), *(f"score_{one}" for one in labels)]
    if taken := [name for name in added if name in names]:
        raise mistake(f"{table.name} has a column {taken[0]!r} already: rename it, or leave it out.")
    place = names.index(column)
    texts = [row[place] for row in table.rows]
    faults = dict(table.faults)
    for at, text in enumerate(texts):
        if not text.strip():
            faults.setdefault(at, "the text is empty")
        elif len(text) > MAX_CHARACTERS:
            faults.setdefault(at, f"the text has more than {MAX_CHARACTERS:,} characters")
    good = [at for at in range(len(texts)) if at not in faults]
    if faults and not (skip_bad_rows and good):
        raise mistake(f"{table.name}, {_counted(faults)}. Remove what is bad, or tick 'Skip bad rows'.")
    scores = torch.empty(len(texts), len(labels))
    by_length = sorted(good, key=lambda row: len(texts[row]))  # little padding
    for first in range(0, len(good), BATCH_SIZE):
        progress((first, len(good)), unit="rows")
        batch = by_length[first : first + BATCH_SIZE]
        scores[batch] = classifier.score([texts[row] for row in batch])
    rows = [
        [*row, *([""] * len(added) if at in faults else cells(of_row, labels, classifier.problem_type))]
        for at, (row, of_row) in enumerate(zip(table.rows, scores.tolist(), strict=True))
    ]
    return table._replace(header=[*table.header, *added], rows=rows, faults=faults)


def _counted(faults: dict[int, str]) -> str:
    bad = dialect.BadRows()
    bad.add(faults)
    return str(bad)


def described(table: Table) -> str:
    """Say how a scored file was read, and of how many rows."""
    said = f"Read as: {table.written}. {len(table.rows):,} rows, {len(table.rows) - len(table.faults):,} scored"
    return f"{said}; skipped {_counted(table.faults)}." if table.faults else f"{said}."


def cells(scores: list[float], labels: list[str], problem_type: str) -> list[str]:
    """Return what is added to a row."""
    return [*predicted(scores, labels, problem_type), *(f"{score:.6f}" for score in scores)]


def predicted(scores: list[float], labels: list[str], problem_type: str) -> list[str]:
    """Return the cell of the label: the highest, or all that are more likely than not; none for a regression."""
    if problem_type == "regression":
        return []
    if problem_type == "single_label_classification":
        return [labels[scores.index(max(scores))]]
    return ["|".join(label for label, score in zip(labels, scores, strict=True) if score >= 0.5)]


def release_memory() -> None:
    """Give the system back what the C library keeps for a next file: with many threads, more and more of it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:  # glibc
        trim(0)


def write_table(table: Table, folder: str) -> str:
    """Write a table as it was written when it came."""
    name = Path(table.name)
    path = Path(folder) / f"{name.stem}-scored{name.suffix if name.suffix.lower() in DELIMITERS else '.csv'}"
    try:
        lines = [table.written.line(row) for row in [table.header, *table.rows]]
    except ValueError as error:
        raise mistake(f"{table.name}: {error}. Save it with quotation marks around its cells.") from error
    if table.written.has_sep_line:
        lines.insert(0, f"sep={table.written.delimiter}\n")
    text = "".join(lines).encode("utf-8", "backslashreplace")  # undecodable bytes, as the package writes them
    path.write_bytes(codecs.BOM_UTF8 * table.has_byte_order_mark + text)
    return str(path)


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
