"""Stop reading a document once its prediction is certain enough: the thresholds, and the reading itself.

After each window the model says what it would say if the document ended there: exactly the logits of the text so far.
The more certain that running prediction is, the more seldom the rest of the document changes its label. How certain is
enough, is measured on documents that were read to their end.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import beta
from tqdm.auto import tqdm
from transformers import PreTrainedConfig

from ..configuration_roberta_gru import RobertaGRUConfig
from ..data.labels import MULTI_LABEL, REGRESSION, LabelSpace
from ..errors import InputError
from ..modeling_roberta_gru import Part, Windows
from .reading import to_scores

AGREEMENTS = (0.95, 0.975, 0.99, 0.995, 0.999)
CONFIDENCE = 0.95
"""Of the promise that so many labels equal those of the whole documents."""
NUM_THRESHOLDS = 64
LEAST_DOUBT = 1e-6
"""Thresholds that are tried lie between this far below 1 and the certainty of a guess."""


class Step(NamedTuple):
    """What is said of a document after one of its windows.

    Attributes:
        row: which document.
        num_windows, num_tokens: how much of it has been read.
        logits: (C,) float32, calibrated: those of the text so far.
        is_last: whether its reading ends here.
    """

    row: int
    num_windows: int
    num_tokens: int
    logits: np.ndarray
    is_last: bool


class _Document:
    """A document beyond the window that is being read: its tokens, its windows, and what was carried along."""

    def __init__(self, row: int, ids: Sequence[int] | np.ndarray, model: Any):
        config = model.config
        self.row, self.ids = row, torch.as_tensor(np.asarray(ids), dtype=torch.long)
        windows = Windows(torch.tensor([len(self.ids)]), config)
        self.starts, first_kept, after_kept = (
            column.tolist() for column in (windows.start, windows.first_kept, windows.after_kept)
        )
        self.kept = list(zip(first_kept, after_kept, strict=True))
        self.num_windows = 0  # read
        dtype = torch.promote_types(model.dtype, torch.float32)
        nothing = torch.zeros(1, config.summary_size, dtype=dtype, device=model.device)
        self.carried = torch.zeros(config.num_gru_layers, 1, config.gru_hidden_size, dtype=dtype, device=model.device)
        self.summary = model.summary.of_nothing(1, like=nothing)

    def next_window(self, size: int) -> tuple[torch.Tensor, int, int, int]:
        """Return the ids (W,) of the next window, its start, the column of its first token that is new, and of the
        first that a later window would read too: at the end, of `</s>`."""
        start = self.starts[self.num_windows]
        first, after = self.kept[self.num_windows]
        content = self.ids[start + 1 : start + size - 1]
        ids = torch.cat([self.ids[:1], content, self.ids[-1:]])
        is_last = self.num_windows == len(self.starts) - 1
        return ids, start, first - start, size - 1 if is_last else after - start


@torch.inference_mode()
def read_by_windows(
    model: Any,
    documents: Iterable[Sequence[int] | np.ndarray],
    is_certain: Callable[[np.ndarray], np.ndarray] | None = None,
    at_once: int = 1,
) -> Iterator[Step]:
    """Read documents beyond the window, a window of each at a time, and say after each what they seem to be.

    Args:
        model: a RoBERTa-GRU that reads left to right, in evaluation mode; or an engine's.
        documents: token ids, more of each than the encoder's window.
        is_certain: takes logits (R, C) and says which documents (R,) need be read no further; unset: none.
        at_once: windows that are encoded together. Where a document ends or is certain, the next takes its place.
    """
    config = model.config
    waiting = (_Document(row, ids, model) for row, ids in enumerate(documents))
    active: list[_Document] = []
    while active := active + list(islice(waiting, at_once - len(active))):
        logits = _read_window(model, active)
        stops = np.zeros(len(active), dtype=bool) if is_certain is None else is_certain(logits)
        going_on = []
        for document, scores, stop in zip(active, logits, stops, strict=True):
            is_last = bool(stop) or document.num_windows == len(document.starts)
            num_tokens = document.starts[document.num_windows - 1] + config.encoder_window
            yield Step(document.row, document.num_windows, num_tokens, scores, is_last)
            if not is_last:
                going_on.append(document)
        active = going_on


def _read_window(model: Any, documents: Sequence[_Document]) -> np.ndarray:
    """Read the next window of each document; return the logits (R, C) of the texts up to its end."""
    device, size = model.device, model.config.encoder_window
    windows, starts, begins, middles = zip(*(document.next_window(size) for document in documents), strict=True)
    ids = torch.stack(windows).to(device)  # (R, W)
    mask = torch.ones_like(ids, dtype=torch.bool)
    states = model._encode(mask, True, input_ids=ids, token_type_ids=torch.zeros_like(ids)).last_hidden_state
    carried = torch.cat([document.carried for document in documents], dim=1)
    summary = Part(*(torch.cat(fields) for fields in zip(*(document.summary for document in documents), strict=True)))
    # First what only this window reads, for good; then its end, as if it were the document's.
    for document_ends, lefts, rights in ((False, begins, middles), (True, middles, [size] * len(documents))):
        lengths = torch.tensor(rights, device=device) - torch.tensor(lefts, device=device)
        columns = torch.tensor(lefts, device=device)[:, None] + torch.arange(int(lengths.max()), device=device)
        some = states.gather(1, columns.clamp(max=size - 1)[..., None].expand(-1, -1, states.shape[-1]))
        outputs, carried, _ = model.gru(some, lengths, carried)
        is_token = torch.arange(outputs.shape[1], device=device) < lengths[:, None]
        ends = torch.full_like(lengths, document_ends, dtype=torch.bool)
        positions = torch.tensor(starts, device=device) + torch.tensor(lefts, device=device)
        summary = model.summary.merge(summary, model.summary(outputs, is_token, positions, ends))
        if not document_ends:
            for row, document in enumerate(documents):
                document.carried = carried[:, row : row + 1]
                document.summary = Part(*(field[row : row + 1] for field in summary))
                document.num_windows += 1
    logits = model._calibrate(model.head(summary.value.to(outputs.dtype)))
    return logits.float().cpu().numpy()


def certainty(logits: np.ndarray, problem_type: str) -> np.ndarray:
    """Return how certain predictions (…, C) are, (…): the largest probability; of several labels, the probability that
    the least certain one is as predicted."""
    probabilities = to_scores(np.asarray(logits), problem_type)
    if problem_type == MULTI_LABEL:
        return np.maximum(probabilities, 1 - probabilities).min(axis=-1)
    return probabilities.max(axis=-1)


def predicted(logits: np.ndarray, problem_type: str) -> np.ndarray:
    """Return the predictions that are compared: (…) class ids, or (…, C) booleans."""
    return logits >= 0 if problem_type == MULTI_LABEL else logits.argmax(axis=-1)


def can_stop(config: PreTrainedConfig) -> bool:
    """Tell whether there is a running prediction of a label."""
    return _why_not(config) is None


def _why_not(config: PreTrainedConfig) -> str | None:
    if config.model_type != RobertaGRUConfig.model_type:
        return f"for RoBERTa-GRU, and this is a {config.model_type}"
    if config.gru_bidirectional:
        return (
            "for models that read left to right; this one's GRU reads both ways (`gru_bidirectional`), and has to "
            "begin at the end"
        )
    labels = LabelSpace.from_config(config)
    if labels.problem_type == REGRESSION:
        return "for labels, and this model predicts numbers"
    if labels.num_labels < 2 and labels.problem_type != MULTI_LABEL:
        return "for models of two labels or more, and this one has a single label"
    return None


def fit_model(
    model: Any, documents: Sequence[Sequence[int]], max_length: int | None, at_once: int = 8, progress: bool = False
) -> dict[str, dict[str, Any]]:
    """Fit thresholds to documents, which need no labels.

    Args:
        model: for which [`can_stop`] holds, in evaluation mode.
        documents: token ids.
        max_length: what they were cut to.
        at_once: windows that are encoded together.
        progress: show a bar.

    Returns:
        What `config.stop_thresholds` holds; see [`fit_thresholds`].
    """
    window = model.config.encoder_window
    lengths = np.array([len(ids) for ids in documents], dtype=np.int64)
    long = [documents[int(row)] for row in np.flatnonzero(lengths > window)]
    problem_type = LabelSpace.from_config(model.config).problem_type
    if len(long) < least_documents(min(AGREEMENTS)):  # nothing can be promised: no need to read them
        return fit_thresholds([], [], problem_type, max_length, lengths)
    steps: list[list[Step]] = [[] for _ in long]
    with tqdm(total=len(long), disable=not progress, desc="Fitting when to stop", unit=" texts") as bar:
        for step in read_by_windows(model, long, at_once=at_once):
            steps[step.row].append(step)
            bar.update(step.is_last)
    running = [np.stack([step.logits for step in some]) for some in steps]
    num_tokens = [np.array([step.num_tokens for step in some]) for some in steps]
    return fit_thresholds(running, num_tokens, problem_type, max_length, lengths)


def fit_thresholds(
    running: Sequence[np.ndarray],
    num_tokens: Sequence[np.ndarray],
    problem_type: str,
    max_length: int | None,
    lengths: np.ndarray,
) -> dict[str, dict[str, Any]]:
    """Find the smallest thresholds that keep their promise.

    A threshold promises an agreement if the upper end of a one-sided 95 % Clopper-Pearson interval of the share of
    stopped documents whose label differs from that of the whole is at most 1 - agreement. Thresholds are tried from
    the strictest on, and the first that fails ends the search: the lowest of many that happen to pass would be a lucky
    one, and break its promise more often than in one case of twenty.

    Args:
        running: of each document beyond the window, the logits (K, C) after each of its K windows.
        num_tokens: (K,) each: how many tokens had been read then.
        problem_type: of a label, or several.
        max_length: what documents were cut to.
        lengths: (n,) number of tokens of all documents, those within the window among them.

    Returns:
        For each agreement ("0.99"): `threshold`, or None where the documents are too few to promise it; `share_read`,
        the share of all their tokens that is then read; `n`, the number of documents; `stopped`, how many of them end
        early, and `differ`, how many of those get another label; `max_length`.
    """
    logits = np.concatenate(running) if len(running) else np.zeros((0, 2))
    num_labels = logits.shape[-1]
    guess = 0.5 if problem_type == MULTI_LABEL else 1 / num_labels
    tried = 1 - np.geomspace(LEAST_DOUBT, 1 - guess, NUM_THRESHOLDS)
    stopped, differ, read = (np.zeros(NUM_THRESHOLDS, dtype=np.int64) for _ in range(3))
    labels, certain, first = predicted(logits, problem_type), certainty(logits, problem_type), 0
    for tokens in num_tokens:
        last = first + len(tokens) - 1
        differs = (labels[first:last] != labels[last]).reshape(last - first, -1).any(axis=1)
        reached = np.maximum.accumulate(certain[first:last])
        at = np.searchsorted(reached, tried)  # the first window after which it is so certain; K - 1: none
        stops = at < len(reached)
        stopped += stops
        differ += stops & np.append(differs, False)[at]
        read += tokens[at]
        first = last + 1
    within = int(lengths.sum()) - sum(int(tokens[-1]) for tokens in num_tokens)  # tokens of other documents
    fitted = {}
    for agreement in AGREEMENTS:
        chosen = None
        for index in np.flatnonzero(stopped >= least_documents(agreement)):
            if upper_bound(int(differ[index]), int(stopped[index])) > 1 - agreement:
                break
            chosen = index
        is_promised = chosen is not None
        fitted[f"{agreement:g}"] = {
            "threshold": float(tried[chosen]) if is_promised else None,
            "share_read": float((read[chosen] + within) / lengths.sum()) if is_promised else 1.0,
            "n": len(lengths),
            "stopped": int(stopped[chosen]) if is_promised else 0,
            "differ": int(differ[chosen]) if is_promised else 0,
            "max_length": max_length,
        }
    return fitted


def least_documents(agreement: float) -> int:
    """Return how many documents must stop, none with another label, for the agreement to be promised at all."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log(agreement))


def upper_bound(hits: int, n: int) -> float:
    """Return the upper end of the one-sided Clopper-Pearson interval of a share."""
    return 1.0 if hits >= n else float(beta.ppf(CONFIDENCE, hits + 1, n - hits))


def find_threshold(config: PreTrainedConfig, agreement: float, max_length: int | None) -> float | None:
    """Return from which certainty on a model's documents need be read no further; None: read them whole.

    Args:
        config: the model's.
        agreement: the share of labels that shall equal those of whole documents.
        max_length: what documents are cut to.

    Raises:
        InputError: if the model has no running prediction, or no threshold for this agreement and length.
    """
    check_can_stop(config)
    fit = "Fit some with: roberta-gru evaluate MODEL DATA --agreements"
    known = config.stop_thresholds or {}
    entry = next((entry for name, entry in known.items() if math.isclose(float(name), agreement)), None)
    if not known:
        raise InputError(f"The model's configuration has no `stop_thresholds`. {fit}.", field="stop_thresholds")
    if entry is None:
        raise InputError(
            f"--agreement {agreement:g} has no threshold in the model's configuration. The model has thresholds for "
            f"{', '.join(known)}: name one of them.",
            field="agreement",
        )
    if entry.get("max_length") != max_length:
        lengths = ["whole texts" if n is None else f"{n:,} tokens" for n in (entry.get("max_length"), max_length)]
        raise InputError(
            f"The thresholds for --agreement were fitted on {lengths[0]}, and --max-length reads {lengths[1]}. {fit}, "
            "with the same --max-length.",
            field="max_length",
        )
    return entry["threshold"]


def check_can_stop(config: PreTrainedConfig) -> None:
    """Check that a model has a running prediction of a label.

    Raises:
        InputError: if not, with the reason.
    """
    reason = _why_not(config)
    if reason is not None:
        raise InputError(f"--agreement is {reason}: leave it out.", field="agreement")


def report(fitted: dict[str, dict[str, Any]]) -> str:
    """Write what [`fit_thresholds`] returns as text."""
    n = next(iter(fitted.values()))["n"]
    lines = [f"Stopping early, fitted on {n:,} texts; each promise holds with {CONFIDENCE:.0%} confidence:"]
    for name, entry in fitted.items():
        if entry["threshold"] is None:
            least = least_documents(float(name))
            lines.append(
                f"  {float(name):.1%} of labels: cannot be promised, so everything is read: at least {least:,} "
                "texts must stop early."
            )
        else:
            lines.append(
                f"  {float(name):.1%} of labels: stop at probability {entry['threshold']:.6f}, "
                f"{entry['share_read']:.1%} of tokens read; {entry['differ']:,} of {entry['stopped']:,} labels differ"
            )
    return "\n".join(lines)
