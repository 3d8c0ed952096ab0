"""`roberta-gru …`: what is done with a trained model."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from .errors import InputError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Work with a trained RoBERTa-GRU. To train one: accelerate launch train.py --help",
)


@app.command()
def adapt(
    model: Annotated[str, typer.Argument(help="An encoder's folder or Hub id, with its tokenizer.")],
    texts: Annotated[list[str], typer.Argument(help="CSV, TSV, JSON Lines or Parquet files of unlabelled texts.")],
    output_dir: Annotated[Path, typer.Option(help="The folder to write; an unfinished run in it is resumed.")],
    exclude: Annotated[
        list[str] | None, typer.Option(help="A file whose texts are left out, such as a test split; again for more.")
    ] = None,
    text_column: Annotated[str, typer.Option(help="Column of the text.")] = "text",
    max_length: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a window. Unset: as many as the encoder can read.")
    ] = None,
    epochs: Annotated[float, typer.Option(help="Passes over the texts.")] = 1.0,
    learning_rate: Annotated[float, typer.Option(help="The highest learning rate.")] = 1e-4,
    batch_size: Annotated[int, typer.Option(min=1, help="Windows per batch.")] = 16,
    validation_share: Annotated[
        float, typer.Option(help="Share of the texts, 500 at most, that only measure the loss.")
    ] = 0.01,
    save_steps: Annotated[int, typer.Option(min=1, help="Steps between two checkpoints.")] = 500,
    whole_words: Annotated[bool, typer.Option(help="Hide whole words, not single tokens.")] = True,
    seed: Annotated[int, typer.Option(help="Seed of masks, order and validation texts.")] = 42,
) -> None:
    """Continue an encoder's pretraining on unlabelled texts; --model_name_or_path takes the folder that it writes.

    A run that was cut off is resumed by the same command.
    """
    from .training.pretraining import AdaptOptions, adapt_encoder

    options = AdaptOptions(
        text_column=text_column,
        exclude=tuple(exclude or ()),
        max_length=max_length,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        validation_share=validation_share,
        save_steps=save_steps,
        whole_words=whole_words,
        seed=seed,
    )
    adapt_encoder(model, texts, output_dir, options)
    print(f"Written to {output_dir}. To start from it: --model_name_or_path {output_dir}")


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A run's folder, a saved model's folder or a Hub id.")],
    data: Annotated[
        str, typer.Argument(help="A labelled CSV, TSV, JSON Lines or Parquet file, a folder, or a Hub id.")
    ],
    text_column: Annotated[
        list[str] | None, typer.Option(help="Column of the text; give it again to join several.")
    ] = None,
    label_column: Annotated[str, typer.Option(help="Column of the label.")] = "label",
    label_delimiter: Annotated[str | None, typer.Option(help="Splits a cell into several labels.")] = None,
    slice_by: Annotated[list[str] | None, typer.Option(help="Also measure each value of this column apart.")] = None,
    csv_columns: Annotated[
        list[str] | None, typer.Option(help="Column of a CSV file without a header; give it again for each.")
    ] = None,
    csv_encoding: Annotated[str, typer.Option(help="Encoding of a CSV file.")] = "utf-8",
    clean_html: Annotated[bool, typer.Option(help="Turn tags into line breaks, as in training.")] = False,
    skip_bad_rows: Annotated[bool, typer.Option(help="Leave rows without usable text or label out.")] = False,
    max_length: Annotated[
        str, typer.Option(help="Cut texts to this many tokens, special tokens included. none: read whole texts.")
    ] = "none",
    batch_size: Annotated[int, typer.Option(min=1, help="Texts per batch.")] = 32,
    output: Annotated[Path | None, typer.Option(help="Also write the figures to this JSON file.")] = None,
) -> None:
    """Measure a saved model on new labelled texts: figures with 95 % intervals, by length, by class, by any column."""
    from .arguments import DataArguments
    from .files import check_writable, refuse_overwriting_inputs, write_json, writing_to
    from .inference.evaluation import evaluate_model, report

    if output is not None and output.is_dir():
        raise InputError(f"--output {output} is a folder: name a file, such as {output / 'figures.json'}.")
    if output is not None:
        refuse_overwriting_inputs(output, (data, model))
        check_writable("--output", output.absolute().parent)
    data_args = DataArguments(
        text_column=text_column or ["text"],
        label_column=label_column,
        label_delimiter=label_delimiter,
        csv_columns=csv_columns,
        csv_encoding=csv_encoding,
        clean_html=clean_html,
        on_bad_row="skip" if skip_bad_rows else "error",
        max_length=max_length,
    )
    figures = evaluate_model(model, data, data_args, slice_by or [], batch_size)
    print(report(figures))
    if output is not None:
        with writing_to(output):
            write_json(output, figures)


@app.command()
def explain(
    model: Annotated[str, typer.Argument(help="A run's folder, a saved model's folder or a Hub id.")],
    text: Annotated[str | None, typer.Argument(help="The text itself; for a longer one, give --file.")] = None,
    file: Annotated[Path | None, typer.Option(help="A text file (UTF-8), in place of TEXT.")] = None,
    output_dir: Annotated[Path, typer.Option(help="Folder of explanation.png and explanation.html.")] = Path(
        "explanation"
    ),
    label: Annotated[
        str | None, typer.Option(help="The label in question; unset: the one that scores highest.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of the attributions' integral, a pass each; more are more exact.")
    ] = None,
    attributions: Annotated[
        bool, typer.Option(help="Also attribute the verdict to the words, which takes most of the time.")
    ] = True,
) -> None:
    """Show how a verdict came about: what it was after every token, where it turned, and which words told most."""
    from .inference.explanation import NUM_STEPS, report
    from .inference.page import explain_model

    if steps is not None and not attributions:
        raise InputError("--steps belongs to the attributions, which --no-attributions leaves out.")
    if text is not None and file is not None:
        raise InputError("Both a text and --file are given: leave one out.")
    text = _read_text(file) if file is not None else text
    if text is None:
        raise InputError("There is nothing to explain: give a text in quotes, or --file with a file's name.")
    num_steps = (steps or NUM_STEPS) if attributions else None
    trace, attribution, files = explain_model(model, text, output_dir, label, num_steps)
    print(report(trace, attribution, label))
    print("\nDrawn in", " and ".join(map(str, files)))


@app.command()
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(help="Folders of finished runs; the others are compared with the first one's system."),
    ],
    output_dir: Annotated[
        Path | None, typer.Option(help="Also write comparison.md, .json and .png into this folder.")
    ] = None,
    resamples: Annotated[int, typer.Option(min=1, help="Bootstrap resamples.")] = 2000,
) -> None:
    """Compare systems on the same test rows: figures over seeds, paired differences, McNemar's test."""
    from .studies import comparison

    compared = comparison.compare(runs, resamples)
    text = comparison.comparison_markdown(compared)
    print(text)
    if output_dir is not None:
        from .files import write_json, write_text

        write_text(output_dir / "comparison.md", text + "\n")
        write_json(output_dir / "comparison.json", compared)
        comparison.draw_comparison(compared, output_dir / "comparison.png")


@app.command()
def demo(
    model: Annotated[str, typer.Argument(help="A run's folder, a saved model's folder or a Hub id.")],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 7860,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
) -> None:
    """Show a model in the browser: its verdict on a text, how it came about, and scored CSV files."""
    from .inference.demo import demo as serve_demo

    serve_demo(model, host, port, browser)


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="A run's folder, a saved model's folder or a Hub id.")],
    to: Annotated[str, typer.Option(help="The format: onnx.")] = "onnx",
    quantize: Annotated[
        str | None, typer.Option(help="int8: smaller and faster, and not quite the model. Unset: float32.")
    ] = None,
    output_dir: Annotated[Path, typer.Option(help="The folder to write; an export that is there is replaced.")] = Path(
        "onnx"
    ),
) -> None:
    """Write a model as one ONNX graph for texts of any length, which runs without torch; checked against the model."""
    from .inference import export as exporting

    print(exporting.report(exporting.export(model, output_dir, to, quantize)))
    print(f"\nWritten to {output_dir}: see README.md there.")


@app.command()
def publish(
    run: Annotated[Path, typer.Argument(help="A run's folder or a saved model's folder.")],
    name: Annotated[
        str, typer.Argument(metavar="USER/NAME", help="The repository on the Hub; made if it is not there.")
    ],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[
        str | None, typer.Option(help="Branch, begun at main if it is not there. Unset: main.")
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Name of this version. Unset: the next of v1, v2, …")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would travel; push nothing.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Overwrite what else the repository holds without asking.")
    ] = False,
) -> None:
    """Publish a model on the Hub in one commit, and tag it. A push that was cut off goes on by the same command."""
    from .hub import publish as publishing

    def agrees(question: str) -> bool:
        return yes or (sys.stdin.isatty() and typer.confirm(question))

    publication = publishing.publish(
        run, name, private=private or None, revision=revision, tag=tag, dry_run=dry_run, confirm=agrees
    )
    print(publishing.describe_publication(publication))


@app.command()
def score(
    model: Annotated[str, typer.Argument(help="A run's folder, a saved model's folder or a Hub id.")],
    source: Annotated[Path, typer.Argument(metavar="IN", help="A CSV, TSV, JSON Lines or Parquet file, of any size.")],
    target: Annotated[
        Path, typer.Argument(metavar="OUT", help="The file to write, of any of these kinds: the same rows, scored.")
    ],
    text_column: Annotated[str, typer.Option(help="Column of the text.")] = "text",
    prefix: Annotated[
        str, typer.Option(help="Begins the new columns' names: label and score; of a regression, value.")
    ] = "predicted_",
    all_scores: Annotated[
        bool,
        typer.Option("--all-scores", help="Also write every label's probability, as score_LABEL whatever the prefix."),
    ] = False,
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16, int8, or auto: the fastest that this machine has.")
    ] = "auto",
    device: Annotated[str | None, typer.Option(help="cpu or cuda. Unset: a GPU if there is one.")] = None,
    max_length: Annotated[
        int | None,
        typer.Option(min=1, help="Cut texts to so many tokens, special tokens included. Unset: read whole texts."),
    ] = None,
    tokens_per_batch: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens read at once. Unset: 512 to 2,048 on a processor, 65,536 on a GPU."),
    ] = None,
    csv_encoding: Annotated[
        str, typer.Option(help="Encoding of a CSV or TSV file that is read; UTF-8 is written.")
    ] = "utf-8",
    skip_bad_rows: Annotated[
        bool, typer.Option("--skip-bad-rows", help="Keep rows without a text, with nothing in the new columns.")
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Delete what an unfinished run into OUT has scored, and begin anew.")
    ] = False,
    excel_safe: Annotated[
        bool,
        typer.Option("--excel-safe", help="CSV and TSV: an apostrophe before cells that a spreadsheet would run."),
    ] = False,
    verify: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Afterwards score the first N texts in float32 too, and compare."),
    ] = 0,
) -> None:
    """Score the texts of a file: the same rows come out, each with the model's verdict beside it.

    A run that was cut off goes on when the same command is run again.
    """
    from .inference import score_file as scoring
    from .inference.scorer import Scorer

    scorer = Scorer(model, dtype=dtype, device=device, max_length=max_length, tokens_per_batch=tokens_per_batch)
    print(f"Scoring in {scorer.description}.", file=sys.stderr)
    result = scoring.score_file(
        scorer,
        source,
        target,
        text_column=text_column,
        prefix=prefix,
        all_scores=all_scores,
        csv_encoding=csv_encoding,
        skip_bad_rows=skip_bad_rows,
        restart=restart,
        excel_safe=excel_safe,
    )
    print(scoring.report(result))
    if verify:
        reference = Scorer(model, dtype="float32", device=device, max_length=max_length)
        texts = scoring.read_texts(source, text_column, csv_encoding)
        print(scoring.report_verified(scoring.verify(scorer, reference, texts, verify)))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def sweep(
    context: typer.Context,
    space: Annotated[Path, typer.Option(help="A file that says what to vary and how: see recipes/spaces.")],
    config: Annotated[str | None, typer.Option(help="The recipe that every trial starts from.")] = None,
    output_dir: Annotated[
        Path | None, typer.Option(help="Folder of the study. Unset: runs/sweeps/ and the names of recipe and space.")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="A database's URL, for several machines to share the trials. Unset: study.db in the folder."
        ),
    ] = None,
    final: Annotated[
        bool, typer.Option("--final", help="Afterwards train the best options again, and read the test split.")
    ] = False,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds of --final.")] = 3,
) -> None:
    """Vary options, and choose by the validation split. Any other option of train.py holds for every trial.

    A study that was cut off goes on when the same command is run again.
    """
    from .studies.study import sweep as run_sweep

    name = f"{Path(config).stem}-{space.stem}" if config else space.stem
    folder = output_dir or Path("runs/sweeps") / name
    run_sweep(config, space, context.args, folder, storage, seeds if final else 0, sys.argv)
    print(f"\nThe study lies in {folder}: sweep.md, sweep.json, heat-map.png, curves.png.")


def _read_text(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"--file {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"--file {path} is not UTF-8 text (byte {error.start + 1}). Save the file as UTF-8."
        ) from error
    if not text.strip():
        raise InputError(f"--file {path} holds no text.")
    return text


def exit_status(program: Callable[[], object]) -> int:
    """Run a program; a user's mistake is one line on standard error and status 2, an interrupt status 130."""
    try:
        program()
    except InputError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "Interrupted. What was saved is whole: --resume_from_checkpoint true goes on from a checkpoint; a "
            "study, or the scoring of a file, goes on by the same command.",
            file=sys.stderr,
        )
        return 130
    return 0


def main() -> None:
    """Be the console script."""
    sys.exit(exit_status(app))
