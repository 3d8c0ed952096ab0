"""Compare heads on one frozen encoder, for docs/results.md: what order, length and the GRU itself are worth.

The encoder's states of every document are computed once, in windows as RoBERTa-GRU's, and kept in a folder outside the
repository (float16, memory-mapped). Every head is then trained on them in cross-validation: each of the authors'
folds is tested once, by a head trained on the others; the heads of all folds are trained at once. Nothing is chosen by
a fold's test rows: all heads are trained alike (HYPERPARAMETERS), for a fixed number of epochs or, where a task names
several, for the number that does best on the fold after the tested one, when that is left out of training.

    python benchmarks/heads.py encode movies-polarity runs/imdb/model ../states/polarity
    python benchmarks/heads.py train movies-polarity ../states/polarity attention gru-attention --seed 0 --seed 1

`train` keeps what was predicted in the folder of states, so that the same command goes on after the last system and
seed that was done; the metrics of all of them go to benchmarks/results/heads/TASK.json. `compare` prints the table of
docs/results.md.
"""

import itertools
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import measuring
import numpy as np
import pandas as pd
import torch
import typer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from torch import nn
from transformers import AutoTokenizer, RobertaModel, set_seed

from modeling_roberta_gru import RobertaGRUConfig, RobertaGRUForSequenceClassification
from modeling_roberta_gru.data.documents import clean_html
from modeling_roberta_gru.modeling_roberta_gru import Windows
from modeling_roberta_gru.training.arguments import has_bfloat16
from modeling_roberta_gru.training.bag_of_words import INVERSE_REGULARISATION, BagOfWords
from modeling_roberta_gru.training.loading import quiet
from modeling_roberta_gru.training.optimizers import NAdam
from modeling_roberta_gru.training.record import describe_platform

RESULTS = measuring.RESULTS / "heads"
DATA = measuring.SHARED / "data"

# Chosen on 1,849 reviews of IMDb's training split, of more than 512 tokens, that the encoder had not been trained on:
# in 6 epochs a GRU of 128 learns them by heart.
HYPERPARAMETERS: dict[str, Any] = {
    "learning_rate": 1e-3,  # rises over 5 % of the steps, falls to zero
    "weight_decay": 0.01,
    "batch_size": 32,  # and smaller where documents are few, for as many steps
    "fewest_steps": 180,
    "epochs": 3,
    "state_dropout": 0.2,  # of the encoder's states, as they are read
    "averaged_share": 0.3,  # of the steps: the weights tested are the mean of those after each of the last ones
    "gru_hidden_size": 64,
    "head_hidden_size": 256,
    "head_dropout": 0.1,
}

MOST_STATES = 2**18  # padding included, that heads are trained on at once: a batch of longer documents is split


class Task(NamedTuple):
    """A data set in folds.

    Attributes:
        table: its file, or what reads its rows from the folder of the data sets.
        kind: "classes" (one label a text), "labels" (several) or "value" (a number).
        columns: of the target.
        fold_column: of the folds.
        num_folds: folds are counted modulo this.
        is_ranked: whether classes are ranks, so that a class beside the right one is a smaller error.
        epochs: how many to choose from, fold by fold; none: as many as all heads are trained for.
        gru_chooses: whether heads with a GRU choose, too, or are trained for as many as all heads are elsewhere.
    """

    table: str | Callable[[Path], pd.DataFrame]
    kind: str
    columns: tuple[str, ...] = ("label",)
    fold_column: str = "fold"
    num_folds: int = 10
    is_ranked: bool = False
    epochs: tuple[int, ...] = ()
    gru_chooses: bool = True


def movies_by_author(data: Path) -> pd.DataFrame:
    """Read the films' reviews with marks; a fold is an author."""
    movies = pd.read_parquet(data / "movies-scale" / "train.parquet")
    return movies.assign(fold=pd.factorize(movies["author"])[0])


def long_imdb(data: Path) -> pd.DataFrame:
    """Read IMDb's reviews of more than 512 tokens: the test split is fold 0, training reviews 1 to 9, by movie."""
    test, train = (pd.read_parquet(data / "imdb" / f"{split}.parquet") for split in ("test", "train"))
    movies = pd.read_parquet(data / "imdb-meta" / "train_meta.parquet")["movie"]
    rows = pd.concat([test.assign(fold=0), train.assign(fold=1 + pd.factorize(movies)[0] % 9)])
    rows["text"] = rows["text"].map(clean_html)  # as the recipe has it
    tokenizer = AutoTokenizer.from_pretrained(measuring.SHARED / "encoders" / "minilm-l6-roberta")
    return rows[[len(ids) > 512 for ids in tokenizer(rows["text"].tolist(), verbose=False)["input_ids"]]]


TASKS = {
    "movies-polarity": Task("movies-polarity/train.parquet", "classes"),
    "movies-scale": Task("movies-scale/train.parquet", "classes", num_folds=5, is_ranked=True),
    # Three epochs suit the GRU: would the others come closer with more?
    "movies-scale-epochs": Task(
        "movies-scale/train.parquet", "classes", num_folds=5, is_ranked=True, epochs=(3, 6, 12), gru_chooses=False
    ),
    "movies-authors": Task(movies_by_author, "classes", num_folds=4, is_ranked=True),
    "movies-rating": Task("movies-scale/train.parquet", "value", ("rating",), num_folds=5),
    "imdb-long": Task(long_imdb, "classes"),
    "contracts": Task("contracts/train.parquet", "labels", (), num_folds=5, epochs=(6, 12, 24)),
    "contracts-cap": Task("contracts/train.parquet", "classes", num_folds=5),  # is liability capped?
    "hyperpartisan": Task("hyperpartisan/train.parquet", "classes", fold_column="group_fold"),
}
FEWEST_POSITIVES = 30  # of a clause in `contracts` that is a label


class System(NamedTuple):
    """A way of classifying a document by the encoder's states.

    Attributes:
        name: in tables.
        summary: of the states, or of the GRU's; None: there is no encoder (a bag of words).
        directions: of the GRU; 0: there is none.
        view: of the document: whole, first or last (window), head_tail (first and last 256 tokens), or windows.
        vote: what becomes of the windows' logits, "mean" or "max".
        horizons: of the attentions, in tokens.
        skip: whether the head sees the encoder's states beside the GRU's.
    """

    name: str
    summary: str | None
    directions: int = 0
    view: str = "whole"
    vote: str | None = None
    horizons: tuple[int, ...] = (0,)
    skip: bool = False

    @property
    def is_ordered(self) -> bool:
        """Whether the order of windows can matter."""
        return self.view == "whole" and (self.directions > 0 or self.horizons != (0,))


HORIZONS = (0, 1024, 512, 256)  # as `train` takes them on a pretrained encoder
OURS = "gru"

SYSTEMS = {
    "bag-of-words": System("TF-IDF and logistic regression", None),
    "first": System("first 512 tokens", "mean", view="first"),
    "last": System("last 512 tokens", "mean", view="last"),
    "head_tail": System("first and last 256 tokens", "mean", view="head_tail"),
    "vote-mean": System("mean of window logits", "mean", view="windows", vote="mean"),
    "vote-max": System("largest window logits", "mean", view="windows", vote="max"),
    "mean": System("mean of all states", "mean"),
    "attention": System("attention over all states, no GRU", "attention"),
    "horizons": System("four attentions with horizons, no GRU", "attention", horizons=HORIZONS),
    "gru-vote-mean": System("RoBERTa-GRU on each window, mean of logits", "attention", 1, "windows", "mean"),
    **{
        f"{kind}-{summary}": System(f"RoBERTa-GRU{ways}, `{summary}`", summary, directions)
        for kind, ways, directions in (("gru", "", 1), ("bigru", " both ways", 2))
        for summary in ("last", "mean", "max", "attention")
    },
    **{
        f"{kind}-horizons": System(
            f"RoBERTa-GRU{ways}, four attentions with horizons", "attention", directions, horizons=HORIZONS
        )
        for kind, ways, directions in (("gru", "", 1), ("bigru", " both ways", 2))
    },
    "gru-skip-attention": System("RoBERTa-GRU, `attention`, skip connection", "attention", 1, skip=True),
    OURS: System(
        "**RoBERTa-GRU, `train`'s summary**: four attentions with horizons, skip connection",
        "attention",
        1,
        horizons=HORIZONS,
        skip=True,
    ),
}


class Documents(NamedTuple):
    """A task's rows."""

    texts: list[str]
    targets: np.ndarray  # (n,) int64 classes, (n, C) float32 labels, or (n, 1) float32 values
    folds: np.ndarray  # (n,)

    @property
    def num_outputs(self) -> int:
        return int(self.targets.max()) + 1 if self.targets.ndim == 1 else self.targets.shape[1]


def load(task: Task, data: Path) -> Documents:
    """Read a task's rows; of repeated texts, the first one."""
    table = task.table(data) if callable(task.table) else pd.read_parquet(data / task.table)
    table = table.drop_duplicates("text").reset_index(drop=True)
    columns = list(task.columns) or [
        name
        for name in table.select_dtypes("number").columns
        if name != task.fold_column and table[name].sum() >= FEWEST_POSITIVES
    ]
    is_class = task.kind == "classes"
    targets = np.array(table[columns[0] if is_class else columns], dtype=np.int64 if is_class else np.float32)
    return Documents(table["text"].tolist(), targets, table[task.fold_column].to_numpy() % task.num_folds)


# The encoder's states


class States:
    """The frozen encoder's states of documents, from a folder that `encode` wrote.

    Args:
        folder: of the files.
        every: only every so many tokens are read, counted from a document's or window's last one.
    """

    def __init__(self, folder: Path, every: int):
        self.record = json.loads((folder / "encoded.json").read_text(encoding="utf-8"))
        raw = np.load(folder / "states.npy", mmap_mode="r")  # (N, D), window after window
        index = dict(np.load(folder / "index.npz"))  # each array once: by name, the file reads it anew
        documents, windows = index["documents"], index["windows"]  # where each begins, and the last one ends
        self.tokens = [index["kept"][begin:end][::-1][::every][::-1] for begin, end in itertools.pairwise(documents)]
        self.windows = [
            [
                np.arange(windows[w + 1] - 1, windows[w] - 1, -every)[::-1]
                for w in np.flatnonzero(index["owners"] == row)
            ]
            for row in range(len(documents) - 1)
        ]
        self.begins = windows[:-1]
        self.raw, self.every, self.width = raw, every, raw.shape[1]

    def sequences(self, row: int, view: str, shuffled_by: np.random.Generator | None = None) -> list[np.ndarray]:
        """Return which states of a document are read, in order: one sequence, or one a window."""
        if view == "windows":
            return self.windows[row]
        if view in ("first", "last"):
            return [self.windows[row][0 if view == "first" else -1]]
        tokens = self.tokens[row]
        if shuffled_by is not None:
            window = np.searchsorted(self.begins, tokens, side="right")
            order = shuffled_by.permutation(np.unique(window))
            tokens = np.concatenate([tokens[window == number] for number in order])
        return [tokens]

    def batch(self, rows: Sequence[int], view: str, shuffled_by: np.random.Generator | None = None) -> "Batch":
        """Gather documents' states, padded on the right."""
        parts = [(owner, part) for owner, row in enumerate(rows) for part in self.sequences(row, view, shuffled_by)]
        lengths = torch.tensor([len(part) for _, part in parts])
        states = torch.zeros(len(parts), int(lengths.max()), self.width)
        for number, (_, part) in enumerate(parts):
            states[number, : len(part)] = torch.from_numpy(np.array(self.raw[part], dtype=np.float32))
        return Batch(states, lengths, torch.tensor([owner for owner, _ in parts]), len(rows))


class Batch(NamedTuple):
    """Sequences of states, one or several of each document."""

    states: torch.Tensor  # (R, S, D)
    lengths: torch.Tensor  # (R,)
    owners: torch.Tensor  # (R,) which document each belongs to
    num_documents: int

    @property
    def mask(self) -> torch.Tensor:
        return torch.arange(self.states.shape[1]) < self.lengths[:, None]


def cut_head_and_tail(ids: list[int], size: int) -> list[int]:
    """Return the first and last halves of what fits the encoder's window."""
    return ids if len(ids) <= size else [*ids[: size // 2], *ids[-(size - size // 2) :]]


def encode_texts(texts: Sequence[str], encoder: str, folder: Path, view: str, batch_size: int = 16) -> dict[str, Any]:
    """Write the states of every window of every text, in float16, with where they belong."""
    with quiet():
        config = RobertaGRUConfig.from_pretrained(encoder)
        model = RobertaModel.from_pretrained(encoder, dtype=torch.float32, add_pooling_layer=False).eval()
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    ids = [tokenizer(text, verbose=False)["input_ids"] for text in texts]
    if view == "head_tail":
        ids = [cut_head_and_tail(row, config.encoder_window) for row in ids]
    documents, kept, owners, windows = [0], [], [], [0]
    jobs: list[tuple[int, np.ndarray]] = []  # where a window's states go, and its ids
    for row, tokens in enumerate(ids):
        plan = Windows(torch.tensor([len(tokens)]), config)
        cut = plan.cut(0, int(plan.counts[0]), torch.device("cpu"))
        kept.append(windows[-1] + cut.kept[0].numpy())
        documents.append(documents[-1] + len(tokens))
        for positions in cut.positions.numpy():
            jobs.append((windows[-1], np.asarray(tokens)[positions]))
            owners.append(row)
            windows.append(windows[-1] + len(positions))
    shutil.rmtree(folder / "predicted", ignore_errors=True)  # by heads on the states that were here
    folder.mkdir(parents=True, exist_ok=True)
    states = np.lib.format.open_memmap(
        folder / "states.npy", mode="w+", dtype=np.float16, shape=(windows[-1], config.hidden_size)
    )
    jobs.sort(key=lambda job: len(job[1]))
    started = time.time()
    is_fast = has_bfloat16(on_cpu=True)
    for first in range(0, len(jobs), batch_size):
        some = jobs[first : first + batch_size]
        lengths = torch.tensor([len(tokens) for _, tokens in some])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        batch = torch.full(mask.shape, config.pad_token_id)
        batch[mask] = torch.from_numpy(np.concatenate([tokens for _, tokens in some]))
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=is_fast):
            encoded = model(batch, attention_mask=mask.long()).last_hidden_state.half().numpy()
        for (place, tokens), values in zip(some, encoded, strict=True):
            states[place : place + len(tokens)] = values[: len(tokens)]
    states.flush()
    np.savez(
        folder / "index.npz",
        documents=np.array(documents),
        kept=np.concatenate(kept),
        owners=np.array(owners),
        windows=np.array(windows),
    )
    record = {
        "encoder": encoder,
        "view": view,
        "documents": len(ids),
        "tokens": documents[-1],
        "window": config.encoder_window,
        "window_stride": config.window_stride,
        "dtype": "bf16" if is_fast else "fp32",
        "seconds": round(time.time() - started, 1),
    }
    measuring.write_record(folder / "encoded.json", record)
    return record


# The heads


class Head(nn.Module):
    """RoBERTa-GRU from its encoder's states on, or the same without a GRU."""

    def __init__(self, system: System, states: States, num_outputs: int):
        super().__init__()
        given, width, window = HYPERPARAMETERS, states.width, states.record["window"]
        config = RobertaGRUConfig(
            hidden_size=width,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=1,
            vocab_size=8,
            max_position_embeddings=window + 2,
            window_overlap=window - 2 - states.record["window_stride"],
            gru_hidden_size=given["gru_hidden_size"] if system.directions else width,
            gru_bidirectional=system.directions == 2,
            skip_connection=system.skip,
            summary=system.summary,
            attention_horizons=[tokens // states.every for tokens in system.horizons],
            head_hidden_size=given["head_hidden_size"],
            head_dropout=given["head_dropout"],
            num_labels=num_outputs,
        )
        # The model's own parts, as it initialises them; its encoder is none.
        model = RobertaGRUForSequenceClassification(config)
        self.config, self.vote = config, system.vote
        self.gru = model.gru if system.directions else None
        self.summary, self.head = model.summary, model.head

    def forward(self, batch: Batch, is_mapped: bool = False) -> torch.Tensor:
        """Return logits (documents, C); with `is_mapped`, in operations that `torch.func.vmap` knows."""
        states = batch.states
        if self.gru is not None:
            states = _read(self.gru, states, batch.lengths) if is_mapped else self.gru(states, batch.lengths)[0]
        first, ends = torch.zeros_like(batch.lengths), torch.ones_like(batch.lengths, dtype=torch.bool)
        logits = self.head(self.summary(states, batch.mask, first, ends).value)
        if self.vote is None:
            return logits
        owned = batch.owners == torch.arange(batch.num_documents)[:, None]  # (documents, R)
        if self.vote == "mean":
            return owned.to(logits.dtype) @ logits / owned.sum(dim=1, keepdim=True)
        return logits.masked_fill(~owned[..., None], float("-inf")).amax(dim=1)


def _read(recurrence: nn.Module, states: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Read states (R, S, D) as the model's one layer of GRU does, step by step."""
    columns = torch.arange(states.shape[1])
    reversal = torch.where(columns < lengths[:, None], lengths[:, None] - 1 - columns, columns)[..., None]
    found = [_steps(gru, states) for gru in recurrence.left_to_right]
    for gru in recurrence.right_to_left:
        mirrored = _steps(gru, states.gather(1, reversal.expand_as(states)))
        found.append(mirrored.gather(1, reversal.expand_as(mirrored)))
    return torch.cat([*found, states] if recurrence.has_skip_connection else found, dim=-1)


def _steps(gru: Any, states: torch.Tensor) -> torch.Tensor:
    inputs = nn.functional.linear(states, gru.weight_ih_l0, gru.bias_ih_l0)
    sizes = [2 * gru.hidden_size, gru.hidden_size]
    state, found = inputs.new_zeros(len(states), gru.hidden_size), []
    for to_gates, to_new in zip(*(part.unbind(1) for part in inputs.split(sizes, dim=-1)), strict=True):
        gates, new = nn.functional.linear(state, gru.weight_hh_l0, gru.bias_hh_l0).split(sizes, dim=-1)
        reset, update = (gates + to_gates).sigmoid().chunk(2, dim=-1)
        state = torch.lerp(torch.tanh(to_new + reset * new), state, update)
        found.append(state)
    return torch.stack(found, dim=1)


def fit(
    system: System,
    states: States,
    targets: np.ndarray,
    trained_on: np.ndarray,
    num_outputs: int,
    seed: int,
    epochs: int | None = None,
) -> list[Head]:
    """Train several heads at once, each on some of the documents.

    All see the same batches, and each one's loss leaves out the documents that are not its own.

    Args:
        trained_on: (heads, n) bool, which documents each is trained on.
        epochs: unset: [`HYPERPARAMETERS`]'.
    """
    given = HYPERPARAMETERS
    trained: list[Head] = []
    for _ in trained_on:
        set_seed(seed)
        trained.append(Head(system, states, num_outputs).train())
    stacked, _ = torch.func.stack_module_state(trained)  # each (heads, …)
    decays = {True: given["weight_decay"], False: 0.0}
    groups = [
        {"params": [value for value in stacked.values() if (value.ndim > 2) == is_matrix], "weight_decay": decay}
        for is_matrix, decay in decays.items()
    ]
    optimizer = NAdam(groups, lr=given["learning_rate"])
    rows = np.flatnonzero(trained_on.any(axis=0))
    batches = list(_batches(states, system, rows, np.random.default_rng(seed), epochs or given["epochs"]))
    warmup = max(1, round(0.05 * len(batches)))
    wanted, counted = torch.from_numpy(targets), torch.from_numpy(trained_on)
    balance = torch.from_numpy(np.stack([_balance(targets[own]) for own in trained_on]))
    averaged: dict[str, torch.Tensor] = {}
    first_averaged = len(batches) - max(1, round(len(batches) * given["averaged_share"]))

    def loss(
        weights: dict[str, torch.Tensor], batch: Batch, wanted: torch.Tensor, own: torch.Tensor, balance: torch.Tensor
    ) -> torch.Tensor:
        logits = torch.func.functional_call(trained[0], weights, (batch, True))
        return (_losses(logits, wanted, balance) * own).sum()

    mapped = torch.func.vmap(loss, in_dims=(0, None, None, 0, 0), randomness="different")
    for step, some in enumerate(batches):
        rate = min((step + 1) / warmup, (len(batches) - step) / (len(batches) - warmup))
        for group in optimizer.param_groups:
            group["lr"] = given["learning_rate"] * rate
        num_counted = counted[:, some].sum(dim=1).clamp(min=1)
        for part in _parts(states, system, some):
            batch = states.batch(part, system.view)
            batch = batch._replace(states=nn.functional.dropout(batch.states, given["state_dropout"]))
            found = mapped(stacked, batch, wanted[part], counted[:, part], balance)
            (found / num_counted).sum().backward()
        norms = torch.stack([value.grad.flatten(1).norm(dim=1) for value in stacked.values()]).norm(dim=0)
        for value in stacked.values():
            value.grad *= (1 / (norms + 1e-6)).clamp(max=1).view(-1, *[1] * (value.ndim - 1))
        optimizer.step()
        optimizer.zero_grad()
        if step >= first_averaged:
            for name, value in stacked.items():
                mean = averaged.setdefault(name, value.detach().clone())
                mean += (value.detach() - mean) / (step - first_averaged + 1)
    for number, head in enumerate(trained):
        head.load_state_dict({name: value[number] for name, value in averaged.items()})
    return [head.eval() for head in trained]


def loss_of(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean loss: cross-entropy of classes, of labels one by one, or the square of a value's error."""
    return _losses(logits, targets).mean()


def _balance(targets: np.ndarray) -> np.ndarray:
    """Return how often each label (C,) is missing for once that it is there; 1 for other targets."""
    if targets.ndim == 1 or targets.shape[1] == 1:
        return np.ones(1, np.float32)
    there = targets.sum(axis=0)
    return (len(targets) - there) / np.maximum(1, there)


def _losses(logits: torch.Tensor, targets: torch.Tensor, balance: torch.Tensor | None = None) -> torch.Tensor:
    """Return each document's loss (n,), where a label that is there weighs `balance` times."""
    if targets.ndim == 1:
        return nn.functional.cross_entropy(logits, targets, reduction="none")
    if targets.shape[1] == 1:
        return nn.functional.mse_loss(logits, targets, reduction="none")[:, 0]
    return nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none", pos_weight=balance).mean(
        dim=1
    )


def _batches(
    states: States, system: System, rows: np.ndarray, rng: np.random.Generator, epochs: int
) -> Iterator[np.ndarray]:
    """Yield every epoch's batches of documents of like length, in random order."""
    given = HYPERPARAMETERS
    size = min(given["batch_size"], max(1, given["epochs"] * len(rows) // given["fewest_steps"]))
    for _ in range(epochs):
        order = rng.permutation(rows)
        batches: list[np.ndarray] = []
        for first in range(0, len(order), size * 10):
            some = order[first : first + size * 10]
            some = some[np.argsort([_length(states, row, system.view) for row in some], kind="stable")]
            batches += [some[begin : begin + size] for begin in range(0, len(some), size)]
        for index in rng.permutation(len(batches)):
            yield batches[index]


def _parts(states: States, system: System, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Yield a batch's documents, in order, as many at a time as [`MOST_STATES`] allows."""
    longest = np.array([max(map(len, states.sequences(row, system.view))) for row in rows])
    first = 0
    for end in range(1, len(rows) + 1):
        if end == len(rows) or (end + 1 - first) * longest[first : end + 1].max() > MOST_STATES:
            yield rows[first:end]
            first = end


def _length(states: States, row: int, view: str) -> int:
    return sum(len(part) for part in states.sequences(row, view))


@torch.no_grad()
def predict(
    head: Head, states: States, rows: np.ndarray, view: str, shuffled_by: np.random.Generator | None = None
) -> np.ndarray:
    """Return the logits (n, C) of documents."""
    order = np.argsort([_length(states, row, view) for row in rows], kind="stable")
    size = HYPERPARAMETERS["batch_size"]
    logits = [head(states.batch(rows[order[n : n + size]], view, shuffled_by)) for n in range(0, len(order), size)]
    return torch.cat(logits).numpy()[order.argsort()]


def predict_by_words(known: list[str], targets: np.ndarray, asked: list[str]) -> np.ndarray:
    """Return logits by TF-IDF and logistic regression, a label at a time; of a value, by ridge regression."""
    if targets.ndim == 1:
        return BagOfWords().fit(known, targets).predict_logits(asked)
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2).fit(known)
    if targets.shape[1] == 1:
        return Ridge().fit(words.transform(known), targets).predict(words.transform(asked)).reshape(-1, 1)
    model = LogisticRegression(C=INVERSE_REGULARISATION, max_iter=1000, class_weight="balanced")
    labels = OneVsRestClassifier(model)
    return labels.fit(words.transform(known), targets).decision_function(words.transform(asked))


# Commands

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
TaskName = Annotated[str, typer.Argument(metavar="TASK", help=", ".join(TASKS))]
Folder = Annotated[Path, typer.Argument(metavar="STATES", help="The folder of states, outside the repository.")]
DataFolder = Annotated[Path, typer.Option(help="The folder of the data sets.")]


@app.command()
def encode(
    task: TaskName,
    encoder: Annotated[str, typer.Argument(help="A saved encoder or RoBERTa-GRU, with its tokenizer.")],
    folder: Folder,
    data: DataFolder = DATA,
    head_tail: Annotated[bool, typer.Option(help="Of each text the first and last halves of a window.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="Threads.")] = 1,
) -> None:
    """Compute the states of a task's documents once."""
    torch.set_num_threads(threads)
    record = encode_texts(load(TASKS[task], data).texts, encoder, folder, "head_tail" if head_tail else "whole")
    print(f"{record['tokens']:,} tokens of {record['documents']:,} documents in {record['seconds']:,.0f} s: {folder}")


@app.command()
def train(
    task: TaskName,
    folder: Folder,
    systems: Annotated[list[str], typer.Argument(metavar="SYSTEM...", help=", ".join(SYSTEMS))],
    seed: Annotated[list[int] | None, typer.Option(help="Seed; again for more. Unset: 0.")] = None,
    every: Annotated[int, typer.Option(min=1, help="Read every so many tokens only.")] = 2,
    data: DataFolder = DATA,
    output: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
    threads: Annotated[int, typer.Option(min=1, help="Threads.")] = 1,
) -> None:
    """Train and test heads in cross-validation, and record all that the folder of states holds of the task."""
    torch.set_num_threads(threads)
    documents = load(TASKS[task], data)
    for number in seed or [0]:
        for name in systems:
            _cross_validated(task, name, number, every, documents, folder)
    measuring.write_record(output / f"{task}.json", _record(task, every, documents, folder))


def _cross_validated(task: str, name: str, seed: int, every: int, documents: Documents, folder: Path) -> None:
    """Predict every fold by a head trained on the others, unless that is done already."""
    system, epochs = SYSTEMS[name], []
    place = _predicted(task, name, every, folder) / f"{seed}.npz"
    if place.is_file():
        return
    started = time.process_time()
    in_fold = documents.folds == np.unique(documents.folds)[:, None]  # (folds, n)
    logits, shuffled = (np.empty((len(documents.texts), documents.num_outputs), np.float32) for _ in range(2))
    if system.summary is None:
        for test in in_fold:
            known, asked = ([documents.texts[row] for row in np.flatnonzero(rows)] for rows in (~test, test))
            logits[test] = shuffled[test] = predict_by_words(known, documents.targets[~test], asked)
    else:
        states = _states(folder, every, system.view)
        choices = TASKS[task].epochs if TASKS[task].gru_chooses or not system.directions else ()
        epochs = _epochs(choices, system, states, documents, in_fold, seed)
        for head, test in zip(_fitted(system, states, documents, ~in_fold, seed, epochs), in_fold, strict=True):
            rows = np.flatnonzero(test)
            logits[rows] = shuffled[rows] = predict(head, states, rows, system.view)
            if system.is_ordered:
                shuffled[rows] = predict(head, states, rows, system.view, np.random.default_rng(seed))
    seconds = time.process_time() - started
    place.parent.mkdir(parents=True, exist_ok=True)
    commit = describe_platform()["commit"]
    np.savez(place, logits=logits, shuffled=shuffled, seconds=seconds, commit=commit, epochs=epochs)
    loss = float(loss_of(torch.tensor(logits), torch.from_numpy(documents.targets)))
    print(f"{task} {name} seed {seed}: loss {loss:.4f}, {seconds:.0f} s", flush=True)


def _epochs(
    choices: Sequence[int], system: System, states: States, documents: Documents, in_fold: np.ndarray, seed: int
) -> list[int]:
    """Return for each fold the number of epochs whose loss on the next fold is least, when both are left out."""
    choices = choices or [HYPERPARAMETERS["epochs"]]
    if len(choices) == 1:
        return [choices[0]] * len(in_fold)
    chosen_on = np.roll(in_fold, -1, axis=0)
    trained_on = ~(in_fold | chosen_on)
    losses = []
    for epochs in choices:
        fitted = fit(system, states, documents.targets, trained_on, documents.num_outputs, seed, epochs)
        for head, known, asked in zip(fitted, trained_on, chosen_on, strict=True):
            rows = np.flatnonzero(asked)
            logits, targets = torch.from_numpy(predict(head, states, rows, system.view)), documents.targets
            balance = torch.from_numpy(_balance(targets[known]))
            losses.append(_losses(logits, torch.from_numpy(targets[rows]), balance).mean())
    best = torch.stack(losses).view(len(choices), -1).argmin(dim=0)
    return [choices[number] for number in best]


def _fitted(
    system: System, states: States, documents: Documents, trained_on: np.ndarray, seed: int, epochs: Sequence[int]
) -> list[Head]:
    """Train several heads, each for its own number of epochs."""
    found: dict[int, Head] = {}
    for number in set(epochs):
        some = np.flatnonzero(np.equal(epochs, number))
        fitted = fit(system, states, documents.targets, trained_on[some], documents.num_outputs, seed, number)
        found |= dict(zip(some, fitted, strict=True))
    return [found[head] for head in range(len(epochs))]


def _predicted(task: str, name: str, every: int, folder: Path) -> Path:
    return folder / "predicted" / f"{task}-every-{every}" / name


_opened: dict[tuple[Path, int], States] = {}


def _states(folder: Path, every: int, view: str) -> States:
    place = folder.with_name(f"{folder.name}-head-tail") if view == "head_tail" else folder
    if (place, every) not in _opened:
        _opened[place, every] = States(place, every)
    return _opened[place, every]


# What is recorded

NUM_RESAMPLES = 1000


class Metric(NamedTuple):
    """A column of the table.

    Attributes:
        name: in the table.
        compute: from predictions (classes, labels' logits or values) and targets; or from each document's loss.
        of_losses: whether it is computed from losses.
        scale: what its values are multiplied by.
        digits: after the point.
    """

    name: str
    compute: Callable[[np.ndarray, np.ndarray], float]
    of_losses: bool = False
    scale: int = 1
    digits: int = 3


def accuracy(predictions: np.ndarray, targets: np.ndarray) -> float:
    return float((predictions == targets).mean())


def quadratic_kappa(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Cohen's kappa with quadratic weights: 1 less the mean squared error beside that of independent draws."""
    apart = predictions.var() + targets.var() + (predictions.mean() - targets.mean()) ** 2
    return float(1 - np.square(predictions - targets).mean() / apart)


def root_mean_squared_error(predictions: np.ndarray, targets: np.ndarray) -> float:
    return float(np.sqrt(np.square(predictions - targets).mean()))


def macro_f1(logits: np.ndarray, targets: np.ndarray) -> float:
    """F1 of each label at a probability of 0.5, averaged."""
    hits = logits > 0
    found = (hits & (targets > 0)).sum(axis=0)
    return float(np.mean(2 * found / np.maximum(1, hits.sum(axis=0) + targets.sum(axis=0))))


def mean_average_precision(logits: np.ndarray, targets: np.ndarray) -> float:
    """Average precision of each label, averaged: the mean precision at each of its documents, best score first."""
    relevant = np.take_along_axis(targets, np.argsort(-logits, axis=0, kind="stable"), axis=0)
    precision = relevant.cumsum(axis=0) / np.arange(1, len(relevant) + 1)[:, None]
    return float(np.mean((precision * relevant).sum(axis=0) / np.maximum(1, relevant.sum(axis=0))))


METRICS = {
    "classes": [
        Metric("accuracy, %", accuracy, scale=100, digits=1),
        Metric("log-loss", lambda losses, _: float(losses.mean()), of_losses=True, digits=4),
    ],
    "labels": [
        Metric("macro-F1, %", macro_f1, scale=100, digits=1),
        Metric("mean average precision, %", mean_average_precision, scale=100, digits=1),
    ],
    "value": [Metric("root mean squared error", root_mean_squared_error)],
}
KAPPA = Metric("quadratic kappa", quadratic_kappa)


def metrics_of(task: Task) -> list[Metric]:
    """Return the metrics of a task."""
    return METRICS[task.kind] + [KAPPA] * task.is_ranked


def _record(task: str, every: int, documents: Documents, folder: Path) -> dict[str, Any]:
    """Return what is recorded of a task: every system's metrics, beside ours, and with its windows shuffled."""
    found = {}
    for name in SYSTEMS:
        parts = sorted(_predicted(task, name, every, folder).glob("*.npz"), key=lambda part: int(part.stem))
        if parts:
            found[name] = {int(part.stem): dict(np.load(part)) for part in parts}
    metrics, targets = metrics_of(TASKS[task]), documents.targets

    def values(name: str, which: str, metric: Metric) -> np.ndarray:
        """Return what a metric is computed from (seeds, n, …)."""
        logits = np.array([part[which] for part in found[name].values()])
        if metric.of_losses:
            rows = torch.from_numpy(targets)
            return np.array([_losses(torch.from_numpy(seed), rows).numpy() for seed in logits])
        return logits.argmax(axis=2) if targets.ndim == 1 else logits

    systems: dict[str, Any] = {}
    for name, seeds in found.items():
        measured: dict[str, Any] = {}
        for metric in metrics:
            own = values(name, "logits", metric)
            figures = {"value": _difference(own, None, targets, metric)}
            if OURS in found and name != OURS:
                figures["less_ours"] = _difference(own, values(OURS, "logits", metric), targets, metric)
            if SYSTEMS[name].is_ordered:
                figures["shuffled"] = _difference(values(name, "shuffled", metric), own, targets, metric)
            measured[metric.name] = figures
        systems[name] = {
            "seeds": list(seeds),
            "seconds": [round(float(part["seconds"]), 1) for part in seeds.values()],
            "epochs": [part["epochs"].tolist() for part in seeds.values()],
            "commits": sorted({str(part["commit"]) for part in seeds.values()}),
            "metrics": measured,
        }
    return {
        "command": f"python benchmarks/heads.py train {task} STATES SYSTEM --every {every}",
        "n": len(targets),
        "every": every,
        "num_resamples": NUM_RESAMPLES,
        "states": json.loads((folder / "encoded.json").read_text(encoding="utf-8")),
        "hyperparameters": HYPERPARAMETERS,
        "systems": systems,
        **describe_platform(),
    }


def _difference(ours: np.ndarray, theirs: np.ndarray | None, targets: np.ndarray, metric: Metric) -> list[float]:
    """Return a metric, or what it is above another's, and its 95 % interval: bootstrap over the rows."""
    rng = np.random.default_rng(0)
    everything = np.arange(len(targets))

    def value(rows: np.ndarray) -> float:
        systems = [ours] if theirs is None else [ours, theirs]
        means = [np.mean([metric.compute(seed[rows], targets[rows]) for seed in seeds]) for seeds in systems]
        return float(means[0] - (means[1] if len(means) > 1 else 0.0))

    low, high = np.percentile(
        [value(rng.choice(everything, len(everything))) for _ in range(NUM_RESAMPLES)], [2.5, 97.5]
    )
    return [float(number) for number in (value(everything), low, high)]


# What docs/results.md says of it


def recorded() -> dict[str, dict[str, Any]]:
    """Return what is recorded, by task in the order of [`TASKS`]."""
    records = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in RESULTS.glob("*.json")}
    return {task: records[task] for task in TASKS if task in records}


def table(task: str, record: dict[str, Any]) -> list[str]:
    """Return the lines of a task's Markdown table: each system, beside ours, and with windows shuffled."""
    metrics = metrics_of(TASKS[task])
    heads = ["system", "seeds"]
    for metric in metrics:
        heads += [metric.name, "minus RoBERTa-GRU", "change when windows are shuffled"]
    rows = []
    for name, measured in record["systems"].items():
        cells = [SYSTEMS[name].name, str(len(measured["seeds"]))]
        for metric in metrics:
            figures = measured["metrics"][metric.name]
            cells += [written(figures.get(kind), metric, kind) for kind in ("value", "less_ours", "shuffled")]
        rows.append(cells)
    return [*measuring.table_of(heads, rows, num_left=len(heads)), "", *_conditions(task, record)]


def written(figures: Sequence[float] | None, metric: Metric, kind: str) -> str:
    """Write a metric, or (any other kind than "value") a difference of it, with its interval; None as nothing."""
    if figures is None:
        return ""
    style = f"{'' if kind == 'value' else '+'}.{metric.digits}f"
    value, low, high = (format(metric.scale * figure, style) for figure in figures)
    return f"{value} ({low} to {high})"


def _conditions(task: str, record: dict[str, Any]) -> list[str]:
    """Return the lines that say how a task's results were measured."""
    systems, states, every = record["systems"].values(), record["states"], record["every"]
    commits, seeds = (sorted({one for system in systems for one in system[name]}) for name in ("commits", "seeds"))
    heads, choices = record["hyperparameters"], TASKS[task].epochs
    chosen = f"- epochs: {', '.join(map(str, choices))}; for each fold, what did best on the next one"
    if not TASKS[task].gru_chooses:
        chosen += f"; with a GRU {heads['epochs']}, as in the other tables"
    return [
        f"- n = {record['n']:,}, each tested once in {TASKS[task].num_folds}-fold cross-validation; in "
        f"brackets: 95 % paired bootstrap over the documents, {record['num_resamples']:,} resamples",
        f"- commands: `python benchmarks/heads.py encode {task} ENCODER STATES`, and `{record['command']}`, seeds "
        f"{', '.join(map(str, seeds))}; commit {', '.join(f'`{commit}`' for commit in commits)}",
        f"- encoder: {name_of(states['encoder'])}, frozen; {states['tokens']:,} tokens in windows of "
        f"{states['window']}, one state of {every} read; {record['hardware']['processor']}",
        f"- heads: of {heads['gru_hidden_size']} where there is a GRU (the default of `train` is 256), state dropout "
        f"{heads['state_dropout']:g}, weights averaged over the last {heads['averaged_share']:.0%} of the steps",
        *[chosen] * bool(choices),
    ]


def name_of(encoder: str) -> str:
    """Return an encoder's last two folders: a run's model is always called "model"."""
    return "/".join(Path(encoder).parts[-2:])


@app.command()
def compare(task: TaskName) -> None:
    """Print the table of what was recorded."""
    if task not in recorded():
        raise typer.BadParameter(f"Nothing is recorded of {task} in {RESULTS}.")
    print("\n".join(table(task, recorded()[task])))


if __name__ == "__main__":
    app()
