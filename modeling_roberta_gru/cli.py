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


@app.callback()
def _commands() -> None:
    """Keep `evaluate` a command of its own: Typer would fold a single one into the program."""


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
    clean_html: Annotated[bool, typer.Option(help="Turn tags into line breaks, as in training.")] = False,
    skip_bad_rows: Annotated[bool, typer.Option(help="Leave rows without usable text or label out.")] = False,
    max_length: Annotated[
        int | None, typer.Option(help="Cut texts to this many tokens. Unset: the model's window.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts per batch.")] = 32,
    output: Annotated[Path | None, typer.Option(help="Also write the figures to this JSON file.")] = None,
) -> None:
    """Measure a saved model on new labelled texts: figures with 95 % intervals, by length, by class, by any column."""
    from .data.arguments import DataArguments
    from .inference.evaluation import evaluate_model, report

    if output is not None and output.is_dir():
        raise InputError(f"--output {output} is a folder: name a file, such as {output / 'figures.json'}.")
    data_args = DataArguments(
        text_column=text_column or ["text"],
        label_column=label_column,
        label_delimiter=label_delimiter,
        clean_html=clean_html,
        on_bad_row="skip" if skip_bad_rows else "error",
        max_length=max_length,
    )
    figures = evaluate_model(model, data, data_args, slice_by or [], batch_size)
    print(report(figures))
    if output is not None:
        from .files import write_json

        write_json(output, figures)


def exit_status(program: Callable[[], object]) -> int:
    """Run a program; a user's mistake is one line on standard error and status 2, an interrupt status 130."""
    try:
        program()
    except InputError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "Interrupted. What was saved is whole; if a checkpoint was, --resume_from_checkpoint true goes on.",
            file=sys.stderr,
        )
        return 130
    return 0


def main() -> None:
    """Be the console script."""
    sys.exit(exit_status(app))
