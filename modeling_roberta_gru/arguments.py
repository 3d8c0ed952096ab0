"""The options of a run: dataclasses, and the parser that fills them from a command line and a flat YAML file."""

import inspect
import json
import math
from argparse import ArgumentDefaultsHelpFormatter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn

import torch
import yaml
from transformers import HfArgumentParser, PreTrainedConfig, TrainingArguments
from transformers.integrations import get_available_reporting_integrations

from .configuration_roberta_gru import RobertaGRUConfig
from .errors import InputError, unknown_name

BUILT_IN = "built-in"
BUILT_IN_LONG = "built-in-long"

OF_NEIGHBOURS = ("word_vectors", "replace_share", "replace_neighbours", "replace_similarity", "replace_vocabulary")
UNSET = ("", "null", "~")  # how YAML writes nothing; on the command line, the latter two
SAMPLING_STRATEGIES = ("random", "sequential", "group_by_length", "batch_rebalance")


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


@dataclass
class ModelArguments:
    """Which model to train. What is unset is as the checkpoint has it, or else the configuration's default.

    Raises:
        InputError: if an option is given that the architecture does not have.
    """

    _argument_group_name: ClassVar[str] = "Model"

    architecture: Literal["roberta-gru", "transformer", "rnn", "lstm", "bilstm", "gru", "bigru", "bag-of-words"] = (
        field(
            default="roberta-gru",
            metadata={
                "help": "What to train: RoBERTa-GRU; or what it is compared with: a transformer with its stock linear "
                "head (BERT, ELECTRA, RoBERTa, XLM-R, …), which reads no more than its window; a recurrent net on "
                "word embeddings; TF-IDF with logistic regression, which leaves figures and predictions but no model."
            },
        )
    )
    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "Folder or Hub id to start from: a roberta, xlm-roberta, camembert or roberta-gru checkpoint; for "
            "--architecture transformer, any encoder's. Unset: random weights, and a tokenizer trained on the "
            "training texts unless --tokenizer_name is given."
        },
    )
    model_revision: str | None = field(
        default=None, metadata={"help": "Branch, tag or commit of a model on the Hub; a commit is repeatable."}
    )
    tokenizer_name: str | None = field(
        default=None, metadata={"help": "Folder or Hub id of the tokenizer. Unset: the model's own."}
    )
    gru_hidden_size: int | None = field(
        default=None, metadata={"help": "Width of one GRU direction. Unset: the checkpoint's, else 256."}
    )
    num_gru_layers: int | None = field(
        default=None, metadata={"help": "Number of GRU layers. Unset: the checkpoint's, else 1."}
    )
    gru_bidirectional: bool | None = field(
        default=None,
        metadata={"help": "Also read from right to left. Unset: as the checkpoint, else not, as in the paper."},
    )
    gru_dropout: float | None = field(
        default=None, metadata={"help": "Dropout between GRU layers. Unset: the checkpoint's, else 0."}
    )
    summary: Literal["last", "mean", "max", "attention"] | None = field(
        default=None,
        metadata={
            "help": "What the head sees: the GRU's last state, or mean, max, attention over all. Unset: as the "
            "checkpoint, else last, as in the paper."
        },
    )
    head_hidden_size: int | None = field(
        default=None,
        metadata={
            "help": "Width of the head's dense layer; 0 leaves a single linear layer. Unset: the checkpoint's, else "
            "256."
        },
    )
    head_dropout: float | None = field(
        default=None, metadata={"help": "Dropout before the head's linear layers. Unset: the checkpoint's, else 0.1."}
    )
    config_overrides: str | None = field(
        default=None,
        metadata={
            "help": "Other fields of the model's configuration, as in "
            "'hidden_size=128, num_hidden_layers=2, hidden_dropout_prob=0.2'; of a recurrent net, as in "
            "'vocab_size=5000, embedding_size=50, hidden_size=100, num_layers=1, dropout=0.2'. On a CPU, "
            "attention_probs_dropout_prob=0 trains up to 1.6 times as fast: the fused attention there has no dropout."
        },
    )
    embeddings: str | None = field(
        default=None,
        metadata={
            "help": "A GloVe or word2vec text file that a recurrent net's embeddings start from, and their width."
        },
    )
    freeze_embeddings: bool = field(default=False, metadata={"help": "Keep --embeddings as they are in the file."})
    card_license: str = field(
        default="apache-2.0", metadata={"help": "Licence of the weights, as the Hub spells it, for the model card."}
    )
    card_language: str = field(default="en", metadata={"help": "Language of the texts, for the model card."})

    def __post_init__(self) -> None:
        if self.freeze_embeddings and not self.embeddings:
            raise InputError("--freeze_embeddings needs --embeddings: random ones must be trained.")

    def config_fields(self, config: PreTrainedConfig) -> dict[str, Any]:
        """Return the fields of a configuration that were set, by name.

        Args:
            config: a configuration of the kind that is meant, with a value for every field.

        Raises:
            InputError: if `config_overrides` names a field that does not exist, or gives it a value of another type.
        """
        fields = {name: getattr(self, name) for name in GRU_OPTIONS if getattr(self, name) is not None}
        defaults = config.to_dict()
        if "window_overlap" in defaults:
            defaults["window_overlap"] = 0  # unset by default, and a whole number
        for assignment in (self.config_overrides or "").split(",") if self.config_overrides else []:
            name, _, text = assignment.strip().partition("=")
            if name not in defaults:
                raise unknown_name("field in --config_overrides", name, defaults)
            fields[name] = _parse_as(type(defaults[name]), name, text)
        return fields


GRU_OPTIONS = [
    field.name for field in fields(ModelArguments) if field.name in inspect.signature(RobertaGRUConfig).parameters
]


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


def _changed_default(name: str, default: Any) -> Any:
    """Give a field of `TrainingArguments` another default and keep its help."""
    return field(default=default, metadata=dict(TrainingArguments.__dataclass_fields__[name].metadata))


@dataclass
class RobertaGRUTrainingArguments(TrainingArguments):
    """Everything of [`~transformers.TrainingArguments`], and what RoBERTa-GRU adds.

    Changed defaults: `eval_strategy` and `save_strategy` "epoch", `load_best_model_at_end` True, `save_total_limit` 1,
    `learning_rate` 2e-5, `per_device_train_batch_size` 16, `per_device_eval_batch_size` 32, `train_sampling_strategy`
    "group_by_length", `logging_steps` 20, `logging_nan_inf_filter` False (a loss that is no number shows in the log,
    and no step waits for a GPU to look at its loss), `restore_callback_states_from_checkpoint` True (early stopping
    counts on after a resume), `ddp_find_unused_parameters` False, `dataloader_pin_memory` only where there is an
    accelerator.

    `push_to_hub` is taken over: it leaves `publish_as`, the name to publish the finished model under, if any.

    Raises:
        InputError: if options contradict each other or a value is out of range.
    """

    _argument_group_name: ClassVar[str] = "Training (all of transformers.TrainingArguments, ours last)"

    eval_strategy: str = _changed_default("eval_strategy", "epoch")
    save_strategy: str = _changed_default("save_strategy", "epoch")
    load_best_model_at_end: bool = _changed_default("load_best_model_at_end", True)
    save_total_limit: int | None = _changed_default("save_total_limit", 1)
    learning_rate: float = _changed_default("learning_rate", 2e-5)
    per_device_train_batch_size: int = _changed_default("per_device_train_batch_size", 16)
    per_device_eval_batch_size: int = _changed_default("per_device_eval_batch_size", 32)
    train_sampling_strategy: str = _changed_default("train_sampling_strategy", "group_by_length")
    logging_steps: float = _changed_default("logging_steps", 20)
    logging_nan_inf_filter: bool = _changed_default("logging_nan_inf_filter", False)
    restore_callback_states_from_checkpoint: bool = _changed_default("restore_callback_states_from_checkpoint", True)
    ddp_find_unused_parameters: bool | None = _changed_default("ddp_find_unused_parameters", False)

    bf16_if_available: bool = field(
        default=False,
        metadata={"help": "Turn --bf16 on where the device computes in bfloat16 natively and --fp16 is off."},
    )
    optimizer: Literal["nadam", "sgd", "adam", "rmsprop", "adamw", "optim"] = field(
        default="nadam",
        metadata={
            "help": "The optimizer. nadam, adam and adamw take --adam_beta1, --adam_beta2 and --adam_epsilon; all "
            "take --weight_decay and --optim_args (momentum=0.9). optim: whatever --optim names."
        },
    )
    head_learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "Learning rate of GRU, summary and head, of other models than RoBERTa-GRU of the head. Unset: "
            "--learning_rate."
        },
    )
    layer_decay: float = field(
        default=1.0,
        metadata={"help": "Each encoder layer learns at this multiple of the rate of the layer above; 1 is level."},
    )
    freeze_encoder: bool = field(default=False, metadata={"help": "Train GRU, summary and head only."})
    freeze_layers: int = field(
        default=0, metadata={"help": "Freeze the embeddings and this many of the encoder's lowest layers."}
    )
    lora: int | None = field(
        default=None,
        metadata={
            "help": "Leave the encoder's weights as they are, and train LoRA matrices of this rank beside them; GRU, "
            "summary and head are trained wholly. Needs peft and --model_name_or_path, and wants about ten times "
            "the --learning_rate. Unset: train the weights."
        },
    )
    lora_alpha: float | None = field(
        default=None, metadata={"help": "What LoRA adds is multiplied by this over the rank. Unset: the rank."}
    )
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout on what the LoRA matrices read."})
    lora_target_modules: list[str] | None = field(
        default=None,
        metadata={
            "help": "The encoder's linear layers that LoRA stands beside, by the ends of their names, or all-linear. "
            "Unset: as peft has it, query and value of each RoBERTa layer."
        },
    )
    class_weights: str = field(
        default="none",
        metadata={
            "help": "Weight of each label in the loss: none, balanced (rows / (labels · rows of the label)), or a "
            'mapping such as \'{"negative": 1, "positive": 3}\'.'
        },
    )
    length_curriculum: int = field(
        default=0,
        metadata={
            "help": "Read short documents only in so many first epochs (of 3: the shortest quarter, half, three "
            "quarters), afterwards all. A GRU that starts from nothing learns long documents only so."
        },
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "Stop after this many evaluations without a better --metric_for_best_model. Unset: never."},
    )
    calibrate: bool = field(
        default=True, metadata={"help": "Fit the temperature of the probabilities on the validation split."}
    )
    bag_of_words: bool = field(
        default=True,
        metadata={"help": "Also measure TF-IDF with logistic regression on the same rows, as a line of sanity."},
    )
    verify_load: bool = field(
        default=True,
        metadata={"help": "Load the saved folder in a fresh process without this package; predict four texts."},
    )
    push_to_hub: bool = field(
        default=False,
        metadata={"help": "Publish the finished run as --hub_model_id USER/NAME, as `roberta-gru publish` does."},
    )
    publish_as: str | None = field(default=None, init=False)
    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "Replace the run that --output_dir holds. Without it, that is an error."}
    )

    def __post_init__(self) -> None:
        if self.output_dir is None:
            raise InputError("--output_dir is missing: name a folder for this run, such as runs/mine.")
        if self.train_sampling_strategy not in SAMPLING_STRATEGIES:
            raise unknown_name("--train_sampling_strategy", self.train_sampling_strategy, SAMPLING_STRATEGIES)
        if self.optim is not None and self.optimizer != "optim" and self.optim != _default("optim"):
            raise InputError(f"--optim {self.optim} takes effect only with --optimizer optim.")
        for name in ("learning_rate", "head_learning_rate"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise InputError(f"--{name} must be above 0, got {value}.")
        self._check_publishing()
        trackers = ("none", "all", *get_available_reporting_integrations())
        for name in [self.report_to] if isinstance(self.report_to, str) else self.report_to or []:
            if name not in trackers:
                raise unknown_name("tracker (or one that is not installed) in --report_to", name, trackers)
        self._check_curriculum()
        self._check_lora()
        if not 0 < self.layer_decay <= 1:
            raise InputError(f"--layer_decay must be above 0 and at most 1, got {self.layer_decay}.")
        if self.early_stopping_patience is not None and self.early_stopping_patience < 1:
            raise InputError(f"--early_stopping_patience must be at least 1, got {self.early_stopping_patience}.")
        if self.bf16_if_available and not (self.bf16 or self.fp16):
            _prefer_bfloat16(self)
        # The older names are as good; transformers would warn of them.
        for name in ("checkpointing", "checkpointing_kwargs"):
            if getattr(self, f"activation_{name}") is None:
                setattr(self, f"activation_{name}", getattr(self, f"gradient_{name}"))
        try:
            super().__post_init__()
        except ValueError as error:
            raise InputError(str(error)) from error
        # Pinning memory for a device that is not there only warns.
        if self.device.type == "cpu":
            self.dataloader_pin_memory = False

    @property
    def order_seed(self) -> int:
        """The seed of the order in which documents are read."""
        return self.seed if self.data_seed is None else self.data_seed

    def _check_publishing(self) -> None:
        if self.hub_token:
            raise InputError("--hub_token would stand in the run's record: use `hf auth login`, or HF_TOKEN.")
        if self.push_to_hub and not self.hub_model_id:
            raise InputError("--push_to_hub needs a name on the Hub: --hub_model_id USER/NAME.")
        for name in ("hub_strategy", "hub_always_push"):
            if getattr(self, name) != _default(name):
                raise InputError(f"--{name} has no effect: a run publishes once, at its end. Leave it out.")
        # The Trainer must not push by itself: it would push pickles, and a card with another optimizer.
        self.publish_as = self.hub_model_id if self.push_to_hub else None
        self.push_to_hub = False

    def _check_curriculum(self) -> None:
        epochs = self.length_curriculum
        if epochs < 0:
            raise InputError(f"--length_curriculum must be at least 0, got {epochs}.")
        # With --max_steps, epochs follow from the number of rows.
        if epochs and self.max_steps <= 0 and epochs >= self.num_train_epochs:
            raise InputError(
                f"--length_curriculum {epochs} leaves no epoch of --num_train_epochs {self.num_train_epochs:g} for "
                "the longest documents."
            )
        if epochs and self.train_sampling_strategy == "batch_rebalance":
            raise InputError(
                "--length_curriculum cannot go with --train_sampling_strategy batch_rebalance, which deals documents "
                "of all lengths to the processes: choose group_by_length, random or sequential."
            )

    def _check_lora(self) -> None:
        if self.lora is None:
            for name in ("lora_alpha", "lora_dropout", "lora_target_modules"):
                if getattr(self, name):
                    raise InputError(f"--{name} takes effect only with --lora RANK.")
            return
        for name in ("freeze_encoder", "freeze_layers"):
            if getattr(self, name):
                raise InputError(f"--{name} cannot go with --lora, which leaves the encoder's weights as they are.")
        if self.lora < 1:
            raise InputError(f"--lora must be a rank of at least 1, got {self.lora}.")
        if self.lora_alpha is not None and self.lora_alpha <= 0:
            raise InputError(f"--lora_alpha must be above 0, got {self.lora_alpha}.")
        if not 0 <= self.lora_dropout < 1:
            raise InputError(f"--lora_dropout must be at least 0 and below 1, got {self.lora_dropout}.")


def _prefer_bfloat16(args: TrainingArguments) -> None:
    # Without an accelerator the CPU is meant; transformers allows bf16 there only if told so.
    if not torch.accelerator.is_available():
        args.use_cpu = True
    if args.use_cpu:
        args.bf16 = torch.cpu._is_avx512_bf16_supported()
    else:
        args.bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def _default(name: str) -> Any:
    return TrainingArguments.__dataclass_fields__[name].default


class RunArgumentParser(HfArgumentParser):
    """Parse a run's options; a flat YAML file named by --config gives what the command line leaves out."""

    def __init__(self) -> None:
        super().__init__(
            [ModelArguments, DataArguments, RobertaGRUTrainingArguments],
            allow_abbrev=False,
            formatter_class=ArgumentDefaultsHelpFormatter,
            prog="train.py",
            usage="accelerate launch train.py [--config recipes/NAME.yaml] [--OPTION VALUE ...]",
            description="Train RoBERTa-GRU, or what it is compared with, measure it on the test split, and save a "
            "model that loads anywhere.",
        )
        self.add_argument("--config", help="A flat YAML file of options (see recipes/); the command line wins.")
        for action in self._actions:
            if action.option_strings[0].startswith("--no_"):
                action.help = f"Turn --{action.dest} off."

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message[0].upper()}{message[1:]}.")

    def parse(
        self, argv: Sequence[str]
    ) -> tuple[ModelArguments, DataArguments, RobertaGRUTrainingArguments, str | None]:
        """Return the filled dataclasses and the path of the configuration file.

        Raises:
            InputError: if an option or key is unknown, a value is of the wrong type, or the file cannot be read.
        """
        self._refuse_unknown_names(argv)
        config_path = self.parse_known_args(_without_unset(argv))[0].config
        argv = _without_unset([*(self._options_of_file(config_path) if config_path else []), *argv])
        _, rest = self.parse_known_args(argv)
        if rest:
            raise InputError(f"{rest[0]!r} belongs to no option; options look like --learning_rate 2e-5.")
        model, data, training, others = self.parse_args_into_dataclasses(argv, look_for_args_file=False)
        return model, data, training, others.config

    def option_names(self) -> list[str]:
        """Return every option's name, without dashes, in order of declaration."""
        return list(dict.fromkeys(action.dest for action in self._actions if action.dest != "help"))

    def _refuse_unknown_names(self, argv: Sequence[str]) -> None:
        known = [option for option in self._option_string_actions if option.startswith("--") and option != "--help"]
        for argument in argv:
            option = argument.split("=")[0]
            if option.startswith("--") and option not in (*known, "--help"):
                raise unknown_name("option", option, known)

    def _options_of_file(self, path: str) -> list[str]:
        """Turn a YAML file into command-line words, so that both are converted by the same rules."""
        try:
            # Everything as text: YAML's own reading makes true of Yes, and a text of 1e-5.
            options = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
        except OSError as error:
            raise InputError(f"--config {path} cannot be read: {error.strerror}.") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"--config {path} is not YAML: {error}") from error
        if not isinstance(options, dict):
            raise InputError(f"--config {path} must hold lines such as 'learning_rate: 2e-5'.")
        known = [name for name in self.option_names() if name != "config"]
        words: list[str] = []
        for name, value in options.items():
            if name not in known:
                raise unknown_name(f"key in {path}:", str(name), known)
            if isinstance(value, list):
                words += [f"--{name}", *map(str, value)]
            elif value not in UNSET:
                words.append(f"--{name}={json.dumps(value) if isinstance(value, dict) else value}")
        return words


def _without_unset(argv: Sequence[str]) -> list[str]:
    """Leave out each option said to be null, and what was said of it before: so a recipe's key is taken back."""
    options: list[list[str]] = []  # each with its values
    for word in argv:
        if word.startswith("--") or not options:
            options.append([])
        options[-1].append(word)
    kept: list[list[str]] = []
    for option in options:
        name, _, value = option[0].partition("=")
        if [value, *option[1:]] in (["null"], ["~"], ["", "null"], ["", "~"]):
            kept = [other for other in kept if other[0].partition("=")[0] != name]
        else:
            kept.append(option)
    return [word for option in kept for word in option]
