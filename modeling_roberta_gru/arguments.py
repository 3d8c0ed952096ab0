"""Every option of a run: dataclasses, and what a command line, a recipe or a call fills them with.

Nothing here imports transformers or torch, so that a usage error is said at once; the dataclass that the Trainer takes
is in `training/arguments.py`.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cache
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from textwrap import fill, shorten
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import yaml

from .errors import InputError, unknown_name
from .files import carried
from .options import UNSET, Option, options_of, stray_word, trainer_options

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

BUILT_IN = "built-in"
BUILT_IN_LONG = "built-in-long"

OF_NEIGHBOURS = ("word_vectors", "replace_share", "replace_neighbours", "replace_similarity", "replace_vocabulary")
SAMPLING_STRATEGIES = ("random", "sequential", "group_by_length", "batch_rebalance")
GRU_OPTIONS = (
    *("gru_hidden_size", "num_gru_layers", "gru_bidirectional", "gru_dropout", "skip_connection"),
    *("summary", "attention_horizons", "head_hidden_size", "head_dropout"),
)
"""Options that are fields of RoBERTa-GRU's configuration, by the same names."""


@dataclass
class DataArguments:
    """Where the texts come from, and what is done with them before training.

    Raises:
        InputError: if several sources are named, `split` is not three positive fractions that sum to 1, a number is
            out of range, or an option has no effect.
    """

    dataset_name: str | None = field(
        default=None,
        metadata={
            "help": "A Hub data set, a local folder of tables, or a built-in corpus. The names of a folder's files "
            "(CSV, TSV, JSON Lines, Parquet) say the split (train.csv, dev-00.parquet). The built-in corpora are "
            "'built-in' (short reviews; used if no data is named) and 'built-in-long' (up to 8,000 tokens)."
        },
    )
    dataset_config_name: str | None = field(
        default=None, metadata={"help": "Configuration of a Hub data set that has several (glue: sst2)."}
    )
    dataset_revision: str | None = field(
        default=None, metadata={"help": "Branch, tag or commit of a Hub data set. A commit makes the run repeatable."}
    )
    train_file: list[str] | None = field(
        default=None,
        metadata={
            "help": "Training files: .csv, .tsv, .jsonl, .json or .parquet. A .json file holds JSON Lines or one list."
        },
    )
    validation_file: list[str] | None = field(
        default=None, metadata={"help": "Validation files; unset: taken from the training rows (--split)."}
    )
    test_file: list[str] | None = field(
        default=None, metadata={"help": "Test files, read once, at the end; unset: taken from training rows."}
    )
    soft_train_file: list[str] | None = field(
        default=None,
        metadata={
            "help": "More training files, with a teacher's probabilities as labels. The probabilities are in columns "
            "score_LABEL, one per label, as `score --all-scores` writes them, or in --label_column as lists in the "
            "order of the labels. Texts that are also in validation, test or the labelled training rows are left out."
        },
    )
    csv_columns: list[str] | None = field(
        default=None,
        metadata={"help": "Column names of CSV and TSV files without a header."},
    )
    csv_encoding: str = field(
        default="utf-8", metadata={"help": "Encoding of CSV and TSV files, such as latin-1 or cp1252."}
    )
    csv_delimiter: str = field(
        default="auto",
        metadata={"help": "Field separator of CSV: a character, tab or auto (detected)."},
    )
    csv_quoting: Literal["auto", "doubled", "none"] = field(
        default="auto",
        metadata={
            "help": "How CSV cells are quoted. auto: detected; doubled: a quotation mark inside a quoted cell is "
            "written twice; none: quotation marks have no special meaning."
        },
    )
    csv_escape: str = field(
        default="auto",
        metadata={"help": "Escape character of CSV, or backslash, none, auto. auto: detected."},
    )
    text_column: list[str] = field(
        default_factory=lambda: ["text"],
        metadata={
            "help": "Column of the text; several are joined. With --text_column title body, both are joined by a line "
            "break."
        },
    )
    label_column: list[str] = field(
        default_factory=lambda: ["label"],
        metadata={
            "help": "Column of the label, or several columns of 0 and 1. One column holds names, integers, lists of "
            "either (several labels per text) or decimal numbers (regression targets). Of several columns (toxic "
            "insult threat), each is a label."
        },
    )
    # not `label_names`: that is an option of TrainingArguments
    class_names: list[str] | None = field(
        default=None,
        metadata={
            "help": "Names for integer labels, the smallest first (0 4 → bad good). If the labels are names already: "
            "their order."
        },
    )
    label_delimiter: str | None = field(
        default=None,
        metadata={"help": "Splits a label cell such as 'red;blue' into several labels. An empty cell has none."},
    )
    problem_type: Literal["auto", "single_label_classification", "multi_label_classification", "regression"] = field(
        default="auto",
        metadata={
            "help": "What the labels mean. auto: lists are several labels per text, decimal numbers are regression "
            "targets, everything else is one label per text. For targets that are whole numbers, give regression."
        },
    )
    group_column: str | None = field(
        default=None,
        metadata={
            "help": "Keep rows with the same value here (an author) in one split. Rows without a value also stay "
            "together."
        },
    )
    split_column: str | None = field(
        default=None,
        metadata={
            "help": "Column with the split or the fold of each training row. It holds train, validation or test, "
            "or the number of a fold (see --test_fold)."
        },
    )
    test_fold: int | None = field(
        default=None, metadata={"help": "Fold of --split_column to test on. The other folds are trained on."}
    )
    validation_fold: int | None = field(
        default=None, metadata={"help": "Fold of --split_column to validate on; unset: taken from training."}
    )
    split: str = field(
        default="0.8,0.1,0.1",
        metadata={
            "help": "Shares of training, validation and test rows. They apply only to splits that are not given: if "
            "only training rows are given, validation and test are taken from them; if one of these is missing, it is "
            "taken from training in these proportions. Splits that are given are kept."
        },
    )
    pool_splits: bool = field(
        default=False,
        metadata={
            "help": "Pool the given splits and split again by --split. The results are then not comparable with those "
            "reported on the official test split."
        },
    )
    drop_repeats: bool = field(
        default=False,
        metadata={
            "help": "Drop repeated training texts before splitting. The first of equal texts is kept, or none if "
            "their labels disagree."
        },
    )
    split_seed: int = field(default=0, metadata={"help": "Seed of the split and of the --max_*_samples subsets."})
    clean_html: bool = field(
        default=False, metadata={"help": "Turn <br /> and <p> into line breaks, drop tags, decode entities."}
    )
    on_bad_row: Literal["error", "skip"] = field(
        default="error",
        metadata={
            "help": "Rows without a usable text or label. error: stop and name the row; skip: leave such rows out "
            "and count them."
        },
    )
    max_train_samples: int | None = field(
        default=None,
        metadata={"help": "Train on a seeded, stratified subset of this many rows. It is taken after splitting."},
    )
    max_validation_samples: int | None = field(
        default=None, metadata={"help": "The same for validation rows, for cheaper evaluation."}
    )
    max_test_samples: int | None = field(
        default=None, metadata={"help": "The same for test rows: for trials, never for results to report."}
    )
    max_length: int | str | None = field(
        default="none",
        metadata={"help": "Truncate texts to this many tokens; none: read whole texts. Special tokens are counted."},
    )
    max_windows: int | None = field(
        default=None,
        metadata={
            "help": "Train on at most this many encoder windows of a text. This bounds memory in training; validation "
            "and test texts are read whole."
        },
    )
    window_policy: Literal["head", "head_tail", "random"] | None = field(
        default=None,
        metadata={
            "help": "Which tokens --max_windows keeps. In addition to the first and the last token, head keeps "
            "those at the start; head_tail, half from the start and half from the end; random, a span at a random "
            "place, drawn anew in each epoch. Unset: head."
        },
    )
    oversample: Literal["none", "copies", "neighbours"] = field(
        default="none",
        metadata={
            "help": "Add training rows to rare classes. copies: rows are repeated, after splitting; neighbours: rows "
            "are repeated, with some words replaced by their nearest neighbours in --word_vectors."
        },
    )
    oversample_to: float = field(
        default=1.0,
        metadata={"help": "Raise each class to this share of the largest class."},
    )
    word_vectors: str | None = field(
        default=None,
        metadata={"help": "For neighbours: text file of word vectors, in GloVe's format."},
    )
    replace_share: float = field(
        default=0.2,
        metadata={
            "help": "For neighbours: replace this share of a text's words. Only words that have neighbours count; "
            "at least one is replaced."
        },
    )
    replace_neighbours: int = field(
        default=10, metadata={"help": "For neighbours: choose among this many nearest words."}
    )
    replace_similarity: float = field(
        default=0.6, metadata={"help": "For neighbours: minimum cosine similarity of a replacement."}
    )
    replace_vocabulary: int = field(
        default=20000,
        metadata={"help": "For neighbours: number of words to use from the start of --word_vectors."},
    )
    oversample_seed: int = field(default=0, metadata={"help": "Seed of --oversample."})

    def __post_init__(self) -> None:
        if self.dataset_name == "" or "" in self.paths:
            raise InputError("--dataset_name or the name of a file is empty: name the data, or leave the option out.")
        if self.dataset_name is not None and self.files:
            raise InputError(
                f"Both --dataset_name and --{next(iter(self.files))}_file are given: name one source of data."
            )
        if self.dataset_name is None and (self.dataset_config_name or self.dataset_revision):
            raise InputError("--dataset_config_name and --dataset_revision belong to a --dataset_name on the Hub.")
        for name in ("text_column", "label_column"):
            if isinstance(getattr(self, name), str):
                setattr(self, name, [getattr(self, name)])
        for name in ("text_column", "label_column", "csv_columns"):
            if getattr(self, name) == []:
                raise InputError(f"--{name} names no column: name one, or leave it out.", field=name)
        if self.label_delimiter is not None and len(self.label_column) > 1:
            raise InputError("--label_delimiter has no effect with several label columns: leave it out.")
        self._check_dialect()
        if self.split_column is None and (self.test_fold is not None or self.validation_fold is not None):
            raise InputError("--test_fold and --validation_fold take effect only with --split_column.")
        if self.split_column is not None and self.pool_splits:
            raise InputError("--pool_splits mixes what --split_column keeps apart: leave one of them out.")
        if self.validation_fold is not None and self.validation_fold == self.test_fold:
            raise InputError(f"--test_fold and --validation_fold are both {self.test_fold}: name two folds.")
        try:
            "".encode(self.csv_encoding)
        except (LookupError, UnicodeError):
            raise InputError(
                f"--csv_encoding {self.csv_encoding!r} is not a text encoding that Python knows, as utf-8, latin-1 "
                "and cp1252 are."
            ) from None
        check_seeds(split_seed=self.split_seed)
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

    def _check_dialect(self) -> None:
        delimiter, escape = self.csv_delimiter_character, self.csv_escape_character
        for name, character in (("csv_delimiter", delimiter), ("csv_escape", escape)):
            if character and (len(character) != 1 or character in '"\r\n'):
                raise InputError(f"--{name} must be one character, got {getattr(self, name)!r}.")
        if self.csv_quoting not in ("auto", "doubled", "none"):
            raise InputError(f"--csv_quoting must be auto, doubled or none, got {self.csv_quoting!r}.")

    @property
    def csv_delimiter_character(self) -> str | None:
        """What stands between cells; None: to be found."""
        named = {"auto": None, "tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";"}
        return named.get(self.csv_delimiter, self.csv_delimiter)

    @property
    def csv_quoting_kind(self) -> str | None:
        """How quotation marks are meant; None: to be found."""
        return None if self.csv_quoting == "auto" else self.csv_quoting

    @property
    def csv_escape_character(self) -> str | None:
        """What escapes; "" if nothing does, None: to be found."""
        return {"auto": None, "none": "", "backslash": "\\"}.get(self.csv_escape, self.csv_escape)

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
    def paths(self) -> list[str]:
        """All files that are named, a teacher's among them."""
        return [*chain(*self.files.values()), *(self.soft_train_file or ())]

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
            raise InputError(f"--split needs three fractions such as 0.8,0.1,0.1, got {self.split!r}.") from None
        if not (min(train, validation, test) > 0 and math.isclose(train + validation + test, 1, abs_tol=1e-6)):
            raise InputError(f"--split needs three positive fractions that sum to 1, got {self.split!r}.")
        return train, validation, test


@dataclass
class ModelArguments:
    """Which model to train. What is unset is as the checkpoint has it, or else the configuration's default.

    Raises:
        InputError: if an option is given that the architecture does not have.
    """

    architecture: Literal["roberta-gru", "transformer", "rnn", "lstm", "bilstm", "gru", "bigru", "bag-of-words"] = (
        field(
            default="roberta-gru",
            metadata={
                "help": "Model to train. roberta-gru, or a baseline. transformer: any encoder with its stock linear "
                "head (BERT, ELECTRA, RoBERTa, XLM-R, …), which reads no more than its window; rnn, lstm, bilstm, "
                "gru, bigru: a recurrent net on word embeddings; bag-of-words: TF-IDF with logistic regression, which "
                "writes metrics and predictions but no model."
            },
        )
    )
    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "Folder or Hub id to start from; unset: random weights. A roberta, xlm-roberta, "
            "camembert or roberta-gru checkpoint; for --architecture transformer, that of any encoder. If unset, "
            "the tokenizer is trained on the training texts unless --tokenizer_name is given."
        },
    )
    model_revision: str | None = field(
        default=None, metadata={"help": "Branch, tag or commit of a model on the Hub. A commit fixes the weights."}
    )
    tokenizer_name: str | None = field(
        default=None, metadata={"help": "Folder or Hub id of the tokenizer. Unset: the model's own."}
    )
    trust_remote_code: bool = field(
        default=False,
        metadata={
            "help": "Run code that comes with the model or the tokenizer. Such code can do whatever you can: read it "
            "first, and pin it by --model_revision. A model trained in this way keeps that code and cannot be "
            "published."
        },
    )
    gru_hidden_size: int | None = field(
        default=None, metadata={"help": "Width of one GRU direction. Unset: the checkpoint's, else 256."}
    )
    num_gru_layers: int | None = field(
        default=None, metadata={"help": "Number of GRU layers. Unset: the checkpoint's, else 1."}
    )
    gru_bidirectional: bool | None = field(
        default=None,
        metadata={"help": "Also read from right to left. Unset: as in the checkpoint, else false, as in the paper."},
    )
    gru_dropout: float | None = field(
        default=None, metadata={"help": "Dropout between GRU layers. Unset: the checkpoint's, else 0."}
    )
    skip_connection: bool | None = field(
        default=None,
        metadata={
            "help": "Concatenate the encoder's state of each token with the GRU's. Unset: as in the checkpoint; true "
            "for a new GRU on a pretrained encoder; otherwise false, as in the paper."
        },
    )
    summary: Literal["last", "mean", "max", "attention"] | None = field(
        default=None,
        metadata={
            "help": "Pooling of the GRU's states. The head sees the last one, or mean, max or attention over all of "
            "them. Unset: as in the checkpoint; attention for a new GRU on a pretrained encoder, where it is more "
            "stable (docs/reproducing.md); otherwise last, as in the paper."
        },
    )
    attention_horizons: list[int] | None = field(
        default=None,
        metadata={
            "help": "How far back each attention of the summary looks, in tokens. The distance is approximate, and "
            "counted from the end; 0: the whole text. One number per attention. Unset: the checkpoint's; 0 1024 512 "
            "256 for a new GRU on a pretrained encoder, which gives late words more weight (docs/reproducing.md); "
            "otherwise 0."
        },
    )
    head_hidden_size: int | None = field(
        default=None,
        metadata={
            "help": "Width of the head's dense layer; 0: one linear layer only. Unset: the checkpoint's, else 256."
        },
    )
    head_dropout: float | None = field(
        default=None, metadata={"help": "Dropout before the head's linear layers. Unset: the checkpoint's, else 0.1."}
    )
    config_overrides: str | None = field(
        default=None,
        metadata={
            "help": "Other fields of the configuration: 'hidden_size=128, …'. For example 'hidden_size=128, "
            "num_hidden_layers=2, hidden_dropout_prob=0.2'; for a recurrent net, 'vocab_size=5000, "
            "embedding_size=50, hidden_size=100, num_layers=1, dropout=0.2'. On a CPU, "
            "attention_probs_dropout_prob=0 trains faster, since fused attention there does not support dropout."
        },
    )
    embeddings: str | None = field(
        default=None,
        metadata={
            "help": "GloVe or word2vec text file to initialise a recurrent net from. It also sets the width of the "
            "embeddings."
        },
    )
    freeze_embeddings: bool = field(default=False, metadata={"help": "Do not train --embeddings."})
    card_license: str = field(
        default="apache-2.0", metadata={"help": "Licence of the weights, for the model card. Spelt as on the Hub."}
    )
    card_language: str = field(default="en", metadata={"help": "Language of the texts, for the model card."})

    def __post_init__(self) -> None:
        if self.freeze_embeddings and not self.embeddings:
            raise InputError("--freeze_embeddings needs --embeddings: random ones must be trained.")

    def config_fields(self, config: "PreTrainedConfig") -> dict[str, Any]:
        """Return the fields of a configuration that were set, by name.

        Args:
            config: a configuration of the kind that is meant, with a value for every field.

        Raises:
            InputError: if `config_overrides` names a field that does not exist, gives it a value of another type, or
                names one that is set already.
        """
        fields = {name: getattr(self, name) for name in GRU_OPTIONS if getattr(self, name) is not None}
        defaults = config.to_dict()
        if "window_overlap" in defaults:
            defaults["window_overlap"] = 0  # unset by default, and a whole number
        for assignment in (self.config_overrides or "").split(",") if self.config_overrides else []:
            name, _, text = assignment.strip().partition("=")
            if name not in defaults:
                raise unknown_name("field in --config_overrides", name, defaults)
            if name in fields:
                raise InputError(f"--config_overrides {name}: it is given twice. Leave one of them out.")
            fields[name] = _parse_as(type(defaults[name]), name, text)
        return fields


def _parse_as(kind: type, name: str, text: str) -> Any:
    try:
        value = yaml.safe_load(text)
        # YAML reads 1e-5 as a text, and a whole number where a float is wanted.
        if kind is float and not isinstance(value, bool):
            return float(value)
    except (yaml.YAMLError, ValueError, TypeError):
        value = None
    if kind is type(None):  # unset by default: any value is of the right type
        return value
    if type(value) is not kind:
        raise InputError(f"--config_overrides: {name} must be a {kind.__name__}, got {text!r}.")
    return value


LOSSES = ("loss", "log_loss", "calibration_error", "mse", "mae")
"""Metrics of which less is better."""


def is_loss(metric: str | None) -> bool:
    """Tell whether less of a metric is better, by the name that `metric_for_best_model` has for it."""
    return metric is not None and metric.removeprefix("eval_") in LOSSES


@dataclass
class TrainingOptions:
    """What RoBERTa-GRU adds to [`~transformers.TrainingArguments`], and the defaults it changes there.

    Changed defaults: `eval_strategy` and `save_strategy` "epoch", `load_best_model_at_end` True, `save_total_limit` 1,
    `learning_rate` 2e-5, `per_device_train_batch_size` 16, `per_device_eval_batch_size` 32, `train_sampling_strategy`
    "group_by_length", `logging_steps` 20, `logging_nan_inf_filter` False (a loss that is not a number shows in the
    log, and no step waits for a GPU to look at its loss), `restore_callback_states_from_checkpoint` True (early
    stopping counts on after a resume), `ddp_find_unused_parameters` False, `dataloader_pin_memory` only where there is
    an accelerator.

    """

    output_dir: str = field(  # transformers names one where it is unset
        default=None,  # type: ignore[assignment]
        metadata={"help": "Output folder of the run."},
    )
    resume_from_checkpoint: str | None = field(
        default=None,
        metadata={
            "help": "Resume: true (last checkpoint), auto (if there is one) or a path. If the run has no "
            "checkpoint yet, true is an error, and auto starts from the beginning. The options of model and training "
            "must be those of the run, which may be made longer."
        },
    )
    eval_strategy: str = "epoch"
    save_strategy: str = "epoch"
    load_best_model_at_end: bool = True
    save_total_limit: int | None = 1
    learning_rate: float = 2e-5
    per_device_train_batch_size: int = 16
    per_device_eval_batch_size: int = 32
    train_sampling_strategy: str = "group_by_length"
    hub_model_id: str | None = field(default=None, metadata={"help": "Repository for --push_to_hub: USER/NAME."})
    logging_steps: float = 20
    logging_nan_inf_filter: bool = False
    restore_callback_states_from_checkpoint: bool = True
    ddp_find_unused_parameters: bool | None = False

    bf16_if_available: bool = field(
        default=False,
        metadata={
            "help": "Use bfloat16 if the device supports it natively. This turns on --bf16, unless --fp16 is given."
        },
    )
    optimizer: Literal["nadam", "sgd", "adam", "rmsprop", "adamw", "optim"] = field(
        default="nadam",
        metadata={
            "help": "Optimizer. nadam, adam and adamw take --adam_beta1, --adam_beta2 and --adam_epsilon; all take "
            "--weight_decay and --optim_args (momentum=0.9). optim: the one that --optim names."
        },
    )
    head_learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "Learning rate of GRU, summary and head. In models other than RoBERTa-GRU, of the head. Unset: "
            "--learning_rate."
        },
    )
    layer_decay: float = field(
        default=1.0,
        metadata={
            "help": "Layer-wise learning-rate decay. Each encoder layer's rate is this factor times that of the "
            "layer above."
        },
    )
    freeze_encoder: bool = field(
        default=False,
        metadata={
            "help": "Train only GRU, summary and head. The encoder then reads each text once, without dropout, and "
            "its states are cached on disk for further epochs, seeds and heads (--cache_limit)."
        },
    )
    cache_limit: float = field(
        default=20.0,
        metadata={
            "help": "Size limit, in GiB, of the cached states of frozen encoders. They are in roberta-gru/states in "
            "$XDG_CACHE_HOME (~/.cache); the least recently used are deleted first. 0: no cache."
        },
    )
    freeze_layers: int = field(
        default=0, metadata={"help": "Freeze embeddings and this many of the lowest encoder layers."}
    )
    lora: int | None = field(
        default=None,
        metadata={
            "help": "Train LoRA matrices of this rank instead of the encoder's weights. The weights are frozen; GRU, "
            "summary and head are trained in full. Needs peft and --model_name_or_path, and a --learning_rate "
            "about ten times as high. Unset: no LoRA."
        },
    )
    lora_alpha: float | None = field(
        default=None, metadata={"help": "LoRA scaling: alpha / rank. Unset: alpha is the rank, a scaling of 1."}
    )
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout on the input of the LoRA matrices."})
    lora_target_modules: list[str] | None = field(
        default=None,
        metadata={
            "help": "Linear layers of the encoder that get LoRA matrices. Given by the ends of their names, or "
            "all-linear. Unset: peft's default, query and value of each RoBERTa layer."
        },
    )
    class_weights: str = field(
        default="none",
        metadata={
            "help": "Label weights in the loss: none, balanced or a JSON mapping. balanced: rows / (labels · rows "
            'of the label); a mapping: \'{"negative": 1, "positive": 3}\'.'
        },
    )
    length_curriculum: int = field(
        default=0,
        metadata={
            "help": "Number of initial epochs on short documents only. With 3: on the shortest quarter, half, "
            "three quarters; afterwards on all. A model with random weights needs this to learn long documents."
        },
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={
            "help": "Stop after this many evaluations without a better score. The score is --metric_for_best_model. "
            "Unset: never."
        },
    )
    calibrate: bool = field(
        default=True, metadata={"help": "Fit a temperature for the probabilities on validation rows."}
    )
    bag_of_words: bool = field(
        default=True,
        metadata={
            "help": "Also measure a bag-of-words baseline on the same rows. It is TF-IDF with logistic regression."
        },
    )
    verify_load: bool = field(
        default=True,
        metadata={
            "help": "Check that the saved model loads in a clean process. Four texts are predicted there. The process "
            "cannot import this package, as on a machine where it is not installed."
        },
    )
    push_to_hub: bool = field(
        default=False,
        metadata={
            "help": "Publish the finished run as --hub_model_id USER/NAME. `roberta-gru publish` does the same later."
        },
    )
    overwrite_output_dir: bool = field(
        default=False,
        metadata={"help": "Replace a run that is already in --output_dir. Without it, that is an error."},
    )


def check_training_options(args: Any) -> None:
    """Refuse what can be told from the options alone.

    Args:
        args: has an attribute for each of the Trainer's options and ours.

    Raises:
        InputError: if options contradict each other or a value is out of range.
    """
    if args.train_sampling_strategy not in SAMPLING_STRATEGIES:
        raise unknown_name("--train_sampling_strategy", args.train_sampling_strategy, SAMPLING_STRATEGIES)
    for name in ("learning_rate", "head_learning_rate"):
        value = getattr(args, name)
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"--{name} must be above 0, got {value}.")
    for name in ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name} must be at least 1, got {getattr(args, name)}.")
    if not 0 <= args.label_smoothing_factor < 1:
        raise InputError(
            f"--label_smoothing_factor must be at least 0 and below 1, got {args.label_smoothing_factor}."
        )
    for name in ("eval_accumulation_steps", "dataloader_prefetch_factor"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} must be at least 1, got {value}.", field=name)
    for name in ("weight_decay", "dataloader_num_workers"):
        if not 0 <= getattr(args, name) < math.inf:
            raise InputError(f"--{name} must be at least 0, got {getattr(args, name)}.", field=name)
    check_seeds(seed=args.seed, data_seed=args.data_seed)
    if args.max_steps == 0:
        raise InputError(
            "--max_steps 0 would train nothing: give a number above 0, or leave it out.", field="max_steps"
        )
    if args.max_steps < 0 and args.num_train_epochs <= 0:
        raise InputError(f"--num_train_epochs must be above 0, got {args.num_train_epochs:g}.")
    if args.hub_token:
        raise InputError("--hub_token would be saved in the run's record: use `hf auth login`, or HF_TOKEN.")
    if args.push_to_hub and not args.hub_model_id:
        raise InputError("--push_to_hub needs a name on the Hub: --hub_model_id USER/NAME.")
    for name in ("hub_model_id", "hub_private_repo", "hub_revision"):
        if getattr(args, name) is not None and not args.push_to_hub:
            raise InputError(f"--{name} takes effect only with --push_to_hub true.", field=name)
    if args.freeze_encoder and (args.freeze_layers or args.layer_decay != 1):
        name = "freeze_layers" if args.freeze_layers else "layer_decay"
        raise InputError(
            f"--{name} has no effect with --freeze_encoder: leave it out (--{name} null, where a recipe names it).",
            field=name,
        )
    if args.deepspeed and find_spec("deepspeed") is None:
        raise InputError("--deepspeed needs the package deepspeed: pip install deepspeed, or leave the option out.")
    if args.use_liger_kernel and find_spec("liger_kernel") is None:
        raise InputError(
            "--use_liger_kernel needs the package liger-kernel: pip install liger-kernel, or leave the option out.",
            field="use_liger_kernel",
        )
    for name, default in {"adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8}.items():
        if args.optimizer in ("sgd", "rmsprop") and getattr(args, name) != default:
            raise InputError(f"--{name} has no effect with --optimizer {args.optimizer}: leave it out.", field=name)
    if not 0 < args.layer_decay <= 1:
        raise InputError(f"--layer_decay must be above 0 and at most 1, got {args.layer_decay}.")
    is_less_better = is_loss(args.metric_for_best_model or "loss")
    if args.greater_is_better is is_less_better:
        word, metric = "lower" if is_less_better else "higher", args.metric_for_best_model or "loss"
        raise InputError(
            f"--greater_is_better {str(args.greater_is_better).lower()}: {word} {metric} is better. Leave it out.",
            field="greater_is_better",
        )
    if args.early_stopping_patience is not None:
        if args.early_stopping_patience < 1:
            raise InputError(f"--early_stopping_patience must be at least 1, got {args.early_stopping_patience}.")
        if not args.load_best_model_at_end:
            raise InputError("--early_stopping_patience needs --load_best_model_at_end true, to know what is better.")
    _check_curriculum(args)
    _check_lora(args)
    _check_cache(args)


def check_seeds(**seeds: int | None) -> None:
    """Raise InputError for a seed that NumPy does not take, naming its option."""
    for name, seed in seeds.items():
        if seed is not None and not 0 <= seed < 2**32:
            raise InputError(f"--{name} must be from 0 to {2**32 - 1}, got {seed}.", field=name)


def _check_curriculum(args: Any) -> None:
    epochs = args.length_curriculum
    if epochs < 0:
        raise InputError(f"--length_curriculum must be at least 0, got {epochs}.")
    # With --max_steps, epochs follow from the number of rows.
    if epochs and args.max_steps < 0 and epochs >= args.num_train_epochs:
        raise InputError(
            f"--length_curriculum {epochs} leaves no epoch of --num_train_epochs {args.num_train_epochs:g} for "
            "the longest documents."
        )
    if epochs and args.train_sampling_strategy == "batch_rebalance":
        raise InputError(
            "--length_curriculum cannot be combined with --train_sampling_strategy batch_rebalance, which gives every "
            "process documents of all lengths: choose group_by_length, random or sequential."
        )


def _check_lora(args: Any) -> None:
    if args.lora is None:
        for name in ("lora_alpha", "lora_dropout", "lora_target_modules"):
            if getattr(args, name):
                raise InputError(f"--{name} takes effect only with --lora RANK.")
        return
    for name in ("freeze_encoder", "freeze_layers"):
        if getattr(args, name):
            raise InputError(f"--{name} cannot be combined with --lora, which changes no weight of the encoder.")
    if args.lora < 1:
        raise InputError(f"--lora must be a rank of at least 1, got {args.lora}.")
    if args.lora_alpha is not None and args.lora_alpha <= 0:
        raise InputError(f"--lora_alpha must be above 0, got {args.lora_alpha}.")
    if not 0 <= args.lora_dropout < 1:
        raise InputError(f"--lora_dropout must be at least 0 and below 1, got {args.lora_dropout}.")


def _check_cache(args: Any) -> None:
    if args.cache_limit != TrainingOptions.cache_limit and not args.freeze_encoder:
        raise InputError("--cache_limit takes effect only with --freeze_encoder true.", field="cache_limit")
    if not 0 <= args.cache_limit < math.inf:
        raise InputError(f"--cache_limit must be a number of GiB of at least 0, got {args.cache_limit:g}.")


# From words to dataclasses


@dataclass(frozen=True)
class RunOptions:
    """What was asked of a run.

    Attributes:
        model, data: the options of model and data.
        training: by name, the options of [`~.training.arguments.RobertaGRUTrainingArguments`] that were given.
        recipe: the path of the recipe, if one was given.
    """

    model: ModelArguments
    data: DataArguments
    training: dict[str, Any]
    recipe: str | None = None


@cache
def all_options() -> dict[str, Option]:
    """Return every option by name: of the model, the data, training; the Trainer's that we leave as they are last."""
    of_trainer = {
        option.name: replace(option, help=TRAINER_HELP.get(option.name, option.help)) for option in trainer_options()
    }
    ours = [*options_of(ModelArguments), *options_of(DataArguments), *options_of(TrainingOptions)]
    options = {option.name: option for option in ours}
    for name in options.keys() & of_trainer.keys():
        known = of_trainer[name]
        options[name] = replace(known, default=options[name].default, help=options[name].help or known.help)
    return options | {name: option for name, option in of_trainer.items() if name not in options}


def read_options(argv: Sequence[str]) -> RunOptions:
    """Read a command line: options, and by --config the recipe that gives what the command line leaves out.

    Dashes and underscores within names are the same. An option given as null is as if no one had given it.

    Raises:
        InputError: if an option or key is unknown, a value is of the wrong type or out of range, or the recipe cannot
            be read.
    """
    words = words_by_option(argv)
    recipe = None
    if "config" in words:
        name, *others = words.pop("config") or [""]
        if others:
            raise stray_word(others[0])
        recipe = str(find_recipe(name))
        words = _words_of_recipe(recipe) | words
    given = _converted(words)
    if given.get("output_dir") is None:
        raise InputError("--output_dir is missing: name a folder for this run, such as runs/mine.")
    return sort_options(given, recipe)


def read_recipe(name: str) -> tuple[str, dict[str, Any]]:
    """Return the path of a recipe, and the options it gives.

    Raises:
        InputError: if there is no such recipe, or it holds a key that is not an option.
    """
    path = str(find_recipe(name))
    return path, _converted(_words_of_recipe(path))


def _converted(words: Mapping[str, list[str]]) -> dict[str, Any]:
    options = all_options()
    return {name: options[name].convert_words(value) for name, value in words.items() if not _is_null(name, value)}


def sort_options(given: Mapping[str, Any], recipe: str | None = None) -> RunOptions:
    """Sort options by the dataclass they belong to, and check each.

    Raises:
        InputError: if an option is unknown or out of range, or options contradict each other.
    """
    known = all_options()
    for name in given:
        if name not in known:
            raise unknown_name("option", name, known)
    of_model, of_data = ({field.name for field in fields(part)} for part in (ModelArguments, DataArguments))
    training = {name: value for name, value in given.items() if name not in of_model | of_data}
    defaults = {name: option.default for name, option in known.items()}
    check_training_options(SimpleNamespace(**defaults | training))
    return RunOptions(
        ModelArguments(**{name: value for name, value in given.items() if name in of_model}),
        DataArguments(**{name: value for name, value in given.items() if name in of_data}),
        training,
        recipe,
    )


def words_by_option(argv: Iterable[str]) -> dict[str, list[str]]:
    """Sort the words of a command line by the option they follow; of an option given twice the last counts.

    Raises:
        InputError: if an option is unknown, or a word belongs to none.
    """
    options = all_options()
    values: dict[str, list[str]] = {}
    words: list[str] | None = None
    for word in argv:
        if not word.startswith("--"):
            if words is None:
                raise stray_word(word)
            words.append(word)
            continue
        given, equals, value = word.removeprefix("--").partition("=")
        name = given.replace("-", "_")
        negated = name.removeprefix("no_")
        if negated != name and name not in options and negated in options and options[negated].kind is bool:
            name, equals, value = negated, "=", "false"
        elif name not in options and name != "config":
            known = [*options, "config", "help", "help_all"]
            raise unknown_name("option", f"--{given}", [f"--{_spelt_like(given, other)}" for other in known])
        words = [value] if equals else []
        values.pop(name, None)
        values[name] = words
        if equals:
            words = None if not (name in options and options[name].is_list) else words
    return values


def _spelt_like(given: str, name: str) -> str:
    return name.replace("_", "-") if "-" in given else name


def _is_null(name: str, words: list[str]) -> bool:
    is_character = name in ("csv_delimiter", "csv_escape", "label_delimiter")  # which "~" may be
    return words == ["null"] or (words == ["~"] and not is_character)


def find_recipe(name: str, folder: str = "recipes") -> Path:
    """Return the file that a recipe's name or path means.

    Args:
        name: of a file, or without ending and folder of a recipe that comes with the package.
        folder: where those are kept.

    Raises:
        InputError: if a name is none of theirs.
    """
    path = Path(name)
    if path.is_file() or path.suffix or len(path.parts) != 1:  # a folder of data may have a recipe's name
        return path
    known = {file.stem: file for file in carried(folder).glob("*.yaml")}
    if name not in known:
        raise unknown_name("space" if folder.endswith("spaces") else "recipe", name, known)
    return known[name]


def _words_of_recipe(path: str) -> dict[str, list[str]]:
    """Read a flat YAML file; every value as text, so that files and command lines are converted by the same rules."""
    held = read_yaml("--config", path)
    if not isinstance(held, dict):
        raise InputError(f"--config {path} must hold lines such as 'learning_rate: 2e-5'.")
    options = all_options()
    words: dict[str, list[str]] = {}
    for key, value in held.items():
        name = str(key).replace("-", "_")
        if name not in options:
            raise unknown_name(f"key in {path}:", str(key), options)
        if isinstance(value, list):
            words[name] = [str(item) for item in value]
        elif value not in UNSET:
            words[name] = [json.dumps(_typed(value), ensure_ascii=False) if isinstance(value, dict) else value]
    return words


def read_yaml(option: str, path: str | Path) -> Any:
    """Read the YAML file that an option names, every value as text: YAML itself makes true of Yes, and a text of 1e-5.

    Raises:
        InputError: if it cannot be read or is not YAML.
    """
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except OSError as error:
        raise InputError(f"{option} {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{option} {path} is not YAML: {error}") from error


def _typed(value: Any) -> Any:
    """Turn what `BaseLoader` left as text within a mapping into numbers, true, false and null, as JSON has them."""
    if isinstance(value, dict):
        return {key: _typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_typed(item) for item in value]
    try:
        return json.loads(value.lower() if value.lower() in ("true", "false", "null") else value)
    except ValueError:
        return value


# Help

WIDTH = 100
TRAINER_HELP = {
    "seed": "Random seed of weights, dropout and the order of texts.",
    "report_to": "Experiment trackers to log to, such as tensorboard. all: every one that is installed.",
    "hub_private_repo": "Make a new repository private. Unset: public, unless the organisation's default is private.",
    "num_train_epochs": "Total number of training epochs.",
    "max_steps": "Total number of training steps (overrides --num_train_epochs). -1: as the epochs say.",
    "gradient_accumulation_steps": "Batches to accumulate gradients over before each update. The effective batch "
    "size is --per_device_train_batch_size times this times the number of devices.",
    "metric_for_best_model": "Metric that picks the checkpoint, such as macro_f1; unset: loss. One label per "
    "text: accuracy, macro_precision, macro_recall, macro_f1, log_loss, calibration_error; several: the same without "
    "calibration_error, and micro_precision, micro_recall, micro_f1; regression: mse, mae, r2, spearman.",
    "train_sampling_strategy": "Sampler, such as random or sequential. group_by_length: texts of similar length "
    "share a batch; batch_rebalance: each process gets texts of all lengths.",
    "per_device_train_batch_size": "Training batch size per device.",
    "per_device_eval_batch_size": "Evaluation batch size per device.",
    "eval_strategy": "When to evaluate. steps: every --eval_steps.",
    "save_strategy": "When to save checkpoints. steps: every --save_steps; best: whenever the metric improves.",
    "logging_steps": "Steps between two log entries. Below 1: a share of all steps.",
    "activation_checkpointing": "Recompute activations to save memory; training is slower.",
}
"""Our words for options of the Trainer whose own help is cut in the short help, or does not know our metrics."""
SHOWN = {
    "Run": (
        *("output_dir", "overwrite_output_dir", "resume_from_checkpoint", "seed", "verify_load", "bag_of_words"),
        *("report_to", "push_to_hub", "hub_model_id", "hub_private_repo", "card_license"),
        "card_language",
    ),
    "Data": (
        *("dataset_name", "dataset_config_name", "dataset_revision", "train_file", "validation_file", "test_file"),
        "soft_train_file",
        *("text_column", "label_column", "class_names", "label_delimiter", "problem_type", "csv_columns"),
        *("csv_encoding", "csv_delimiter", "csv_quoting", "csv_escape", "clean_html", "on_bad_row"),
    ),
    "Splits": (
        *("split", "split_seed", "group_column", "split_column", "test_fold", "validation_fold"),
        "pool_splits",
        "drop_repeats",
        *("max_train_samples", "max_validation_samples", "max_test_samples"),
    ),
    "Long documents": ("max_length", "max_windows", "window_policy", "length_curriculum", "activation_checkpointing"),
    "Unequal classes": ("class_weights", "oversample", "oversample_to", *OF_NEIGHBOURS, "oversample_seed"),
    "Model": (
        *("architecture", "model_name_or_path", "model_revision", "tokenizer_name", "trust_remote_code", *GRU_OPTIONS),
        *("config_overrides", "embeddings", "freeze_embeddings"),
    ),
    "Training": (
        *("num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps"),
        *("optimizer", "learning_rate", "head_learning_rate", "layer_decay", "lr_scheduler_type", "warmup_steps"),
        *("weight_decay", "label_smoothing_factor", "freeze_encoder", "cache_limit", "freeze_layers"),
        "train_sampling_strategy",
        *("bf16_if_available", "lora", "lora_alpha", "lora_dropout", "lora_target_modules"),
    ),
    "Evaluation and checkpoints": (
        *("eval_strategy", "per_device_eval_batch_size", "metric_for_best_model", "load_best_model_at_end"),
        *("early_stopping_patience", "calibrate", "save_strategy", "save_total_limit", "logging_steps"),
    ),
}
"""The options that either help shows, by its headings."""
ONLY_IN_FULL = (
    *("card_language", "cache_limit", "freeze_embeddings", "oversample_seed"),
    *("replace_similarity", "replace_vocabulary"),
)
"""Options of [`SHOWN`] that the short help leaves out."""


def help_text(full: bool = False) -> str:
    """Return what `train --help` says: a line or two for the main options, or in full, every option's whole help."""
    options = all_options()
    shown = [name for names in SHOWN.values() for name in names]
    groups = SHOWN | (
        {"The Trainer's other options": tuple(name for name in options if name not in shown)} if full else {}
    )
    lines = [
        "Usage: roberta-gru train [--config RECIPE] [--OPTION VALUE ...]",
        "Train a text classifier, measure it on the test split, and save it so that it loads anywhere.",
        f"  {'--config RECIPE':<31} A recipe's name (quickstart, imdb, …) or a YAML file of options.",
    ]
    for title, names in groups.items():
        lines += ["", f"{title}:"] if full else [f"{title}:"]
        for option in (options[name] for name in names if name in options):
            if full:
                lines += _full_help(option)
            elif option.name not in ONLY_IN_FULL:
                lines += _short_help(option)
    more = "" if full else " --help-all: every option, explained."
    return "\n".join([*lines, f"In brackets: defaults. Option names may use - or _.{more}"])


def _short_help(option: Option) -> list[str]:
    sentence = option.help.partition(". ")[0].rstrip(".")
    start = f"  --{option.name:<29} "
    default = f" [{_written(option.default)}]" if _is_told(option.default) else ""
    room = WIDTH - len(start) - len(default)
    choices = f"{sentence}: {', '.join(option.choices)}"
    if option.choices and len(choices) <= room:
        sentence = choices
    line = start + shorten(sentence, room, placeholder=" …") + default
    values = "|".join(option.choices)
    if not option.choices or sentence == choices or len(values) > WIDTH - 6:
        return [line]
    return [line, " " * min(len(start), WIDTH - len(values)) + values]


def _full_help(option: Option) -> list[str]:
    values = "|".join(option.choices) or {bool: "true|false", int: "N", float: "X", dict: "JSON"}.get(
        option.kind, "TEXT"
    )
    default = f" [{_written(option.default)}]" if _is_told(option.default) else ""
    indent = " " * 6
    text = fill(option.help.replace("%%", "%") + default, WIDTH, initial_indent=indent, subsequent_indent=indent)
    return [f"  --{option.name} {values}{' …' if option.is_list else ''}", *([text] if text.strip() else [])]


def _is_told(default: Any) -> bool:
    return default is not MISSING and default is not None and default is not False and default not in ("", [])


def _written(default: Any) -> str:
    if isinstance(default, list):
        return " ".join(map(str, default))
    return str(default).lower() if isinstance(default, bool) else str(default)
