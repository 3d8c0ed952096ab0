"""`roberta-gru …`: train, and what is done with a trained model.

What a usage error, a help page or a mistyped name needs is light; everything heavy is imported by the commands.
"""

import errno
import os
import reprlib
import sys
from collections.abc import Callable, Mapping
from functools import wraps
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from . import __version__
from .arguments import DataArguments, find_recipe, help_text, read_options
from .errors import InputError, say
from .files import (
    alone,
    check_table,
    check_writable,
    kind_of,
    refuse_folder,
    refuse_overwriting_inputs,
    without_passwords,
    write_json,
    write_text,
    writing_to,
)

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A run's folder, a saved model's folder or a Hub id.")]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "int8"],
    typer.Option(help="Data type; auto: the fastest that this machine supports."),
]
Device = Annotated[str | None, typer.Option(help="cpu or cuda. Unset: a GPU if there is one.")]
CsvEncoding = Annotated[str, typer.Option(help="Encoding of the CSV or TSV input file.")]
CsvDelimiter = Annotated[str, typer.Option(help="Field separator: a character, tab, or auto (detected).")]
CsvQuoting = Annotated[
    Literal["auto", "doubled", "none"],
    typer.Option(help="Quoting: doubled, none (quotation marks have no meaning), or auto (detected)."),
]
CsvEscape = Annotated[str, typer.Option(help="Escape character: a character, backslash, none, or auto (detected).")]
CleanHtml = Annotated[
    bool | None,
    typer.Option(
        "--clean-html/--no-clean-html",
        help="Turn <br /> and <p> into line breaks, drop other tags. Unset: as in training.",
    ),
]
RESUMED = ("adapt", "publish", "score", "sweep")
"""Commands that resume when they are run again."""
EPILOG = """Example (offline, a few minutes; without --no-attributions, explain needs the extra `explain`):

\b
  roberta-gru train --config quickstart
  roberta-gru explain runs/quickstart "At first I adored it. In the end I thought it awful." --no-attributions

Run `roberta-gru COMMAND --help` for the options of a command."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # which takes half a second
    help="Train text classifiers that read whole documents; measure, explain, publish and apply them.",
    epilog=EPILOG,
    context_settings={"terminal_width": 100, "token_normalize_func": lambda token: token.replace("_", "-")},
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"roberta-gru {__version__}")
        raise typer.Exit


@app.callback()
def _read_version(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


def exit_status(program: Callable[[], object], way_on: str = "") -> int:
    """Run a program; a user's mistake is one line on standard error and status 2, an interrupt status 130.

    Args:
        program: what is run.
        way_on: what to do after an interrupt, where that does not say so itself.
    """
    _accept_any_character()
    try:
        program()
    except InputError as error:
        say(f"Error: {without_passwords(str(error))}", error=True)
        return 2
    except OSError as error:
        if isinstance(error, PermissionError) and error.filename is not None:
            say(f"Error: {error.filename} cannot be reached: {error.strerror}. Name another place.", error=True)
            return 2
        if error.errno != errno.ENAMETOOLONG:
            raise
        say(
            f"Error: {reprlib.repr(error.filename)} is too long for the name of a file: give a shorter one.",
            error=True,
        )
        return 2
    except KeyboardInterrupt as interrupt:
        say(f"Interrupted. {str(interrupt) or way_on}".rstrip(), error=True)
        return 130
    return 0


def _accept_any_character() -> None:
    """Have a console that cannot show a character show its code, in place of a traceback after hours of work."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


class PlainCommand(TyperCommand):
    """A command whose usage reads MODEL IN OUT, not {MODEL} {IN} {OUT}."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return what follows the command's name in its usage."""
        return [piece.replace("{", "").replace("}", "") for piece in super().collect_usage_pieces(ctx)]


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Add a command, by the name of a function."""
    return app.command(cls=PlainCommand)(_with_status(function))


def raw_command(**settings: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add a command that reads options of its own from `context.args`."""
    unread = {"allow_extra_args": True, "ignore_unknown_options": True, **settings}
    return lambda function: app.command(cls=PlainCommand, context_settings=unread)(_with_status(function))


def _with_status(function: Callable[..., None]) -> Callable[..., None]:
    way_on = "Run the same command again to resume." if function.__name__ in RESUMED else ""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        status = exit_status(lambda: function(*args, **kwargs), way_on)
        if status:
            raise typer.Exit(status)

    return run


@raw_command(help_option_names=[])
def train(context: typer.Context) -> None:
    """Train a classifier on labelled texts, measure it, and save it."""
    for option in ("-h", "--help", "--help-all", "--help_all"):
        if option in context.args:
            print(help_text(full=option not in ("-h", "--help")))
            return
    options = read_options(context.args)
    for path in chain(*options.data.files.values()):
        refuse_folder(path)
    for path in options.data.paths:
        check_table(path)
    if options.model.model_name_or_path is not None:
        _check_model(options.model.model_name_or_path, "model_name_or_path")
    from .experiment import run
    from .training.arguments import RobertaGRUTrainingArguments

    args = RobertaGRUTrainingArguments(**options.training)
    try:
        run(options.model, options.data, args, recipe=options.recipe, command=sys.argv)
    except KeyboardInterrupt as interrupt:
        if any(Path(args.output_dir).glob("checkpoint-*")):
            raise KeyboardInterrupt("--resume_from_checkpoint auto resumes from the last checkpoint.") from interrupt
        raise KeyboardInterrupt("Nothing was saved yet.") from interrupt


@command
def adapt(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="An encoder's folder or Hub id, with its tokenizer.")],
    texts: Annotated[
        list[str],
        typer.Argument(metavar="TEXTS", help="CSV, TSV, JSON Lines or Parquet files of unlabelled texts."),
    ],
    output_dir: Annotated[Path, typer.Option(help="Output folder; an unfinished run in it is resumed.")],
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="File whose texts are left out, such as a test split. Repeat it for several."),
    ] = None,
    text_column: Annotated[str, typer.Option(help="Column of the text.")] = "text",
    clean_html: Annotated[
        bool, typer.Option("--clean-html", help="Turn <br /> and <p> into line breaks, drop other tags.")
    ] = False,
    max_length: Annotated[
        int | None, typer.Option(min=1, help="Tokens per window. Unset: as many as the encoder can read.")
    ] = None,
    epochs: Annotated[float, typer.Option(help="Passes over the texts.")] = 1.0,
    learning_rate: Annotated[float, typer.Option(help="The highest learning rate.")] = 1e-4,
    batch_size: Annotated[int, typer.Option(min=1, help="Windows per batch.")] = 16,
    validation_share: Annotated[
        float, typer.Option(help="Share of the texts, at most 500, on which only the loss is measured.")
    ] = 0.01,
    save_steps: Annotated[int, typer.Option(min=1, help="Steps between two checkpoints.")] = 500,
    whole_words: Annotated[bool, typer.Option(help="Mask whole words, not single tokens.")] = True,
    dropout: Annotated[
        float | None,
        typer.Option(
            help="Dropout in the encoder during this training. Unset: as configured. On a CPU, 0 is much faster."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of masks, order and validation texts.")] = 42,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with the encoder's tokenizer.")
    ] = False,
) -> None:
    """Continue an encoder's pretraining on unlabelled texts.

    `train --model_name_or_path` accepts the output folder. An interrupted run resumes when the same command is run
    again.
    """
    from .training.pretraining import AdaptOptions, adapt_encoder

    options = AdaptOptions(
        text_column=text_column,
        clean_html=clean_html,
        exclude=tuple(exclude or ()),
        max_length=max_length,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        validation_share=validation_share,
        save_steps=save_steps,
        whole_words=whole_words,
        dropout=dropout,
        seed=seed,
        trust_remote_code=trust_remote_code,
    )
    adapt_encoder(model, texts, output_dir, options)
    say(f"Written to {output_dir}. To start from it: --model_name_or_path {output_dir}")


@command
def evaluate(
    model: Model,
    data: Annotated[
        str,
        typer.Argument(metavar="DATA", help="A labelled CSV, TSV, JSON Lines or Parquet file, a folder, or a Hub id."),
    ],
    dataset_config_name: Annotated[str | None, typer.Option(help="Configuration of a data set on the Hub.")] = None,
    dataset_revision: Annotated[str | None, typer.Option(help="Its commit, tag or branch.")] = None,
    text_column: Annotated[
        list[str] | None, typer.Option(help="Column of the text. Repeat it to join several. Unset: as in training.")
    ] = None,
    label_column: Annotated[
        list[str] | None,
        typer.Option(help="Column of the label. Repeat it for several columns of 0 and 1. Unset: as in training."),
    ] = None,
    label_delimiter: Annotated[
        str | None, typer.Option(help="Splits a label cell into several labels. Unset: as in training.")
    ] = None,
    slice_by: Annotated[
        list[str] | None,
        typer.Option(help="Also measure each value of this column separately. Repeat it for more columns."),
    ] = None,
    csv_columns: Annotated[
        list[str] | None, typer.Option(help="Column name of a CSV file without a header. Repeat it for each column.")
    ] = None,
    csv_encoding: CsvEncoding = "utf-8",
    csv_delimiter: CsvDelimiter = "auto",
    csv_quoting: CsvQuoting = "auto",
    csv_escape: CsvEscape = "auto",
    clean_html: CleanHtml = None,
    skip_bad_rows: Annotated[
        bool, typer.Option(help="Leave out rows without a usable text or label, instead of stopping.")
    ] = False,
    max_length: Annotated[
        str, typer.Option(help="Truncate texts to this many tokens, including special tokens. none: read whole texts.")
    ] = "none",
    batch_size: Annotated[int, typer.Option(min=1, help="Texts per batch.")] = 32,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")
    ] = False,
    output: Annotated[Path | None, typer.Option(help="Also write the metrics to this JSON file.")] = None,
    agreements: Annotated[
        bool,
        typer.Option(
            "--agreements",
            help="Also fit the thresholds of score --agreement to these texts. Changes the model's config.json.",
        ),
    ] = False,
) -> None:
    """Measure a model on labelled texts: metrics with intervals, also by any column.

    The intervals are 95 % bootstrap intervals over the rows. Results by text length and by class are always included.
    """
    if output is not None and output.is_dir():
        raise InputError(
            f"--output {output} is a folder: name a file, such as {output / 'metrics.json'}.",
            field="output",
            file=str(output),
        )
    _check_model(model)
    _check_data(data)
    if output is not None:
        refuse_overwriting_inputs(output, (data, model))
        check_writable("--output", output.absolute().parent)
    data_args = DataArguments(
        dataset_name=data if dataset_config_name or dataset_revision else None,
        dataset_config_name=dataset_config_name,
        dataset_revision=dataset_revision,
        csv_columns=csv_columns,
        csv_encoding=csv_encoding,
        csv_delimiter=csv_delimiter,
        csv_quoting=csv_quoting,
        csv_escape=csv_escape,
        **_as_in_training(
            model,
            clean_html=clean_html,
            text_column=text_column,
            label_column=label_column,
            label_delimiter=label_delimiter,
        ),
        on_bad_row="skip" if skip_bad_rows else "error",
        max_length=max_length,
    )
    from .inference.evaluation import describe_metrics, evaluate_model

    metrics = evaluate_model(model, data, data_args, slice_by or [], batch_size, trust_remote_code, agreements)
    if output is not None:  # first: who reads what is said may stop reading
        with writing_to(output):
            write_json(output, metrics)
    say(describe_metrics(metrics))


@command
def explain(
    model: Model,
    text: Annotated[
        str | None, typer.Argument(metavar="TEXT", help="The text, in quotes. For a longer one use --file.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="A text file (UTF-8), instead of TEXT.")] = None,
    output_dir: Annotated[Path, typer.Option(help="Output folder for explanation.png and explanation.html.")] = Path(
        "explanation"
    ),
    label: Annotated[str | None, typer.Option(help="Label to explain. Unset: the one with the highest score.")] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1, help="Integration steps for the attributions, one pass each; more is more accurate. Unset: 32."
        ),
    ] = None,
    attributions: Annotated[
        bool, typer.Option(help="Also attribute the prediction to single words, which takes most of the time.")
    ] = True,
    clean_html: CleanHtml = None,
) -> None:
    """Show how a prediction came about: where it turned, and the most influential words."""
    if steps is not None and not attributions:
        raise InputError("--steps belongs to the attributions, which --no-attributions leaves out.", field="steps")
    if text is not None and file is not None:
        raise InputError("Both a text and --file are given: leave one out.", field="file")
    text = _read_text(file) if file is not None else text
    if text is None:
        raise InputError(
            "There is nothing to explain: give a text in quotes, or --file with a file's name.", field="text"
        )
    _check_model(model)
    for name in ("explanation.png", "explanation.html"):
        refuse_overwriting_inputs(output_dir / name, [] if file is None else [file])
    from .data.documents import clean_html as without_html
    from .inference.explanation import describe_explanation, explain_model

    text = without_html(text) if _whether_to_clean(model, clean_html) else text
    trace, attribution, files = explain_model(model, text, output_dir, label, steps, attributions)
    say(describe_explanation(trace, attribution, label))
    say(f"\nDrawn in {' and '.join(map(str, files))}")


@command
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN", help="Folders of finished runs. The others are compared with the system of the first."
        ),
    ],
    output_dir: Annotated[
        Path | None, typer.Option(help="Also write comparison.md, .json and .png to this folder.")
    ] = None,
    resamples: Annotated[int, typer.Option(min=1, help="Number of bootstrap resamples.")] = 2000,
) -> None:
    """Compare runs on the same test rows: paired differences, McNemar's test.

    Cross-validation folds of one system are pooled.
    """
    for run in runs:
        if not Path(run).is_dir():
            raise InputError(f"{run} is not a folder: name the folders of finished runs.", file=str(run))
    if output_dir is not None:
        check_writable("--output-dir", output_dir)
    from .studies import comparison

    compared = comparison.compare(runs, resamples)
    text = comparison.comparison_markdown(compared)
    if output_dir is not None:
        with alone(output_dir, waits=True), writing_to(output_dir):  # of two processes, all files of one
            write_text(output_dir / "comparison.md", text + "\n")
            write_json(output_dir / "comparison.json", compared)
            comparison.draw_comparison(compared, output_dir / "comparison.png")
    say(text)


@command
def demo(
    model: Model,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 7860,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
) -> None:
    """Show a model in the browser: predictions, explanations, files to score."""
    _check_model(model)
    from .inference.demo import demo as serve_demo

    serve_demo(model, host, port, browser)


@command
def export(
    model: Model,
    to: Annotated[Literal["onnx"], typer.Option(help="The format.")] = "onnx",
    quantize: Annotated[
        Literal["int8"] | None,
        typer.Option(help="int8: smaller and faster, slightly different predictions. Unset: float32."),
    ] = None,
    output_dir: Annotated[Path, typer.Option(help="Output folder; an earlier export in it is replaced.")] = Path(
        "onnx"
    ),
) -> None:
    """Write a model as an ONNX graph, which runs without torch.

    The graph reads texts of any length. Its predictions are compared with the model's.
    """
    _check_model(model)
    from .inference import export as exporting

    say(exporting.describe_export(exporting.export(model, output_dir, to, quantize)))
    say(f"\nWritten to {output_dir}: see README.md there.")


@command
def publish(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder or a saved model's folder.")],
    name: Annotated[
        str, typer.Argument(metavar="USER/NAME", help="Repository on the Hub; created if it does not exist.")
    ],
    private: Annotated[bool, typer.Option("--private", help="If the repository is new, make it private.")] = False,
    revision: Annotated[
        str | None, typer.Option(help="Branch; created from main if it does not exist. Unset: main.")
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Tag of this version. Unset: the next of v1, v2, …")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be pushed.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask before overwriting what the repository already holds.")
    ] = False,
) -> None:
    """Publish a model on the Hub, in one commit with a tag.

    An interrupted upload resumes when the same command is run again.
    """
    if not run.is_dir():
        raise InputError(f"{run} is not a folder: name a run's folder or a saved model's.", file=str(run))
    from .hub import publish as publishing

    def agrees(question: str) -> bool:
        try:
            return yes or (sys.stdin.isatty() and typer.confirm(question))
        except typer.Abort:  # a RuntimeError, as the Hub's failures are, which are tried again
            raise KeyboardInterrupt from None

    publication = publishing.publish(
        run, name, private=private or None, revision=revision, tag=tag, dry_run=dry_run, confirm=agrees
    )
    say(publishing.describe_publication(publication))


@command
def score(
    model: Model,
    source: Annotated[
        str,
        typer.Argument(
            metavar="IN",
            help="A CSV, TSV, JSON Lines or Parquet file of any size; with --engine ray, a folder or glob of them.",
        ),
    ],
    target: Annotated[
        str,
        typer.Argument(
            metavar="OUT",
            help="Output file, in any of these formats: the same rows, scored. Only an earlier result is overwritten. "
            "With --engine ray: a folder.",
        ),
    ],
    text_column: Annotated[
        list[str] | None, typer.Option(help="Column of the text. Repeat it to join several. Unset: as in training.")
    ] = None,
    prefix: Annotated[
        str, typer.Option(help="Prefix of the new columns, label and score (for regression: value).")
    ] = "predicted_",
    all_scores: Annotated[
        bool,
        typer.Option(
            "--all-scores", help="Also write every label's probability, as score_LABEL, whatever --prefix says."
        ),
    ] = False,
    dtype: Dtype = "auto",
    device: Device = None,
    max_length: Annotated[
        int | None,
        typer.Option(
            min=1, help="Truncate texts to this many tokens, including special ones. Unset: read whole texts."
        ),
    ] = None,
    tokens_per_batch: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens per batch. Unset: 256 to 2,048 on a CPU, 65,536 on a GPU."),
    ] = None,
    agreement: Annotated[
        float | None,
        typer.Option(
            help="Read each text only as far as needed for this share of labels to agree with whole texts: "
            "0.95, 0.975, 0.99, 0.995 or 0.999."
        ),
    ] = None,
    csv_encoding: CsvEncoding = "utf-8",
    csv_delimiter: CsvDelimiter = "auto",
    csv_quoting: CsvQuoting = "auto",
    csv_escape: CsvEscape = "auto",
    clean_html: CleanHtml = None,
    skip_bad_rows: Annotated[
        bool, typer.Option("--skip-bad-rows", help="Leave rows without text unscored instead of stopping.")
    ] = False,
    restart: Annotated[
        bool,
        typer.Option(
            "--restart", help="Delete the results of an unfinished run into OUT, and start from the beginning."
        ),
    ] = False,
    excel_safe: Annotated[
        bool,
        typer.Option(
            "--excel-safe",
            help="CSV and TSV: put an apostrophe before cells that a spreadsheet would treat as formulas.",
        ),
    ] = False,
    verify: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Afterwards also score the first N texts in float32, and compare."),
    ] = 0,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(help="local: a file on this machine. ray: every file of a folder, on a Ray cluster."),
    ] = "local",
    address: Annotated[
        str | None, typer.Option(help="Address of the Ray cluster. Unset: RAY_ADDRESS, or only this machine.")
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option(metavar="MIN:MAX", help="Number of Ray workers. Unset: as many as the cluster has room for."),
    ] = None,
    gpus_per_worker: Annotated[float, typer.Option(min=0, help="GPUs per Ray worker.")] = 0,
) -> None:
    """Score the texts of a file: write the same rows, each with its prediction.

    An interrupted run resumes when the same command is run again.
    """
    of_local = {"--agreement": agreement is not None, "--verify": verify, "--excel-safe": excel_safe}
    of_ray = {"--address": address, "--workers": workers, "--gpus-per-worker": gpus_per_worker}
    _check_engine(engine, of_local, of_ray)
    bounds = _read_workers(workers)
    if engine == "local":
        check_table(source)
        check_table(target, exists=False)
        _check_model(model)
    from .inference import score_file as scoring

    options = scoring.ScoreOptions(
        prefix=prefix,
        all_scores=all_scores,
        csv_encoding=csv_encoding,
        csv_delimiter=csv_delimiter,
        csv_quoting=csv_quoting,
        csv_escape=csv_escape,
        **_as_in_training(model, clean_html=clean_html, text_column=text_column),
        skip_bad_rows=skip_bad_rows,
    )
    of_scorer: dict[str, Any] = {
        "dtype": dtype,
        "device": device,
        "max_length": max_length,
        "tokens_per_batch": tokens_per_batch,
    }
    if engine == "ray":
        from .inference import cluster

        scored = cluster.score_folder(
            model,
            source,
            target,
            cluster.PartOptions(**vars(options), scorer=of_scorer),
            address=address,
            workers=bounds,
            gpus_per_worker=gpus_per_worker,
            restart=restart,
        )
        say(cluster.describe_parts(scored))
        return
    from .inference.scorer import Scorer

    scorer = Scorer(model, **of_scorer, agreement=agreement)
    say(f"Scoring in {scorer.description}.", error=True)
    result = scoring.score_file(scorer, source, target, options, restart=restart, excel_safe=excel_safe)
    say(scoring.describe_scored(result))
    if verify:
        reference = Scorer(model, dtype="float32", device=device, max_length=max_length)
        texts = scoring.read_texts(source, options)
        say(scoring.describe_verified(scoring.verify(scorer, reference, texts, verify)))


@command
def serve(
    model: Model,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    dtype: Dtype = "auto",
    device: Device = None,
    tokens_per_batch: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens per batch; 1: every text alone. Unset: as suits the machine."),
    ] = None,
    waiting_texts: Annotated[
        int, typer.Option(min=1, help="Texts that may wait in the queue. Beyond that, clients are told when to retry.")
    ] = 1024,
    clean_html: CleanHtml = None,
    log_texts: Annotated[bool, typer.Option("--log-texts", help="Log every text with its answer.")] = False,
) -> None:
    """Serve predictions over HTTP, also for texts that are still being written.

    HTML is not removed from texts that are still being written.
    If the environment variable ROBERTA_GRU_TOKEN is set, requests must carry that token.
    """
    _check_model(model)
    from . import serving

    serving.serve(
        model,
        host,
        port,
        limits=serving.Limits(waiting_texts=waiting_texts),
        log_texts=log_texts,
        clean_html=_whether_to_clean(model, clean_html),
        dtype=dtype,
        device=device,
        tokens_per_batch=tokens_per_batch,
    )


@raw_command()
def sweep(
    context: typer.Context,
    space: Annotated[str, typer.Option(help="What to vary and how: a name (optimizers, …) or a YAML file.")],
    config: Annotated[str | None, typer.Option(help="Recipe that every trial starts from.")] = None,
    output_dir: Annotated[
        Path | None, typer.Option(help="Folder of the study. Unset: runs/sweeps/RECIPE-SPACE.")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(help="URL of a database, to share the trials among machines. Unset: study.db in the folder."),
    ] = None,
    final: Annotated[
        bool,
        typer.Option("--final", help="Afterwards train with the best options again, and measure on the test split."),
    ] = False,
    seeds: Annotated[int | None, typer.Option(min=1, help="Number of seeds of --final. Unset: 3.")] = None,
) -> None:
    """Search options over many runs, and choose by the validation split.

    Any other option of `train` applies to every trial. An interrupted study resumes when the same command is run
    again.
    """
    space_file = find_recipe(space, "recipes/spaces")
    recipe = find_recipe(config) if config else None
    for option, path in {"--space": space_file, "--config": recipe}.items():
        if path is not None and not path.is_file():
            raise InputError(
                f"{option} {path} cannot be read: there is no such file.",
                field=option.removeprefix("--"),
                file=str(path),
            )
    if seeds is not None and not final:
        raise InputError("--seeds takes effect only with --final.", field="seeds")
    from .studies.study import sweep as run_sweep

    name = f"{recipe.stem}-{space_file.stem}" if recipe else space_file.stem
    folder = output_dir or Path("runs/sweeps") / name
    num_seeds = (seeds or 3) if final else 0
    run_sweep(str(recipe) if recipe else None, space_file, context.args, folder, storage, num_seeds, sys.argv)
    say(f"\nThe study is in {folder}: sweep.md, sweep.json, heat-map.png, curves.png.")


@command
def watch(
    model: Model,
    follow: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Read this file as it grows, until Ctrl-C. Unset: read standard input to its end."
        ),
    ] = None,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Print JSON Lines.")] = False,
    every: Annotated[
        int, typer.Option(min=1, help="Most characters to read at a time. Fewer: more exact positions, more work.")
    ] = 200,
) -> None:
    """Read a text while it is written, and report when its prediction changes.

    A file that is replaced, truncated or rewritten, as logs are, starts a new document. HTML is not removed.
    """
    if follow is not None and not follow.is_file():
        why = "is not a regular file" if follow.exists() else "cannot be read: there is no such file"
        raise InputError(f"--follow {follow} {why}.", field="follow", file=str(follow))
    if follow is None and sys.stdin is None:
        raise InputError("Standard input is closed: pipe a text into this command, or --follow a file.")
    if follow is None and sys.stdin.isatty():
        say("Reading standard input: Ctrl-D ends it.", error=True)
    _check_model(model)
    from .inference import watch as watching

    classifier, tokenizer = watching.load_watcher(model)
    pieces = watching.read_stream(sys.stdin.buffer) if follow is None else watching.follow_file(follow)
    sightings = watching.watch(classifier, tokenizer, pieces, every)
    try:
        try:
            for sighting in sightings:
                say(sighting.to_json() if jsonl else sighting)
        except KeyboardInterrupt as interrupt:  # between two readings: the document ends here
            sighting = sightings.throw(interrupt)
            say(sighting.to_json() if jsonl else sighting)
    except BrokenPipeError:  # whoever read this has seen enough
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _check_engine(engine: str, of_local: Mapping[str, Any], of_ray: Mapping[str, Any]) -> None:
    """Raise InputError for an option that only the other engine has."""
    other, options = {"local": ("ray", of_ray), "ray": ("local", of_local)}[engine]
    for option, given in options.items():
        if given:
            raise InputError(
                f"{option} takes effect only with --engine {other}: leave one of them out.",
                field=option.removeprefix("--").replace("-", "_"),
            )


def _read_workers(workers: str | None) -> tuple[int, int | None]:
    if workers is None:
        return 1, None
    least, _, most = workers.partition(":")
    if not (least.isdecimal() and (most or least).isdecimal()):
        raise InputError(
            f"--workers {workers} is not MIN:MAX, two whole numbers from 1 on, such as 1:8.", field="workers"
        )
    return int(least), int(most or least)


def _read_text(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"--file {path} cannot be read: {error.strerror}.", field="file", file=str(path)) from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"--file {path} is not UTF-8 text (byte {error.start + 1}). Save the file as UTF-8.",
            field="file",
            file=str(path),
        ) from error
    if not text.strip():
        raise InputError(f"--file {path} holds no text.", field="file", file=str(path))
    return text


def _check_model(name: str, field: str | None = None) -> None:
    """Refuse a table, and a path that leads nowhere; what may be a name on the Hub is looked for there.

    Args:
        name: of the model.
        field: the option that it was given by; None: it is the argument MODEL.
    """
    path = Path(name)
    if kind_of(name) and not path.is_dir():
        order = "MODEL comes first." if field is None else f"--{field} takes a model's folder or Hub id."
        raise InputError(f"{name} is a table: {order}", field=field, file=name)
    is_below_a_folder = path.parent != Path() and path.parent.is_dir()
    is_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or is_below_a_folder
    if is_path and not path.exists():
        raise InputError(f"No model can be read from {name}: there is no such folder.", field=field, file=name)


def _whether_to_clean(model: str, clean_html: bool | None) -> bool:
    """Return whether texts are cleaned of HTML: as asked for, or else as in training, which is said."""
    return _as_in_training(model, clean_html=clean_html)["clean_html"]


def _as_in_training(model: str, **options: Any) -> dict[str, Any]:
    """Return how data are read: as asked for, or else as in training, which is said, or else as ever.

    Args:
        model: whose record says how its training data were read.
        **options: some of `clean_html`, `text_column`, `label_column`, `label_delimiter`; None: not asked for.
    """
    recorded: dict[str, Any] = {}
    if None in options.values():
        from .training.loading import training_options

        recorded = training_options(model)
    if options.get("label_column") is not None:  # the delimiter belongs to the column of training
        recorded = {**recorded, "label_delimiter": None}
    for name, value in options.items():
        if value is not None:
            continue
        trained = recorded.get(name)
        if name == "clean_html":
            options[name] = trained is True
            if trained is True:
                say("HTML is removed from the texts, as in training. To keep it: --no-clean-html.", error=True)
        elif name == "label_delimiter":
            options[name] = trained if isinstance(trained, str) else None
        else:
            what = name.removesuffix("_column")
            options[name] = [what]
            if isinstance(trained, list) and trained and all(isinstance(column, str) for column in trained):
                options[name] = trained
                columns, option = " and ".join(map(repr, trained)), name.replace("_", "-")
                say(f"The {what} is read from {columns}, as in training. Another column: --{option}.", error=True)
    return options


def _check_data(name: str) -> None:
    if (kind_of(name) and not Path(name).is_dir()) or Path(name).is_file():
        check_table(name)


def main(*words: str) -> None:
    """Be the console script.

    Args:
        words: stand before those of the command line.
    """
    _accept_any_character()
    app(args=[*words, *sys.argv[1:]], prog_name="roberta-gru")
