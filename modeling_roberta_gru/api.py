"""The front door in Python: train, evaluate, explain and publish a text classifier by one call each."""

import os
import shutil
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .arguments import DataArguments, all_options, read_recipe, sort_options
from .data.documents import clean_html
from .data.splits import load_splits
from .errors import InputError, unknown_name
from .experiment import run
from .files import check_writable, replacing
from .hub import publish as publishing
from .inference import explanation, reading
from .inference.evaluation import evaluate_model
from .inference.scorer import Scorer, checked_texts
from .training.arguments import RobertaGRUTrainingArguments
from .training.loading import load_classifier, was_cleaned
from .training.trained import TrainedModel

READ_BY_EVALUATE = (
    *("text_column", "label_column", "label_delimiter", "clean_html", "max_length", "on_bad_row", "max_test_samples"),
    *("split_seed", "split_column", "test_fold", "validation_fold", "dataset_config_name", "dataset_revision"),
    *("csv_columns", "csv_encoding", "csv_delimiter", "csv_quoting", "csv_escape"),
)
SOURCES = ("dataset_name", "train_file", "validation_file", "test_file")  # options that name where rows lie


@dataclass(frozen=True, eq=False)
class TrainedClassifier:
    """What [`train`] returns: a classifier, and how good it is.

    Attributes:
        metrics: as metrics.json holds them: for validation and test, each with n and a 95 % interval.
        output_dir: the run's folder. One that was not named goes with this object: see [`save`].
        model: the trained model, calibrated; None of a bag of words.
        tokenizer: its tokenizer.
        max_length: the number of tokens that texts are cut to, as in training; None for whole texts.
        clean_html: whether HTML is removed from texts, as in training.
    """

    metrics: dict[str, Any]
    output_dir: Path
    model: PreTrainedModel | None
    tokenizer: PreTrainedTokenizerBase | None
    max_length: int | None
    clean_html: bool

    @cached_property
    def scorer(self) -> Scorer:
        """What predicts, in float32; a [`Scorer`] of `output_dir` may be faster."""
        if self.model is None:
            raise InputError("A bag of words leaves metrics and predictions, but no model that predicts.")
        return Scorer(self.model, self.tokenizer, dtype="float32", max_length=self.max_length)

    def predict(self, texts: str | Iterable[str]) -> Any:
        """Predict the label of each text: see [`Scorer.predict`]."""
        return self.scorer.predict(self._cleaned(texts))

    def predict_proba(self, texts: str | Iterable[str]) -> np.ndarray:
        """Return the probability of each label, `(n, C)`: see [`Scorer.predict_proba`]."""
        return self.scorer.predict_proba(self._cleaned(texts))

    def _cleaned(self, texts: str | Iterable[str]) -> str | Iterable[str]:
        if not self.clean_html:
            return texts
        return clean_html(texts) if isinstance(texts, str) else map(clean_html, checked_texts(texts))

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Save the model, with tokenizer, code, card and metrics, to a new folder that loads anywhere.

        Raises:
            InputError: if something is in the folder, or it cannot be written.
        """
        folder = Path(folder)
        if self.model is None:
            raise InputError("A bag of words leaves metrics and predictions, but no model to save.")
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder} exists and is not empty: name a new folder.", file=str(folder))
        check_writable("save", folder)
        with replacing(folder) as unfinished:
            shutil.copytree(self.output_dir / "model", unfinished)
        return folder


def train(
    train_dataset: Any = None,
    eval_dataset: Any = None,
    test_dataset: Any = None,
    *,
    config: str | None = None,
    **options: Any,
) -> TrainedClassifier:
    """Train a text classifier, measure it on the test split, and keep it.

    ```python
    classifier = train(texts_and_labels, model_name_or_path="distilroberta-base", num_train_epochs=1)
    classifier.predict(["At first I adored it. In the end I thought it awful."])
    ```

    Args:
        train_dataset: the labelled texts: a `datasets.Dataset`, a pandas or polars frame, a list of dictionaries or a
            dictionary of columns, with the columns that `text_column` and `label_column` name ("text" and "label"
            unless told); or texts and labels as a pair. Unset: what the options name (`train_file`, `dataset_name`),
            or the built-in corpus.
        eval_dataset: the same for validation; unset: split off from training.
        test_dataset: the same for the final measurement; unset: split off from training too.
        config: a recipe's name ("quickstart") or a YAML file of options; `options` win.
        options: any option of `roberta-gru train`, by the same names. `output_dir` may be left out: the run then lies
            in a temporary folder. `verify_load` is off unless asked for.

    Raises:
        InputError: if an option is unknown (the nearest one is named) or out of range, or the data are not usable.
    """
    recipe, given = read_recipe(config) if config is not None else (None, {})
    options = _accepted(options)
    given = {"verify_load": False, **given, **options}
    tables = {"train": train_dataset, "validation": eval_dataset, "test": test_dataset}
    tables = {split: table for split, table in tables.items() if table is not None}
    if tables and "train" not in tables:
        raise InputError("There are no training rows: give train_dataset too.", field="train_dataset")
    for split, table in tables.items():
        if isinstance(table, str | os.PathLike):
            raise InputError(
                f"{str(table)!r} is a name, not rows: give a file as {split}_file={str(table)!r}.",
                field=f"{split}_file",
                file=str(table),
            )
    source = next((name for name in SOURCES if name in options), None)
    if tables and source:
        raise InputError(
            f"{source} is given beside rows in memory: give all splits as train_dataset, eval_dataset and "
            "test_dataset, or all as files.",
            field=source,
        )
    temporary = mkdtemp(prefix="roberta-gru-") if "output_dir" not in given else None
    if temporary is not None:
        given["output_dir"] = os.path.join(temporary, "run")  # whose lock, beside it, goes too
    try:
        parsed = sort_options(given, recipe)
        args = RobertaGRUTrainingArguments(**parsed.training)
        if args.world_size > 1:
            raise InputError("train() is for one process. Use `accelerate launch train.py` for several.")
        splits = load_splits(parsed.data, tables) if tables else None
        result = run(parsed.model, parsed.data, args, parsed.recipe, splits=splits, names_folder=temporary is None)
        has_model = isinstance(result.trained, TrainedModel)
        trusted = parsed.model.trust_remote_code
        model, tokenizer = load_classifier(str(result.output_dir), trusted) if has_model else (None, None)
    except BaseException:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    reading = (result.trained.max_length, parsed.data.clean_html)
    classifier = TrainedClassifier(result.metrics, result.output_dir, model, tokenizer, *reading)
    if temporary is not None:
        weakref.finalize(classifier, shutil.rmtree, temporary, ignore_errors=True)
    return classifier


def evaluate(
    model: str | os.PathLike[str] | TrainedClassifier,
    data: Any,
    *,
    slice_by: str | Sequence[str] = (),
    batch_size: int = 32,
    trust_remote_code: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Measure a model on labelled texts.

    Args:
        model: what [`train`] returned, a run's folder, a saved model's folder or a Hub id.
        data: a file, a folder, a Hub id, or texts in memory as [`train`] takes them.
        slice_by: columns whose values are measured apart, beside length and label; one may be given as it is.
        batch_size: texts per batch.
        trust_remote_code: run the code that the model brings along, a program of whoever wrote it.
        options: those of `roberta-gru train` that say how data are read: `text_column`, `label_column`, `clean_html`
            (unset: as in training), `max_length` (unset: what [`train`] cut texts to, where it returned the model;
            "none": whole texts).

    Returns:
        The metrics, each with n and a 95 % interval, and under "slices" those of each slice.

    Raises:
        InputError: if model, data, an option or a label is not usable.
    """
    for name in options:
        if name not in READ_BY_EVALUATE:
            raise unknown_name("option", name, READ_BY_EVALUATE, field=name)
    options = {name: value for name, value in options.items() if value is not None}
    if isinstance(model, TrainedClassifier):
        options = {"max_length": model.max_length, "clean_html": model.clean_html, **options}
    elif "clean_html" not in options:
        options["clean_html"] = was_cleaned(_name(model))
    if isinstance(data, os.PathLike):
        data = str(data)
    if isinstance(data, str) and options.keys() & {"dataset_config_name", "dataset_revision"}:
        options["dataset_name"] = data
    slice_by = [slice_by] if isinstance(slice_by, str) else slice_by
    return evaluate_model(
        _name(model), data, DataArguments(**_accepted(options)), slice_by, batch_size, trust_remote_code
    )


@dataclass(frozen=True)
class Explanation:
    """How a prediction came about; it shows itself in a notebook, and prints as text.

    Attributes:
        trace: the running prediction, token by token.
        attribution: how much each token told for or against the label; None if it was not asked for.
        label: the label in question; None for the one that scores highest.
        files: picture and page, where a folder was named for them.
    """

    trace: explanation.Trace
    attribution: explanation.Attribution | None
    label: str | None
    files: tuple[Path, ...]

    def __str__(self) -> str:
        return explanation.report(self.trace, self.attribution, self.label)

    def _repr_html_(self) -> str:
        return f"<style>{reading.style()}</style>{reading.html(self.trace, self.attribution, self.label)}"


def explain(
    model: str | os.PathLike[str] | TrainedClassifier,
    text: str,
    *,
    label: str | None = None,
    attributions: bool = True,
    steps: int | None = None,
    output_dir: str | os.PathLike[str] | None = None,
) -> Explanation:
    """Show how a RoBERTa-GRU's prediction came about: where it turned, and the most influential words.

    Args:
        model: what [`train`] returned, a run's folder, a saved model's folder or a Hub id.
        text: of any length. HTML is removed from it if it was in training. Where [`train`] returned the model, it is
            cut as the texts were in training.
        label: the label in question; unset: the one that scores highest.
        attributions: also attribute the prediction to the words, which takes most of the time and the extra `explain`.
        steps: of the attributions' integral, 32 where unset; more are more exact. Texts of more than 16,384 tokens get
            attributions only if it is set.
        output_dir: a folder for explanation.png and explanation.html; unset: nothing is written.

    Raises:
        InputError: if model, text or label is not usable.
    """
    if isinstance(model, TrainedClassifier):
        cleans, max_length = model.clean_html, model.max_length
    else:
        cleans, max_length = was_cleaned(_name(model)), None
    text = clean_html(text) if cleans else text
    folder = None if output_dir is None else Path(output_dir)
    trace, attribution, files = explanation.explain_model(
        _name(model), text, folder, label, steps, attributions, max_length
    )
    return Explanation(trace, attribution, label, tuple(files))


def publish(run: str | os.PathLike[str] | TrainedClassifier, name: str, **options: Any) -> publishing.Publication:
    """Publish a model on the Hub in one commit, and tag it.

    Args:
        run: what [`train`] returned, a run's folder or a saved model's.
        name: USER/NAME.
        options: see [`~.hub.publish.publish`]: `private`, `revision`, `tag`, `dry_run`, …

    Raises:
        InputError: if folder, name, rights or Hub stand in the way.
    """
    return publishing.publish(_name(run), name, **options)


def _name(model: str | os.PathLike[str] | TrainedClassifier) -> str:
    return str(model.output_dir if isinstance(model, TrainedClassifier) else model)


def _accepted(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were given, each of its kind; None is as if it had not been given."""
    known = all_options()
    for name in options:
        if name not in known:
            raise unknown_name("option", name, known, field=name)
    return {name: known[name].accept(value) for name, value in options.items() if value is not None}
