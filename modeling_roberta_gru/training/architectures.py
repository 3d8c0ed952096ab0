"""What can be trained: RoBERTa-GRU, and what it is compared with. One object holds all that is specific to each.

Everything else of a run is shared, so that what two architectures differ in is what they are.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RobertaConfig,
)

from ..arguments import GRU_OPTIONS, DataArguments, ModelArguments
from ..configuration_recurrent import RecurrentConfig
from ..configuration_roberta_gru import RobertaGRUConfig
from ..data.corpus import train_tokenizer
from ..data.labels import LabelSpace
from ..data.tokenization import (
    PreTrainedTokenizerFast,
    WordVectors,
    check_token_ids,
    embedding_matrix,
    read_vectors,
    train_word_tokenizer,
)
from ..errors import InputError, first_line
from ..modeling_recurrent import RecurrentForSequenceClassification
from ..modeling_roberta_gru import RobertaGRUForSequenceClassification, classification_loss
from ..trust import check_checkpoint, code_of_others
from .arguments import RobertaGRUTrainingArguments
from .loading import check_encoder_came_whole, check_padding, quiet, read_tokenizer, read_weights
from .record import changed_options
from .sharding import is_sharded

OF_LAYERS = (
    *("freeze_encoder", "freeze_layers", "layer_decay", "activation_checkpointing", "gradient_checkpointing", "lora"),
)
OF_VECTORS = ("embeddings", "freeze_embeddings")
ON_AN_ENCODER = {"skip_connection": True, "summary": "attention", "attention_horizons": [0, 1024, 512, 256]}
"""Of a fresh GRU on a pretrained encoder: docs/reproducing.md says what it was chosen from."""
SET_ELSEWHERE = {
    "pad_token_id": "the tokenizer",
    "problem_type": "--problem_type",
    "class_weights": "--class_weights",
    "label_smoothing": "--label_smoothing_factor",
    "calibration_temperature": "--calibrate",
}
"""Fields of our configurations that something else sets, and what."""

logger = logging.getLogger(__name__)


class Architecture:
    """What `--architecture` names.

    Attributes:
        name: as the option says it.
        without_effect: options that change nothing here, and are refused.
        size_fields: the fields of the configuration that a run's record and the model card tell.
        sentence: how the model reads a text, for the card.
        ships_code: whether code of ours travels with the weights.
        reads_whole_texts: whether texts of any length are read; otherwise they are cut to the model's window.
        has_temperature: whether its probabilities can be calibrated.
    """

    without_effect: ClassVar[Sequence[str]] = ()
    size_fields: ClassVar[Sequence[str]] = ()
    set_elsewhere: ClassVar[dict[str, str]] = {}
    sentence: ClassVar[str] = ""
    ships_code: ClassVar[bool] = False
    reads_whole_texts: ClassVar[bool] = True
    has_temperature: ClassVar[bool] = True

    def __init__(self, name: str) -> None:
        self.name = name

    def load_tokenizer(self, args: ModelArguments, texts: Sequence[str]) -> PreTrainedTokenizerBase:
        """Load the tokenizer that `args` name, or the checkpoint's; without either, train one on `texts`.

        Raises:
            InputError: if none can be read there.
        """
        if args.model_name_or_path is not None:
            check_checkpoint(args.model_name_or_path, args.model_revision, args.trust_remote_code)
        name = args.tokenizer_name or args.model_name_or_path
        if name is None:
            vocab_size = self.config_fields(args, RobertaGRUConfig()).get("vocab_size")
            return train_tokenizer(texts, **({"vocab_size": vocab_size} if vocab_size else {}))
        revision = None if args.tokenizer_name else args.model_revision
        tokenizer = read_tokenizer(name, revision, trust_remote_code=args.trust_remote_code)
        if not args.trust_remote_code and (found := code_of_others(name, revision)):
            logger.warning("%s names code of others, which is neither run nor saved: %s.", name, ", ".join(found))
        check_padding(tokenizer, name)
        return tokenizer

    def load_model(
        self,
        args: ModelArguments,
        tokenizer: PreTrainedTokenizerBase,
        labels: LabelSpace,
        class_weights: list[float] | None = None,
        label_smoothing: float = 0.0,
    ) -> PreTrainedModel:
        """Build the classifier in float32, with the weights of `args.model_name_or_path` or with random ones.

        Raises:
            InputError: if the checkpoint cannot be read, is of another architecture or of other sizes than asked for,
                or if the tokenizer does not fit it.
        """
        raise NotImplementedError

    def config_fields(self, args: ModelArguments, config: PreTrainedConfig) -> dict[str, Any]:
        """Return the fields of a configuration that `args` set; see [`ModelArguments.config_fields`].

        Raises:
            InputError: also if one of them is set by something else.
        """
        fields = args.config_fields(config)
        elsewhere = dict(self.set_elsewhere)
        if args.model_name_or_path is None:
            elsewhere |= dict.fromkeys(("bos_token_id", "eos_token_id"), "the tokenizer")
            if args.tokenizer_name is not None:
                elsewhere["vocab_size"] = "--tokenizer_name"
        for name in fields.keys() & elsewhere.keys():
            raise InputError(
                f"--config_overrides {name}: it is set by {elsewhere[name]}. Leave it out.", field="config_overrides"
            )
        return fields

    def loss_function(
        self, labels: LabelSpace, class_weights: list[float] | None, label_smoothing: float
    ) -> Callable[..., torch.Tensor] | None:
        """Return the loss, for the Trainer's `compute_loss_func`; None where the model's own knows all it needs."""
        return None

    def calibrate(self, model: PreTrainedModel, temperature: float) -> None:
        """Have the model divide its logits by a temperature from now on."""
        model.config.calibration_temperature = temperature


class RobertaGRU(Architecture):
    """A RoBERTa encoder, a GRU over its states, and a small head."""

    without_effect = OF_VECTORS
    set_elsewhere = SET_ELSEWHERE
    size_fields = (
        "num_hidden_layers",
        "hidden_size",
        "encoder_window",
        "num_gru_layers",
        "gru_hidden_size",
        "gru_bidirectional",
        "summary",
        "attention_horizons",
        "skip_connection",
        "head_hidden_size",
    )
    sentence = "a RoBERTa encoder reads the text, a GRU reads the encoder's states in order, and a small head decides"
    ships_code = True

    def load_model(
        self,
        args: ModelArguments,
        tokenizer: PreTrainedTokenizerBase,
        labels: LabelSpace,
        class_weights: list[float] | None = None,
        label_smoothing: float = 0.0,
    ) -> PreTrainedModel:
        """Build the classifier; see [`Architecture.load_model`].

        A checkpoint of a bare encoder gets a fresh GRU and head, with [`ON_AN_ENCODER`] unless another is
        asked for; one of RoBERTa-GRU keeps its own, and a fresh head where the labels are others.
        """
        given = self.config_fields(args, RobertaGRUConfig())
        loss_fields = {"class_weights": class_weights, "label_smoothing": label_smoothing}
        fields = {**given, **labels.config_fields(), **loss_fields}
        name = args.model_name_or_path
        with _usable(name):
            if name is None:
                config = RobertaGRUConfig(**{**fields, **_vocabulary_fields(tokenizer)})
                _check_head(given, config)
                return RobertaGRUForSequenceClassification(config)
            with quiet():
                config = RobertaGRUConfig.from_pretrained(name, revision=args.model_revision)
            if not any(kind.startswith("RobertaGRU") for kind in config.architectures or ()):
                fields = {**ON_AN_ENCODER, **fields}
            _set_fields(config, fields | LOGITS_ALONE)
            config.calibration_temperature = 1.0
            config.check()
            _check_head(given, config)
            check_token_ids(tokenizer, config.vocab_size)
            model, report = read_weights(RobertaGRUForSequenceClassification, args, config)
        check_encoder_came_whole(name, report, "roberta.", "head.out_proj.")
        return model


@contextmanager
def _usable(name: str | None) -> Iterator[None]:
    """Turn what transformers says of a model that cannot be read or built into an InputError."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"The model {name or 'to be built'} is not usable: {first_line(error)}.") from error


def _check_head(given: Mapping[str, Any], config: RobertaGRUConfig) -> None:
    """Raise InputError if a field that was given has no effect in the model that they make together."""
    if given.get("gru_dropout") and config.num_gru_layers == 1:
        raise InputError(
            "--gru_dropout has no effect with one GRU layer, since it is dropout between layers: leave it out, or set "
            "--num_gru_layers.",
            field="gru_dropout",
        )
    if any(given.get("attention_horizons") or ()) and config.summary != "attention":
        raise InputError(
            f"--attention_horizons has no effect with --summary {config.summary}: leave it out, or set --summary "
            "attention.",
            field="attention_horizons",
        )


def _set_fields(config: PreTrainedConfig, fields: dict[str, Any]) -> None:
    """Change a checkpoint's configuration; what the data of its own labels wrote for them goes."""
    vars(config).pop("label_values", None)
    for field, value in fields.items():
        setattr(config, field, value)


class Transformer(Architecture):
    """An encoder of any kind with its stock linear head, as `AutoModelForSequenceClassification` makes it."""

    without_effect = (*GRU_OPTIONS, *OF_VECTORS, "max_windows")
    set_elsewhere = {"problem_type": SET_ELSEWHERE["problem_type"]}
    size_fields = ("model_type", "num_hidden_layers", "hidden_size")
    sentence = "a transformer encoder reads the text, and a linear head decides"
    reads_whole_texts = False

    def load_model(
        self,
        args: ModelArguments,
        tokenizer: PreTrainedTokenizerBase,
        labels: LabelSpace,
        class_weights: list[float] | None = None,
        label_smoothing: float = 0.0,
    ) -> PreTrainedModel:
        """Build the classifier; see [`Architecture.load_model`].

        The head is fresh unless the checkpoint's fits the labels. Without a checkpoint it is a RoBERTa of random
        weights in RoBERTa-GRU's geometry. Weights and smoothing have no place in it: see [`loss_function`].
        """
        name = args.model_name_or_path
        with _usable(name):
            if name is None:
                fields = self.config_fields(args, RobertaConfig())
                return AutoModelForSequenceClassification.from_config(_random_config(fields, tokenizer, labels))
            config = AutoConfig.from_pretrained(
                name, revision=args.model_revision, trust_remote_code=args.trust_remote_code
            )
            self._check_kind(name, config)
            _set_fields(config, {**self.config_fields(args, config), **labels.config_fields(), **LOGITS_ALONE})
            check_token_ids(tokenizer, config.vocab_size)
            model, report = read_weights(AutoModelForSequenceClassification, args, config)
        check_encoder_came_whole(name, report, f"{model.base_model_prefix}.", last_linear_name(model))
        return model

    def _check_kind(self, name: str, config: PreTrainedConfig) -> None:
        if config.model_type == RobertaGRUConfig.model_type:
            raise InputError(f"{name} is a RoBERTa-GRU: leave --architecture {self.name} out to train it.")
        if config.model_type == RecurrentConfig.model_type or config.is_encoder_decoder:
            raise InputError(f"{name} is a {config.model_type}, and --architecture {self.name} needs an encoder.")

    def loss_function(
        self, labels: LabelSpace, class_weights: list[float] | None, label_smoothing: float
    ) -> Callable[..., torch.Tensor]:
        """Return RoBERTa-GRU's loss.

        A stock head knows neither class weights nor, for several labels a text, how a batch was divided.
        """
        fields = SimpleNamespace(
            problem_type=labels.problem_type,
            num_labels=labels.num_labels,
            class_weights=class_weights,
            label_smoothing=label_smoothing,
        )

        def loss(
            outputs: Any, targets: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
        ) -> torch.Tensor:
            return classification_loss(outputs["logits"], targets, fields, num_items_in_batch)

        return loss

    def calibrate(self, model: PreTrainedModel, temperature: float) -> None:
        """Divide the logits for good, in the weights of the last linear layer: a stock head has no other place."""
        linear = model.get_submodule(last_linear_name(model))
        with torch.no_grad():
            for parameter in linear.parameters():
                parameter.div_(temperature)


class RecurrentNet(Architecture):
    """An RNN, LSTM or GRU that reads word embeddings, one way or both."""

    without_effect = (*GRU_OPTIONS, "model_name_or_path", "model_revision", "max_windows", *OF_LAYERS)
    size_fields = ("cell", "bidirectional", "vocab_size", "embedding_size", "hidden_size", "num_layers")
    sentence = "a recurrent net reads the text's word embeddings in order, and a linear head decides"
    ships_code = True

    set_elsewhere = {**SET_ELSEWHERE, "cell": "--architecture", "bidirectional": "--architecture"}

    def __init__(self, name: str, cell: str, bidirectional: bool) -> None:
        super().__init__(name)
        self.cell, self.bidirectional = cell, bidirectional

    def load_tokenizer(self, args: ModelArguments, texts: Sequence[str]) -> PreTrainedTokenizerBase:
        """Learn the vocabulary from `texts`, or load the tokenizer that `args.tokenizer_name` names.

        Raises:
            InputError: if none can be read there.
        """
        if args.tokenizer_name is None:
            config = RecurrentConfig(**self.config_fields(args, RecurrentConfig()))
            return train_word_tokenizer(texts, config.vocab_size)
        tokenizer = read_tokenizer(args.tokenizer_name, tokenizer_class=PreTrainedTokenizerFast)
        check_padding(tokenizer, args.tokenizer_name)
        return tokenizer

    def load_model(
        self,
        args: ModelArguments,
        tokenizer: PreTrainedTokenizerBase,
        labels: LabelSpace,
        class_weights: list[float] | None = None,
        label_smoothing: float = 0.0,
    ) -> PreTrainedModel:
        """Build a net of random weights; its embeddings start from the vectors of `args.embeddings`, if named.

        Raises:
            InputError: if the sizes are not possible, or the vectors do not fit them or the vocabulary.
        """
        overrides = self.config_fields(args, RecurrentConfig())
        vectors = read_vectors(args.embeddings, words=tokenizer.get_vocab()) if args.embeddings else None
        fields = {**overrides, **labels.config_fields(), "cell": self.cell, "bidirectional": self.bidirectional}
        fields |= {"pad_token_id": tokenizer.pad_token_id, "vocab_size": len(tokenizer)}
        fields |= {"class_weights": class_weights, "label_smoothing": label_smoothing}
        if vectors is not None:
            width = vectors.vectors.shape[1]
            if fields.setdefault("embedding_size", width) != width:
                raise InputError(
                    f"--config_overrides embedding_size={fields['embedding_size']} does not fit --embeddings "
                    f"{args.embeddings}, whose vectors have {width} numbers: leave embedding_size out."
                )
        with _usable(None):
            model = RecurrentForSequenceClassification(RecurrentConfig(**fields))
        check_token_ids(tokenizer, model.config.vocab_size)
        if vectors is not None:
            _start_from(model, tokenizer, vectors, args)
        return model


class WordCounts(Architecture):
    """TF-IDF with logistic regression: see [`~.bag_of_words.BagOfWords`]. It keeps no model."""

    without_effect = (
        *(*GRU_OPTIONS, *OF_VECTORS, "model_name_or_path", "model_revision", "tokenizer_name", "config_overrides"),
        *("max_windows", "resume_from_checkpoint", "hub_model_id", "lora", "soft_train_file"),
    )
    has_temperature = False


RECURRENT_NETS = [
    RecurrentNet("rnn", "rnn", bidirectional=False),
    RecurrentNet("lstm", "lstm", bidirectional=False),
    RecurrentNet("bilstm", "lstm", bidirectional=True),
    RecurrentNet("gru", "gru", bidirectional=False),
    RecurrentNet("bigru", "gru", bidirectional=True),
]
ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        *(RobertaGRU("roberta-gru"), Transformer("transformer"), *RECURRENT_NETS),
        WordCounts("bag-of-words"),
    )
}
"""By the name that `--architecture` gives them."""

# A checkpoint's configuration may ask for more; it would be kept of every row of an evaluation.
LOGITS_ALONE = {"output_hidden_states": False, "output_attentions": False, "return_dict": True}


SET_BY_RUN = {
    "prediction_loss_only": False,
    "label_names": None,
    "remove_unused_columns": True,
    "eval_do_concat_batches": True,
    "batch_eval_metrics": False,
    "bf16_full_eval": False,
    "fp16_full_eval": False,
    "do_train": False,
    "do_predict": False,
}
"""Options of the Trainer without which a run has no predictions to measure, or saves weights of another precision; and
those that other scripts have to choose what is done."""


def check_options(
    model_args: ModelArguments, data_args: DataArguments, args: RobertaGRUTrainingArguments
) -> Architecture:
    """Return the architecture that the options name.

    Raises:
        InputError: if another option has no effect with it, or options contradict each other.
    """
    architecture = ARCHITECTURES[model_args.architecture]
    changed = changed_options(model_args, data_args, args)
    for name in architecture.without_effect:
        if changed.get(name) or (name in GRU_OPTIONS and name in changed):  # these may be 0 or false
            raise InputError(
                f"--{name} has no effect with --architecture {architecture.name}: leave it out (--{name} null, "
                "where a recipe names it)."
            )
    evaluates = {"do_eval": args.eval_strategy != "no"}  # as transformers sets it
    for name, value in {**SET_BY_RUN, **evaluates}.items():
        if getattr(args, name) != value:
            hint = " Class names are --class_names." if name == "label_names" else ""
            raise InputError(f"--{name} is set by the run itself: leave it out.{hint}", field=name)
    if args.lora and is_sharded(args):
        raise InputError("--lora cannot be combined with FSDP: no process has the whole model to merge it into.")
    return architecture


def last_linear_name(model: PreTrainedModel) -> str:
    """Return the name of the linear layer that gives the logits."""
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module.out_features == model.config.num_labels
        and not name.startswith(f"{model.base_model_prefix}.")
    ]
    return names[-1]


def _random_config(given: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, labels: LabelSpace) -> RobertaConfig:
    geometry = RobertaGRUConfig()
    names = ("max_position_embeddings", "type_vocab_size", "layer_norm_eps")
    fields = {name: getattr(geometry, name) for name in names}
    fields |= {**_vocabulary_fields(tokenizer), **given, **labels.config_fields()}
    return RobertaConfig(**{**fields, "vocab_size": len(tokenizer)})


def _vocabulary_fields(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Return the fields of a configuration that follow from the tokenizer."""
    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("pad", "bos", "eos")}
    return {**ids, "vocab_size": len(tokenizer)}


def _start_from(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, vectors: WordVectors, args: ModelArguments
) -> None:
    matrix, num_found = embedding_matrix(tokenizer, vectors, torch.initial_seed())
    embeddings = model.recurrent.embeddings.weight
    with torch.no_grad():
        embeddings.copy_(torch.from_numpy(matrix))
    embeddings.requires_grad = not args.freeze_embeddings
    num_words = len(tokenizer) - len(set(tokenizer.all_special_ids))
    if num_found < num_words:
        logger.warning(
            "%d of the vocabulary's %d words are not in %s: they %s random vectors.",
            num_words - num_found,
            num_words,
            args.embeddings,
            "keep" if args.freeze_embeddings else "start from",
        )
