"""Continue an encoder's masked-language-model training on unlabelled texts of the domain (`roberta-gru adapt`).

Whole documents are cut into windows, 15 % of the words (of the tokens, where a tokenizer does not tell words) are
hidden, and the encoder learns to name them: Gururangan et al. 2020, "Don't Stop Pretraining". What is written is an
encoder that `--model_name_or_path` takes, with the masked-language-model head that lets it be continued again.
"""

import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple
from warnings import catch_warnings, filterwarnings

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    DataCollatorForLanguageModeling,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RobertaConfig,
    RobertaForMaskedLM,
    set_seed,
)

from ..arguments import check_seeds
from ..configuration_roberta_gru import RobertaGRUConfig
from ..data.dialect import is_decoded, not_text
from ..data.documents import clean_html, text_key
from ..data.tables import UTF_8, open_table
from ..data.tokenization import check_token_ids, lift_limits
from ..errors import InputError, first_line, say, unknown_name
from ..files import alone, delete, redacted, staging, write_json, writing_to
from ..trust import check_checkpoint, describe_remote_code, pinned, remove_foreign_code
from .arguments import RobertaGRUTrainingArguments, effective_batch_size
from .dropout import SLOW_ATTENTION, use_cpu_dropout
from .loading import check_padding, quiet, read_tokenizer
from .run_folder import last_checkpoint
from .trainer import EpochSampler, GroupedSampler, ResumingTrainer, is_finite

ENCODERS = ("roberta", "xlm-roberta", "camembert", RobertaGRUConfig.model_type)
RECORD = "adapt.json"
CHECKPOINTS = "checkpoints"
TEXTS_AT_ONCE = 256  # tokenised together
MASKED_SHARE = 0.15
MOST_VALIDATION_TEXTS = 500


@dataclass(frozen=True)
class AdaptOptions:
    """How an encoder is adapted.

    Attributes:
        text_column: the texts' column; every other column is left unread.
        clean_html: remove HTML from the texts, as [`~.data.documents.clean_html`] does.
        exclude: files whose texts, in the same column, are left out: those of a test split.
        max_length: tokens of a window, special tokens included; None: as many as the encoder can read.
        epochs: passes over the texts.
        learning_rate: the highest; it rises over the first 6 % of the steps and falls to zero.
        batch_size: windows of a batch.
        validation_share: share of the texts, 500 at most, that only the validation loss is measured on.
        save_steps: a checkpoint is written, and the validation loss measured, every so many steps.
        whole_words: hide whole words, where the tokenizer tells them.
        dropout: probability of every dropout layer while the encoder is adapted; None: as configured. The
            configuration that is written stays as it was.
        seed: of masks, order and validation texts.
        trust_remote_code: run the code that the encoder's tokenizer brings along, and say whose. The encoder itself is
            always loaded by the installed classes.
    """

    text_column: str = "text"
    clean_html: bool = False
    exclude: tuple[str, ...] = ()
    max_length: int | None = None
    epochs: float = 1.0
    learning_rate: float = 1e-4
    batch_size: int = 16
    validation_share: float = 0.01
    save_steps: int = 500
    whole_words: bool = True
    dropout: float | None = None
    seed: int = 42
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "learning_rate", "batch_size", "save_steps"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"--{name} must be a number above 0, got {getattr(self, name)}.", field=name)
        check_seeds(seed=self.seed)
        if not 0 < self.validation_share < 1:
            raise InputError(
                f"--validation_share must be above 0 and below 1, got {self.validation_share}.",
                field="validation_share",
            )
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise InputError(f"--dropout must be at least 0 and below 1, got {self.dropout}.", field="dropout")


class Document(NamedTuple):
    """A text's token ids, without special tokens, and which of them begin a word."""

    ids: np.ndarray
    begins_word: np.ndarray


class TextWindows(Dataset):
    """Documents cut into windows, each wrapped in the tokenizer's own first and last token.

    Args:
        documents: what is cut.
        wrap: the ids before and after.
        size: tokens of a window, the wrapping included; the last one of a document may be shorter.
    """

    def __init__(self, documents: Iterable[Document], wrap: tuple[list[int], list[int]], size: int):
        self.before, self.after = wrap
        room = size - len(self.before) - len(self.after)
        ids, words, lengths = [], [], []
        for content, begins_word in documents:
            ids.append(content)
            words.append(begins_word)
            lengths += [min(room, len(content) - start) for start in range(0, len(content), room)]
        self.num_documents = len(ids)
        self.ids = np.concatenate(ids) if ids else np.empty(0, np.int32)
        self.begins_word = np.concatenate(words) if words else np.empty(0, bool)
        self.ends = np.cumsum(lengths, dtype=np.int64)
        self.lengths = np.asarray(lengths, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return what the collator takes; the offsets leave a gap between words, and none within one."""
        part = slice(int(self.ends[index] - self.lengths[index]), int(self.ends[index]))
        begins = np.arange(self.lengths[index]) + np.cumsum(self.begins_word[part])
        special = [1] * len(self.before), [1] * len(self.after)
        return {
            "index": index,
            "input_ids": [*self.before, *self.ids[part].tolist(), *self.after],
            "special_tokens_mask": [*special[0], *[0] * len(begins), *special[1]],
            "offset_mapping": [
                *[(0, 0)] * len(self.before),
                *zip(begins, begins + 1, strict=True),
                *[(0, 0)] * len(self.after),
            ],
        }


class Masking:
    """Make a batch of windows, hiding words with transformers' own collator.

    What is hidden depends on seed, epoch and windows alone, not on torch's global state: a batch that is fetched
    before a checkpoint, or again after a resume, is the same.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, whole_words: bool, seed: int):
        with catch_warnings():
            # It says that a masked word is never replaced by a random one: so whole-word masking is.
            filterwarnings("ignore", message="Random token replacement")
            self.collator = DataCollatorForLanguageModeling(
                tokenizer, mlm_probability=MASKED_SHARE, whole_word_mask=whole_words
            )
        self.whole_words, self.seed, self.epoch = whole_words, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch is read next, the first being 0."""
        self.epoch = epoch

    def __call__(self, windows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return `input_ids`, `attention_mask` and `labels`, int64 (B, T)."""
        width = max(len(window["input_ids"]) for window in windows)
        rows = [{name: window[name] for name in ("input_ids", "special_tokens_mask")} for window in windows]
        batch = self.collator.tokenizer.pad(rows, padding_side="right", return_tensors="pt")
        # The collator does not pad these.
        offsets = [window["offset_mapping"] + [(0, 0)] * (width - len(window["offset_mapping"])) for window in windows]
        seed = np.random.SeedSequence([self.seed, self.epoch, windows[0]["index"]]).generate_state(1).item()
        self.collator.generator = torch.Generator().manual_seed(seed)
        ids, labels = self.collator.torch_mask_tokens(
            batch["input_ids"],
            special_tokens_mask=batch["special_tokens_mask"],
            offset_mapping=np.array(offsets) if self.whole_words else None,
        )
        return {"input_ids": ids, "attention_mask": batch["attention_mask"], "labels": labels}


def masked_loss(
    model: PreTrainedModel,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    divisor: torch.Tensor | None = None,
    **kwargs: Any,
) -> dict[str, torch.Tensor]:
    """Compute the loss of a masked language model, scoring the vocabulary at the masked tokens only.

    Args:
        model: of the RoBERTa family.
        input_ids, attention_mask, labels: int64 (B, T); labels are -100 but where a token is masked.
        num_items_in_batch: the number of masked tokens in the whole batch that this one is a part of; unset: in this.
        divisor: what the losses' sum is divided by instead.
        **kwargs: nothing that matters; the Trainer looks for them.

    Returns:
        `loss`, a scalar.
    """
    states = model.base_model(input_ids, attention_mask=attention_mask).last_hidden_state
    is_masked = labels != -100
    logits = model.lm_head(states[is_masked])
    losses = nn.functional.cross_entropy(logits.float(), labels[is_masked], reduction="sum")
    num_items = is_masked.sum() if num_items_in_batch is None else torch.as_tensor(num_items_in_batch)
    num_items = num_items if divisor is None else divisor
    return {"loss": losses / num_items.clamp(min=1)}  # none is masked in some batches of short texts


def adapt_encoder(
    model: str, files: Sequence[str | Path], output_dir: str | Path, options: AdaptOptions | None = None
) -> dict[str, Any]:
    """Continue the masked-language-model training of an encoder, and write it to `output_dir`.

    Where `output_dir` holds an unfinished run of the same model, files and options, it is resumed from its last
    checkpoint.

    Args:
        model: a folder or Hub id of an encoder that warm-starts RoBERTa-GRU, with its tokenizer.
        files: CSV, TSV, JSON Lines or Parquet files of texts.
        output_dir: the folder of the encoder.
        options: how; unset, as [`AdaptOptions`] has them.

    Returns:
        The record, as in adapt.json: `validation_loss` and `validation_loss_before` (cross-entropy of masked tokens,
        in nats), the numbers of texts, windows and tokens, and what was left out.

    Raises:
        InputError: if model, tokenizer, files or options are not usable, or if `output_dir` holds something else.
    """
    options = options or AdaptOptions()
    folder = Path(output_dir)
    described = {"model": model, "files": [redacted(str(file)) for file in files], **asdict(options)}
    described["exclude"] = [redacted(str(file)) for file in options.exclude]
    del described["trust_remote_code"]  # which changes nothing of the encoder
    with alone(folder):
        record = _earlier(folder, described)
        if record.get("is_finished"):
            _check_texts(folder, record, _read_texts(files, options)[0])
            delete(folder / CHECKPOINTS)  # which a run that was killed at its very end leaves
            say(f"{folder} holds the finished encoder of this command already.")
            return record
        return _adapt(model, files, folder, options, described, record)


def _adapt(
    model: str,
    files: Sequence[str | Path],
    folder: Path,
    options: AdaptOptions,
    described: dict[str, Any],
    earlier: dict[str, Any],
) -> dict[str, Any]:
    """Train, or resume, and write; `earlier` is the record of an unfinished run, if there is one."""
    set_seed(options.seed)
    revision = pinned(model)
    if options.trust_remote_code:
        say(f"Trusted to run: the code of {describe_remote_code(model, revision)}")
    tokenizer = _read_tokenizer(model, revision, options)
    masked_model = _load(model, revision, tokenizer)
    size = _window_size(masked_model, tokenizer, options)
    texts, counts = _read_texts(files, options)
    digest = _check_texts(folder, earlier, texts)
    windows = _cut(texts, tokenizer, size, options)
    num_texts = sum(part.num_documents for part in windows.values())
    counts |= {"texts": num_texts, "empty": counts["empty"] + len(texts) - num_texts}
    del texts  # of which there may be very many
    whole_words = options.whole_words and tokenizer.is_fast
    train, validation = windows["train"], windows["validation"]
    say(
        f"{train.num_documents:,} texts to train on in {len(train):,} windows of up to {size} tokens "
        f"({len(train.ids):,} tokens), {validation.num_documents:,} to validate; {counts['excluded']:,} left out "
        f"because they are in --exclude, {counts['repeated']:,} repeated, {counts['empty']:,} empty. Hidden: "
        f"{MASKED_SHARE:.0%} of the {'words' if whole_words else 'tokens'}."
    )
    before = earlier.get("validation_loss_before")
    begun = {"options": described, "texts_sha256": digest, "validation_loss_before": before}
    with writing_to(folder):
        write_json(folder / RECORD, begun)
        trainer = _trainer(masked_model, tokenizer, windows, folder, options, whole_words)
        if before is None:
            begun["validation_loss_before"] = before = trainer.evaluate()["eval_loss"]
            write_json(folder / RECORD, begun)
        say(f"Validation loss before: {before:.4f}")
        set_seed(options.seed)  # a run that was killed before its first checkpoint begins anew without that evaluation
        trainer.train(resume_from_checkpoint=last_checkpoint(folder / CHECKPOINTS))
    after = trainer.evaluate()["eval_loss"]
    if not (is_finite(masked_model) and math.isfinite(after)):
        raise InputError(
            f"Training diverged: the validation loss is {after}. Nothing was saved. Choose a lower --learning_rate "
            "and another --output_dir.",
            field="learning_rate",
        )
    say(f"Validation loss after: {after:.4f}")
    record = {
        **begun,
        "validation_loss": after,
        "history": _history(trainer),
        **counts,
        "train_texts": train.num_documents,
        "validation_texts": validation.num_documents,
        "windows": len(train),
        "tokens": len(train.ids),
        "whole_words": whole_words,
        "is_finished": True,
    }
    _write(folder, masked_model, tokenizer, record, options)
    return record


def _write(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    record: dict[str, Any],
    options: AdaptOptions,
) -> None:
    """Write the encoder, its tokenizer and, last, the record that says that it is finished."""
    lift_limits(tokenizer)
    with writing_to(folder):
        with staging(folder) as staged:
            model.save_pretrained(staged)
            tokenizer.save_pretrained(staged)
            if not options.trust_remote_code:
                remove_foreign_code(staged)
            for path in sorted(staged.iterdir()):
                os.replace(path, folder / path.name)
        write_json(folder / RECORD, record)
        delete(folder / CHECKPOINTS)


# Before training


def _earlier(folder: Path, described: dict[str, Any]) -> dict[str, Any]:
    """Return the record of a run of the same options that the output folder holds; without one, an empty one."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output_dir {folder} is not a folder.", field="output_dir", file=str(folder))
    # What begins with a dot is what a process that was killed left of its first file.
    if not folder.is_dir() or all(path.name.startswith(".") for path in folder.iterdir()):
        return {}
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        options = dict(record["options"])
    except (OSError, ValueError, TypeError, KeyError):
        raise InputError(
            f"--output_dir {folder} holds something else: name a new folder.", field="output_dir", file=str(folder)
        ) from None
    for name, value in described.items():
        if options.get(name, getattr(AdaptOptions, name, None)) != value:  # a record may be older than an option
            kind, way_out = (
                ("a finished", "") if record.get("is_finished") else ("an unfinished", "resume it with the same, or ")
            )
            raise InputError(
                f"--output_dir {folder} holds {kind} run with another {name} "
                f"({options.get(name)!r}, not {value!r}): {way_out}name a new folder.",
                field=name,
                file=str(folder),
            )
    return record


def _read_tokenizer(model: str, revision: str | None, options: AdaptOptions) -> PreTrainedTokenizerBase:
    """Load the encoder's tokenizer, which must have a mask and a padding token."""
    tokenizer = read_tokenizer(model, revision, trust_remote_code=options.trust_remote_code)
    if not tokenizer("a", add_special_tokens=False)["input_ids"]:  # transformers makes an empty one of no files
        raise InputError(
            f"No tokenizer can be read from {model}: save the encoder's own beside its weights.", file=model
        )
    if tokenizer.mask_token is None:
        raise InputError(
            f"The tokenizer of {model} has no mask token, which masked-language-model training hides words with: "
            "adapt an encoder whose vocabulary has one, such as roberta-base.",
            file=model,
        )
    check_padding(tokenizer, model)
    return tokenizer


def _window_size(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, options: AdaptOptions) -> int:
    """Return the tokens of a window: as asked for, or as many as the encoder can read."""
    most = model.config.max_position_embeddings - model.config.pad_token_id - 1
    least = tokenizer.num_special_tokens_to_add() + 1
    size = options.max_length or most
    if not least <= size <= most:
        raise InputError(
            f"--max_length must be from {least} to {most}, the encoder's window; got {size}.", field="max_length"
        )
    return size


def _cut(
    texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, size: int, options: AdaptOptions
) -> dict[str, TextWindows]:
    """Cut the texts into windows: some texts, drawn by chance, for the validation loss, and the others to train on.

    Those without a token, since the tokenizer drops their characters, are left out.
    """
    documents = [document for document in _tokenise(texts, tokenizer) if len(document.ids)]
    if len(documents) < 2:
        raise InputError(
            f"Too few usable texts ({len(documents)}): one is needed to train on and one to validate.", field="files"
        )
    num_validation = math.ceil(len(documents) * options.validation_share)
    num_validation = min(MOST_VALIDATION_TEXTS, num_validation, len(documents) - 1)
    order = np.random.default_rng(options.seed).permutation(len(documents))
    parts = {"validation": order[:num_validation], "train": order[num_validation:]}
    wrap = _wrapping(tokenizer)
    return {name: TextWindows((documents[row] for row in rows), wrap, size) for name, rows in parts.items()}


def _load(name: str, revision: str | None, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Load an encoder in float32 with its masked-language-model head, a fresh one where it has none."""
    try:
        with quiet():
            config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
            if config.model_type not in ENCODERS:
                raise InputError(
                    f"{name} is a {config.model_type!r}: RoBERTa-GRU starts from {', '.join(ENCODERS)} only.",
                    file=name,
                )
            check_checkpoint(name, revision)
            model_class: Any = AutoModelForMaskedLM
            if config.model_type == RobertaGRUConfig.model_type:  # whose encoder is a RoBERTa
                fields = {key: getattr(config, key) for key in RobertaConfig().to_dict() if hasattr(config, key)}
                config = RobertaConfig(**{key: fields[key] for key in fields if key not in ("model_type", "dtype")})
                model_class = RobertaForMaskedLM
            check_token_ids(tokenizer, config.vocab_size)
            model, report = model_class.from_pretrained(
                name,
                revision=revision,
                config=config,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"The encoder {name} is not usable: {first_line(error)}.", file=name) from error
    missing = [key for key in report["missing_keys"] if key.startswith("roberta.") and "pooler" not in key]
    if missing:
        raise InputError(f"{missing[0]} is missing from {name}: it is not a whole encoder.", file=name)
    if not is_finite(model):
        raise InputError(f"{name} holds weights that are NaN or infinite: adapt another checkpoint.", file=name)
    return model


def _check_texts(folder: Path, earlier: dict[str, Any], texts: Sequence[str]) -> str:
    """Return the digest of the texts, which must be those of the run that the output folder holds."""
    digest = sha256(b"".join(map(text_key, texts))).hexdigest()
    if earlier.get("texts_sha256", digest) != digest:
        raise InputError(
            f"--output_dir {folder} holds a run on other texts: a file has changed since. Name a new folder.",
            field="output_dir",
            file=str(folder),
        )
    return digest


def _read_texts(files: Sequence[str | Path], options: AdaptOptions) -> tuple[list[str], dict[str, int]]:
    """Return the distinct usable texts, and how many were left out why."""
    excluded = {text_key(text) for text in _texts_of(options.exclude, options, "--exclude") if text}
    counts = {"texts": 0, "excluded": 0, "repeated": 0, "empty": 0}
    seen: set[bytes] = set()
    texts = []
    for text in _texts_of(files, options, "TEXTS"):
        key = text_key(text) if text and text.strip() else None
        kind = "empty" if key is None else "excluded" if key in excluded else "repeated" if key in seen else "texts"
        counts[kind] += 1
        if key is not None and kind == "texts":
            texts.append(text)
            seen.add(key)
    if not texts:
        raise InputError(
            f"No text is left to train on: in --exclude {counts['excluded']:,}, empty {counts['empty']:,}.",
            field="files",
        )
    return texts, counts


def _texts_of(files: Iterable[str | Path], options: AdaptOptions, option: str) -> Iterator[Any]:
    column = options.text_column
    for file in files:
        table = open_table(file)
        names = table.schema.names  # none of JSON, whose rows say which there are
        if names:
            _check_column(column, names, table.name, option)
        found: dict[str, None] = {}  # of JSON: a row may lack what others have
        for chunk in table.chunks([column] if names else None):
            found |= dict.fromkeys(chunk.names)
            for at, text in enumerate(chunk.values(column)):
                if at in chunk.bad:
                    raise InputError(
                        f"{table.name}, row {chunk.first + at + 1}: {chunk.bad[at]}.",
                        file=table.name,
                        row=chunk.first + at + 1,
                    )
                if text is not None and not isinstance(text, str):
                    raise InputError(
                        f"{table.name}: column {column!r} holds {text!r}, which is not text.",
                        field=column,
                        file=table.name,
                    )
                if text is not None and not is_decoded(text):
                    raise InputError(
                        f"{table.name}, row {chunk.first + at + 1}: {not_text(UTF_8)}.",
                        file=table.name,
                        row=chunk.first + at + 1,
                    )
                yield clean_html(text) if text and options.clean_html else text
        if not names:
            _check_column(column, list(found), table.name, option)


def _check_column(column: str, names: Sequence[str], file: str, option: str) -> None:
    if column not in names:
        raise unknown_name(f"--text_column in {file} ({option})", column, names, field="text_column", file=file)
    if "label" in names and option == "TEXTS":
        say(f"{file}: only the texts are read; the labels are ignored.")


def _wrapping(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the ids that the tokenizer puts before and after a text."""
    content = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    first = next(place for place in range(len(whole)) if whole[place : place + len(content)] == content)
    return whole[:first], whole[first + len(content) :]


def _tokenise(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[Document]:
    texts = iter(texts)
    while some := list(itertools.islice(texts, TEXTS_AT_ONCE)):
        encoded = tokenizer(some, add_special_tokens=False, truncation=False, verbose=False)
        for row, ids in enumerate(encoded["input_ids"]):
            words = encoded.word_ids(row) if tokenizer.is_fast else list(range(len(ids)))
            begins = [index == 0 or word != words[index - 1] for index, word in enumerate(words)]
            yield Document(np.asarray(ids, dtype=np.int32), np.asarray(begins, dtype=bool))


# Training


def _trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    windows: dict[str, TextWindows],
    folder: Path,
    options: AdaptOptions,
    whole_words: bool,
) -> ResumingTrainer:
    args = RobertaGRUTrainingArguments(
        output_dir=str(folder / CHECKPOINTS),
        num_train_epochs=options.epochs,
        learning_rate=options.learning_rate,
        warmup_steps=0.06,
        lr_scheduler_type="linear",
        weight_decay=0.01,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=options.batch_size,
        train_sampling_strategy="group_by_length",
        eval_strategy="steps",
        eval_steps=options.save_steps,
        save_strategy="steps",
        save_steps=options.save_steps,
        load_best_model_at_end=False,
        save_total_limit=1,
        logging_steps=max(1, options.save_steps // 10),
        report_to="none",
        prediction_loss_only=True,
        remove_unused_columns=False,
        label_names=["labels"],
        seed=options.seed,
        bf16_if_available=True,
    )
    if options.dropout is not None:
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = options.dropout
    if args.device.type == "cpu":
        use_cpu_dropout(model)
        if model.config.attention_probs_dropout_prob if options.dropout is None else options.dropout:
            say(f"{SLOW_ATTENTION}: --dropout 0.")
    model.forward = partial(masked_loss, model)
    validation = windows["validation"]
    # What is hidden of the validation texts is the same at every evaluation.
    masking = Masking(tokenizer, whole_words, options.seed)
    hidden = [_hide_some(masking, validation[row]) for row in range(len(validation))]
    num_hidden = sum(int((row["labels"] != -100).sum()) for row in hidden) / len(hidden)
    trainer = _Trainer(
        model,
        args,
        data_collator=partial(_collate, masking, tokenizer.pad_token_id, num_hidden),
        train_dataset=windows["train"],
        eval_dataset=hidden,
    )
    trainer.train_collator = masking
    return trainer


def _history(trainer: ResumingTrainer) -> list[dict[str, float]]:
    """Return the validation loss at each step that it was measured at: no times, so the same after a resume."""
    losses = {row["step"]: row for row in trainer.state.log_history if "eval_loss" in row}  # the last one comes twice
    return [{name: row[name] for name in ("step", "epoch", "eval_loss")} for row in losses.values()]


class _Trainer(ResumingTrainer):
    """The Trainer, with windows of like length in a batch, in an order that a resumed run shares."""

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochSampler:
        sampler = GroupedSampler(self.train_dataset.lengths, effective_batch_size(self.args))
        self.train_sampler = EpochSampler(sampler, self.args.seed)
        return self.train_sampler

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: PreTrainedModel | None = None) -> None:
        with quiet():  # the decoder is the embeddings' own matrix, and is not written twice
            super()._load_from_checkpoint(resume_from_checkpoint, model)


def _hide_some(masking: Masking, window: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Hide words of a window, at least one: a batch without any has no loss."""
    for epoch in range(1000):
        masking.set_epoch(epoch)
        masked = masking([window])
        if (masked["labels"] != -100).any():
            break
    masking.set_epoch(0)
    return {name: values[0] for name, values in masked.items()}


def _collate(
    masking: Masking, padding: int, num_hidden: float, windows: Sequence[dict[str, Any]]
) -> dict[str, torch.Tensor]:
    """Hide words of training windows; only pad validation windows, whose words are hidden already.

    The Trainer averages a validation loss over windows: so that it is a mean over all hidden tokens, a batch's sum is
    divided by `num_hidden`, the mean number of a window, for each of them.
    """
    if "labels" not in windows[0]:
        return masking(windows)
    fill = {"input_ids": padding, "attention_mask": 0, "labels": -100}
    batch = {
        name: pad_sequence([window[name] for window in windows], batch_first=True, padding_value=value)
        for name, value in fill.items()
    }
    return {**batch, "divisor": torch.tensor(num_hidden * len(windows))}
