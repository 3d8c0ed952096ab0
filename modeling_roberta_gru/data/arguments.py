"""Which data to read, which columns to use, and how to split them."""

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from ..errors import InputError

BUILT_IN = "built-in"
BUILT_IN_LONG = "built-in-long"

OF_NEIGHBOURS = ("word_vectors", "replace_share", "replace_neighbours", "replace_similarity", "replace_vocabulary")


@dataclass
class DataArguments:
    """Arguments of the data layer, to be parsed by [`~transformers.HfArgumentParser`].

    Raises:
        InputError: if several sources are named, `split` is not three positive fractions that sum to 1, a number is
            out of range, or an option is given in vain.
    """

    _argument_group_name: ClassVar[str] = "Data"

    dataset_name: str | None = field(
        default=None,
        metadata={
            "help": "A Hub data set (stanfordnlp/imdb), a local folder of CSV, TSV, JSON Lines or Parquet files whose "
            "splits are read off the file names (train.csv, dev-00.parquet), or one of the corpora that come along: "
            "'built-in' (short reviews; used if no data is named) or 'built-in-long' (up to 8,000 tokens)."
        },
    )
    dataset_config_name: str | None = field(
        default=None, metadata={"help": "The configuration of a Hub data set that has several (glue has sst2)."}
    )
    dataset_revision: str | None = field(
        default=None, metadata={"help": "Branch, tag or commit of a Hub data set; a commit makes the run repeatable."}
    )
    train_file: list[str] | None = field(
        default=None, metadata={"help": "Training files: .csv, .tsv, .jsonl, .json (lines or a list) or .parquet."}
    )
    validation_file: list[str] | None = field(
        default=None, metadata={"help": "Validation files. Without any, validation is carved out of training."}
    )
    test_file: list[str] | None = field(
        default=None, metadata={"help": "Test files, read once, at the end. Without any, test is carved out too."}
    )
    csv_columns: list[str] | None = field(
        default=None,
        metadata={"help": "Names of the columns of CSV and TSV files whose first line is no header but a row."},
    )
    csv_encoding: str = field(
        default="utf-8", metadata={"help": "Encoding of CSV and TSV files, such as latin-1 or cp1252."}
    )
    text_column: list[str] = field(
        default_factory=lambda: ["text"],
        metadata={"help": "The column of the text; several (title body) are joined by a line break into one text."},
    )
    label_column: str = field(
        default="label",
        metadata={
            "help": "The column of the label: a name, an integer, a list of either (several labels a text), or a "
            "number with a fraction (a regression target)."
        },
    )
    # not `label_names`: that is an option of TrainingArguments
    class_names: list[str] | None = field(
        default=None,
        metadata={
            "help": "Names of integer labels, smallest integer first (0 4 → negative positive). With labels that are "
            "names already: their order."
        },
    )
    label_delimiter: str | None = field(
        default=None,
        metadata={"help": "Splits a label cell such as 'red;blue' into several labels; an empty cell has none."},
    )
    problem_type: Literal["auto", "single_label_classification", "multi_label_classification", "regression"] = field(
        default="auto",
        metadata={
            "help": "What the labels mean. auto: lists are several labels a text, numbers with a fraction are "
            "targets, all else is one label a text. Whole-number targets need 'regression' said."
        },
    )
    group_column: str | None = field(
        default=None,
        metadata={
            "help": "Rows with the same value here (author, film, patient) stay together when we split; so do rows "
            "without one."
        },
    )
    split: str = field(
        default="0.8,0.1,0.1",
        metadata={
            "help": "Fractions for training, validation and test where only training rows are given; where one other "
            "split is missing, it is carved out of training in these proportions. Splits that are given are kept."
        },
    )
    pool_splits: bool = field(
        default=False,
        metadata={
            "help": "Pool the splits that are given and split anew by --split. Results then compare with nothing that "
            "is reported on the official test split."
        },
    )
    drop_repeats: bool = field(
        default=False,
        metadata={
            "help": "Of equal texts among the training rows keep the first before anything is split off, and none "
            "where their labels disagree."
        },
    )
    split_seed: int = field(default=0, metadata={"help": "Seed of the split and of the --max_*_samples subsets."})
    clean_html: bool = field(
        default=False, metadata={"help": "Turn <br /> and paragraphs into line breaks, drop tags, decode entities."}
    )
    on_bad_row: Literal["error", "skip"] = field(
        default="error",
        metadata={"help": "What to do with rows that have no usable text or label: stop and name them, or skip them."},
    )
    max_train_samples: int | None = field(
        default=None,
        metadata={"help": "Train on a seeded, stratified subset of this many rows, taken after splitting."},
    )
    max_validation_samples: int | None = field(
        default=None, metadata={"help": "The same for validation: it makes frequent evaluation cheap."}
    )
    max_test_samples: int | None = field(
        default=None, metadata={"help": "The same for test: for trials only, never for a number that is reported."}
    )
    max_length: int | str | None = field(
        default="none",
        metadata={
            "help": "Cut the texts of every split to this many tokens, special tokens included. none: whole texts."
        },
    )
    max_windows: int | None = field(
        default=None,
        metadata={
            "help": "Bound memory in training: of a training text with more tokens than this many of the encoder's "
            "windows hold, read only so many. Validation and test texts are read whole."
        },
    )
    window_policy: Literal["head", "head_tail", "random"] | None = field(
        default=None,
        metadata={
            "help": "Which tokens --max_windows leaves, beside the first and the last: the first ones, half from the "
            "start and half from the end, or a stretch at a random place, drawn anew each epoch. Unset: head."
        },
    )
    oversample: Literal["none", "copies", "neighbours"] = field(
        default="none",
        metadata={
            "help": "Add training rows to the classes that have few, after splitting. copies: rows are repeated; "
            "neighbours: they are repeated with some words replaced by near ones of --word_vectors."
        },
    )
    oversample_to: float = field(
        default=1.0,
        metadata={"help": "Add rows until each class has this share of the largest class's; 1.0: as many."},
    )
    word_vectors: str | None = field(
        default=None,
        metadata={"help": "For neighbours: a text file of word vectors, as GloVe and word2vec write them."},
    )
    replace_share: float = field(
        default=0.2,
        metadata={"help": "For neighbours: replace this share of those words of a text that can be; one at least."},
    )
    replace_neighbours: int = field(
        default=10, metadata={"help": "For neighbours: a word is replaced by one of so many nearest ones."}
    )
    replace_similarity: float = field(
        default=0.6, metadata={"help": "For neighbours: the least cosine between a word and what replaces it."}
    )
    replace_vocabulary: int = field(
        default=20000,
        metadata={"help": "For neighbours: only so many words of --word_vectors take part, the first ones."},
    )
    oversample_seed: int = field(default=0, metadata={"help": "Seed of --oversample."})

    def __post_init__(self) -> None:
        if self.dataset_name is not None and self.files:
            raise InputError(
                f"Both --dataset_name and --{next(iter(self.files))}_file are given: name one source of data."
            )
        if self.dataset_name is None and (self.dataset_config_name or self.dataset_revision):
            raise InputError("--dataset_config_name and --dataset_revision belong to a --dataset_name on the Hub.")
        try:
            "".encode(self.csv_encoding)
        except (LookupError, UnicodeError):
            raise InputError(
                f"--csv_encoding {self.csv_encoding!r} is no text encoding that Python knows, as utf-8, latin-1 and "
                "cp1252 are."
            ) from None
        sizes = ("max_train_samples", "max_validation_samples", "max_test_samples", "max_windows")
        for name in (*sizes, "replace_neighbours", "replace_vocabulary"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name} must be positive, got {value}.")
        if self.window_policy is not None and self.max_windows is None:
            raise InputError(f"--window_policy {self.window_policy} takes effect only with --max_windows.")
        self._check_oversampling()
        _ = self.fractions
        self.max_length = self.num_tokens or "none"

    def _check_oversampling(self) -> None:
        idle = {
            "copies or neighbours": ("oversample_to", "oversample_seed") if self.oversample == "none" else (),
            "neighbours": OF_NEIGHBOURS if self.oversample != "neighbours" else (),
        }
        for kind, names in idle.items():
            for name in names:
                value = getattr(self, name)
                if value != getattr(DataArguments, name):  # the default
                    raise InputError(f"--{name} {value} takes effect only with --oversample {kind}.")
        if self.oversample == "neighbours" and self.word_vectors is None:
            raise InputError("--oversample neighbours needs --word_vectors FILE, a text file as GloVe writes them.")
        for name in ("oversample_to", "replace_share"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"--{name} must be above 0 and at most 1, got {getattr(self, name)}.")
        if not 0 <= self.replace_similarity <= 1:
            raise InputError(f"--replace_similarity must be from 0 to 1, got {self.replace_similarity}.")

    @property
    def files(self) -> dict[str, list[str]]:
        """The files that are named, by split."""
        files = {"train": self.train_file, "validation": self.validation_file, "test": self.test_file}
        return {split: paths for split, paths in files.items() if paths}

    @property
    def num_tokens(self) -> int | None:
        """The number of tokens that every text is cut to; None for whole texts."""
        text = str(self.max_length).strip().lower()
        if text == "none":
            return None
        if not (text.isascii() and text.isdecimal()) or int(text) < 1:
            raise InputError(f"--max_length must be a positive whole number or none, got {self.max_length!r}.")
        return int(text)

    @property
    def fractions(self) -> tuple[float, float, float]:
        """The shares of training, validation and test; positive, summing to 1."""
        try:
            train, validation, test = (float(part) for part in self.split.split(","))
        except ValueError:
            raise InputError(f"--split wants three fractions such as 0.8,0.1,0.1, got {self.split!r}.") from None
        if not (min(train, validation, test) > 0 and math.isclose(train + validation + test, 1, abs_tol=1e-6)):
            raise InputError(f"--split wants three positive fractions that sum to 1, got {self.split!r}.")
        return train, validation, test
