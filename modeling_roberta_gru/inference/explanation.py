"""Show how a classifier came to its verdict: its scores after every token, and what each token contributed.

    trace(model, tokenizer, text)      what the verdict was when the model had read so far, and where it turned
    attribute(model, tokenizer, text)  how much each token speaks for a label (needs the extra `explain`)

Both read documents of any length. `page.py` draws them.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import logging

from ..data.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL, LabelSpace
from ..errors import InputError, unknown_name
from ..training.metrics import to_probabilities

NUM_STEPS = 32
SURE = 0.2
"""A verdict counts, and can turn, where it leads by this much: what wavers about a draw turns nowhere."""
LARGEST_GAP = 0.05
"""Attributions may miss this share of what they amount to."""
MOST_TURNS = 12
MOST_WORDS = 6
EXCERPT_WIDTH = 45
WHITESPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class Trace:
    """A text as the model reads it, and its scores after every token.

    Attributes:
        text: the text.
        tokens: its n tokens as a person reads them: what stands in the text, or a special token's name. The tokens
            that one character is made of are that character each.
        offsets: where in the text each token begins and ends, in characters; empty for the special tokens around it.
        words: `(n,)` int64, the number of the word that each token belongs to, as the tokenizer splits words.
        scores: `(n, C)` float64, after every token: probabilities by softmax for one label a text, by sigmoid for
            several, the targets themselves for a regression.
        labels: the C labels or targets.
        problem_type: as in transformers.
    """

    text: str
    tokens: list[str]
    offsets: list[tuple[int, int]]
    words: np.ndarray
    scores: np.ndarray
    labels: list[str]
    problem_type: str

    @property
    def leading(self) -> str:
        """The label with the highest score in the end."""
        return self.labels[int(self.scores[-1].argmax())]

    @property
    def ends(self) -> np.ndarray:
        """The position of each word's last token."""
        return np.flatnonzero(np.diff(self.words, append=-1))

    def word_at(self, position: int) -> tuple[int, int]:
        """Return where in the text the word of a token begins and ends, in characters."""
        first, after = (int(np.searchsorted(self.words, self.words[position], side)) for side in ("left", "right"))
        start, end = self.offsets[first][0], self.offsets[after - 1][1]
        if first and not end:  # a special token at the end
            start = end = len(self.text)
        return start, end

    def written(self, score: float) -> str:
        """Write a score as people read it."""
        return f"{score:.4g}" if self.problem_type == REGRESSION else f"{score:.2f}"

    def written_move(self, turn: "Turn") -> str:
        return f"{self.written(turn.before)} → {self.written(turn.after)}"


@dataclass(frozen=True)
class Turn:
    """A place where a score moved.

    Attributes:
        position: the token after which it had; the last one of a word.
        label: whose score it is.
        before, after: the score before and after.
    """

    position: int
    label: str
    before: float
    after: float


@dataclass(frozen=True)
class Attribution:
    """How much each token of a text speaks for a label.

    Attributes:
        label: the label.
        values: `(n,)` float64, one a token, in `unit`; with steps enough they add up to `output` - `baseline`.
        output: what the model says of the text.
        baseline: what it says of the same text with every token but the first and last one masked.
        unit: "log-odds", or "target" for a regression.
        num_steps: steps of the integral.
    """

    label: str
    values: np.ndarray
    output: float
    baseline: float
    unit: str
    num_steps: int

    def written(self, value: float) -> str:
        """Write a value as people read it, with its sign."""
        return f"{value:+.2f}" if self.unit == "log-odds" else f"{value:+.3g}"

    @property
    def gap(self) -> float:
        """What the attributions miss of the difference between text and baseline."""
        return self.output - self.baseline - float(self.values.sum())

    @property
    def warning(self) -> str | None:
        """Say so if the gap is large."""
        if abs(self.gap) <= LARGEST_GAP * float(np.abs(self.values).sum()):
            return None
        return (
            f"The attributions add up to {self.written(self.values.sum())} {self.unit} instead of "
            f"{self.written(self.output - self.baseline)}: {self.num_steps} steps are too few. Take twice as many."
        )


def trace(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str) -> Trace:
    """Follow the model through a text, in bounded memory.

    The last scores are what the model says of the text. The encoder looks ahead as far as a token's window goes, and
    a right-to-left GRU has read the whole text before.

    Args:
        model: a RoBERTa-GRU classifier in eval mode, on any device; loaded with `trust_remote_code` it serves too.
        tokenizer: its tokenizer, a fast one.
        text: text of any length.

    Raises:
        InputError: if model or tokenizer cannot do this, or the text holds no words.
    """
    encoding = _encode(model, tokenizer, text)
    labels = LabelSpace.from_config(model.config)
    with _progress("Reading", " passages") as bar:
        # The encoder reads passage by passage; how many there are is the model's affair.
        hook = model.base_model.register_forward_hook(lambda *_: bar.update())
        try:
            logits = model.running_logits(torch.tensor([encoding["input_ids"]], device=model.device))[0]
        finally:
            hook.remove()
    logits = logits.cpu().double().numpy()
    word_ids = encoding.word_ids()
    begins = [one is None or one != other for one, other in zip(word_ids, [None, *word_ids], strict=False)]
    return Trace(
        text=text,
        tokens=_read_tokens(encoding, tokenizer, text),
        offsets=[tuple(offsets) for offsets in encoding["offset_mapping"]],
        words=np.cumsum(begins) - 1,
        scores=logits if labels.problem_type == REGRESSION else to_probabilities(logits, labels.problem_type),
        labels=list(labels.names),
        problem_type=labels.problem_type,
    )


def attribute(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    label: str | None = None,
    num_steps: int = NUM_STEPS,
) -> Attribution:
    """Attribute what the model says of a text to its tokens, by integrated gradients (Sundararajan et al. 2017).

    Attributed are the log-odds of a label, log p / (1 - p), a regression's target as it is: log-odds add up where
    probabilities saturate, and do not change when all logits shift. The path leads to the text's word embeddings from
    a baseline in which every token but the first and last is the mask token, which the encoder has learned to read as
    "some word"; the padding token where the tokenizer has none.

    Takes `num_steps` forward and backward passes. The encoder's layers are checkpointed: memory grows with the text
    by their inputs, one vector a token and layer.

    Args:
        model: as for [`trace`].
        tokenizer: as for [`trace`].
        text: as for [`trace`].
        label: the label in question; unset: the one with the highest score.
        num_steps: steps of the integral; `Attribution.warning` tells when they were too few.

    Raises:
        InputError: as [`trace`] does, and if Captum is not installed or the label unknown.
    """
    check_captum()
    from captum.attr import IntegratedGradients  # an extra; it also imports pyplot

    encoding = _encode(model, tokenizer, text)
    labels = LabelSpace.from_config(model.config)
    index = None if label is None else label_index(labels.names, label)
    input_ids = torch.tensor([encoding["input_ids"]], device=model.device)
    masked_ids = input_ids.clone()
    masked_ids[:, 1:-1] = tokenizer.pad_token_id if tokenizer.mask_token_id is None else tokenizer.mask_token_id
    with torch.no_grad():
        inputs, baselines = (model.get_input_embeddings()(ids) for ids in (input_ids, masked_ids))
        ends = torch.cat([model(inputs_embeds=embeds).logits for embeds in (inputs, baselines)])
    index = int(ends[0].argmax()) if index is None else index
    with (
        _progress("Attributing", " steps", num_steps) as bar,
        # cuDNN runs a GRU backwards in training mode only (https://github.com/meta-pytorch/captum/issues/564).
        torch.backends.cudnn.flags(enabled=False),
        _checkpointed(model),
    ):

        def output(embeds: torch.Tensor) -> torch.Tensor:
            bar.update()
            return _log_odds(model(inputs_embeds=embeds).logits, index, labels.problem_type)

        # One step at a time: what is held does not depend on their number.
        contributions = IntegratedGradients(output).attribute(
            inputs, baselines, n_steps=num_steps, internal_batch_size=1
        )
    values = contributions[0].cpu().double().sum(dim=-1).numpy()
    whole, masked = _log_odds(ends, index, labels.problem_type).tolist()
    unit = "target" if labels.problem_type == REGRESSION else "log-odds"
    return Attribution(labels.names[index], values, whole, masked, unit, num_steps)


def turns(trace: Trace) -> list[Turn]:
    """Find where the verdict turned, in reading order.

    For one label a text: where another label took the lead, for good enough that it came to lead by [`SURE`]. For
    several: where a label's probability crossed a half, by half of [`SURE`] either way. A turn's `before` is the
    label's furthest score since the turn before it, `after` its furthest until the next. A regression has none.
    """
    ends = trace.ends
    scores = trace.scores[ends]
    if trace.problem_type == REGRESSION:
        return []
    found: list[Turn] = []
    if trace.problem_type == SINGLE_LABEL:
        second, first = np.partition(scores, -2, axis=1)[:, -2:].T
        tracks = [(scores.argmax(axis=1), first - second)]
    else:
        tracks = [(score >= 0.5, abs(2 * score - 1)) for score in scores.T]
    for label, (verdicts, lead) in enumerate(tracks):
        starts = [0, *_changes(verdicts, lead >= SURE), len(ends)]
        for begin, word, end in zip(starts, starts[1:], starts[2:], strict=False):
            of = label if trace.problem_type == MULTI_LABEL else int(verdicts[word])
            rises = trace.problem_type == SINGLE_LABEL or verdicts[word]
            before, after = scores[begin:word, of], scores[word:end, of]
            sides = (before.min(), after.max()) if rises else (before.max(), after.min())
            found.append(Turn(int(ends[word]), trace.labels[of], *map(float, sides)))
    return sorted(found, key=lambda turn: turn.position)


def jumps(trace: Trace, label: str, most: int = 3) -> list[Turn]:
    """Return the words that moved a label's score most, in reading order."""
    scores = trace.scores[trace.ends, label_index(trace.labels, label)]
    steps = np.diff(scores)
    largest = sorted((-abs(steps)).argsort(kind="stable")[:most])
    return [Turn(int(trace.ends[w + 1]), label, float(scores[w]), float(scores[w + 1])) for w in largest if steps[w]]


def landmarks(trace: Trace, label: str, most: int = MOST_TURNS) -> tuple[str, list[Turn]]:
    """Say where to look, and return these places: the largest turns, or jumps where the verdict never turned."""
    found = turns(trace)
    if not found:
        never = "" if trace.problem_type == REGRESSION else "The verdict never turned. "
        return f"{never}Where {label} moved most:", jumps(trace, label)
    largest = sorted(found, key=lambda turn: -abs(turn.after - turn.before))[:most]
    times = {1: "once", 2: "twice"}.get(len(found), f"{len(found):,} times")
    shown = f"; the {most} largest turns" if len(found) > most else ""
    return f"The verdict turned {times}{shown}:", sorted(largest, key=lambda turn: turn.position)


def verdict(trace: Trace) -> str:
    """Say what the model says in the end: "positive 0.97"."""
    scores = trace.scores[-1]
    said = [f"{label} {trace.written(score)}" for label, score in zip(trace.labels, scores, strict=True)]
    if trace.problem_type == REGRESSION:
        return ", ".join(said)
    highest = said[int(scores.argmax())]
    if trace.problem_type == SINGLE_LABEL:
        return highest
    return ", ".join(said[index] for index in np.flatnonzero(scores >= 0.5)) or f"no label (the nearest: {highest})"


def telling_words(
    trace: Trace, attribution: Attribution, most: int = MOST_WORDS
) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """Return the words that speak most for the label, and those most against it: last token and attribution each."""
    values = word_values(trace, attribution)
    order = values.argsort(kind="stable")
    pro, contra = (
        [(int(trace.ends[word]), float(values[word])) for word in side[:most]] for side in (order[::-1], order)
    )
    return [(at, value) for at, value in pro if value > 0], [(at, value) for at, value in contra if value < 0]


def word_values(trace: Trace, attribution: Attribution) -> np.ndarray:
    """Add up the attributions of each word's tokens: `(number of words,)`."""
    return np.bincount(trace.words, weights=attribution.values)


def excerpt(trace: Trace, position: int, width: int = EXCERPT_WIDTH) -> tuple[str, str, str]:
    """Return what stands before the word of a token, that word, and what stands after it, in one line."""
    start, end = trace.word_at(position)
    before, word, after = (
        WHITESPACE.sub(" ", part)
        for part in (trace.text[:start][-width:], trace.text[start:end], trace.text[end:][:width])
    )
    if start > width:
        before = "…" + (before.partition(" ")[2] or before)
    if end + width < len(trace.text):
        after = (after.rpartition(" ")[0] or after) + "…"
    word = word if len(word) <= width else word[:width] + "…"
    return before.lstrip(), word.strip() or trace.tokens[position].strip() or "⏎", after.rstrip()


def report(trace: Trace, attribution: Attribution | None = None, label: str | None = None) -> str:
    """Write as text what was found.

    Args:
        trace: what [`trace`] returned.
        attribution: what [`attribute`] returned, if it was asked.
        label: whose moves to tell where the verdict never turned; unset: the leading one.
    """
    lines = [f"Verdict: {verdict(trace)}, after {len(trace.tokens):,} tokens.", ""]
    heading, places = landmarks(trace, label or trace.leading)
    lines.append(heading)
    width = max((len(turn.label) for turn in places), default=0)
    for turn in places:
        before, word, after = excerpt(trace, turn.position)
        moved = f"{turn.label:<{width}} {trace.written_move(turn)}"
        lines.append(f"  token {turn.position:>6,}  {moved}  {before}«{word}»{after}")
    if attribution is not None:
        lines += ["", f"What told most for (+) and against (-) {attribution.label}, in {attribution.unit}:"]
        for position, value in chain(*telling_words(trace, attribution)):
            lines.append(f"  token {position:>6,}  {attribution.written(value)}  {excerpt(trace, position)[1]}")
        lines.append(completeness(attribution))
    return "\n".join(lines)


def completeness(attribution: Attribution) -> str:
    """Say what all attributions add up to, and whether that is what they should."""
    total, baseline, output = map(
        attribution.written, (attribution.values.sum(), attribution.baseline, attribution.output)
    )
    return attribution.warning or (
        f"All tokens add up to {total}: from {baseline} for a text of masked words to {output} (missed by "
        f"{abs(attribution.gap):.2g} in {attribution.num_steps} steps)."
    )


def check_captum() -> None:
    """Check that attributions can be had.

    Raises:
        InputError: if Captum is not installed.
    """
    if find_spec("captum") is None:
        raise InputError(
            "Attributions need Captum: pip install captum. The command line goes without them by --no-attributions."
        )


def label_index(labels: Sequence[str], label: str) -> int:
    """Return a label's index.

    Raises:
        InputError: if there is no such label.
    """
    if label not in labels:
        raise unknown_name("label", label, labels)
    return list(labels).index(label)


def _encode(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str) -> BatchEncoding:
    """Tokenise the whole text, once it is sure that it can be explained."""
    if not hasattr(model, "running_logits"):
        raise InputError(f"A RoBERTa-GRU classifier can be explained, but a {type(model).__name__} was given.")
    if model.training:
        raise InputError("The model is in training mode, where dropout makes all results random: call model.eval().")
    if not tokenizer.is_fast:
        raise InputError(
            f"{type(tokenizer).__name__} does not tell where in the text its tokens stand: a fast tokenizer does."
        )
    if not text.strip():
        raise InputError("The text is empty.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"Character {error.start + 1} of the text is half a character: decode the text again."
        ) from None
    encoding = tokenizer(text, return_offsets_mapping=True, truncation=False, verbose=False)
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    if special.issuperset(encoding["input_ids"]):
        raise InputError("The text holds no words, only special tokens.")
    return encoding


def _read_tokens(encoding: BatchEncoding, tokenizer: PreTrainedTokenizerBase, text: str) -> list[str]:
    # A token without characters of its own is a special one, or a space that its offsets leave out.
    return [
        text[start:end] or tokenizer.convert_tokens_to_string([token])
        for token, (start, end) in zip(encoding.tokens(), encoding["offset_mapping"], strict=True)
    ]


def _log_odds(logits: torch.Tensor, index: int, problem_type: str) -> torch.Tensor:
    """Return log p / (1 - p) of a label, or a regression's target: logits (B, C) → (B,), in at least float32."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if problem_type != SINGLE_LABEL:
        return logits[:, index]
    others = torch.cat([logits[:, :index], logits[:, index + 1 :]], dim=1)
    return logits[:, index] - others.logsumexp(dim=1)


def _changes(verdicts: np.ndarray, is_sure: np.ndarray) -> list[int]:
    """Return where each sure verdict that differs from the sure one before it began."""
    sure = np.flatnonzero(is_sure)
    changed = np.flatnonzero(verdicts[sure][1:] != verdicts[sure][:-1])
    return [
        int(one + 1 + np.flatnonzero(verdicts[one : other + 1] != verdicts[other])[-1])
        for one, other in zip(sure[changed], sure[changed + 1], strict=True)
    ]


def _progress(what: str, unit: str, total: int | None = None) -> Any:
    # On a terminal only; `transformers.utils.logging.disable_progress_bar` silences it there too.
    return logging.tqdm(desc=what, unit=unit, total=total, disable=None, leave=False)


@contextmanager
def _checkpointed(model: PreTrainedModel) -> Iterator[None]:
    """Let the encoder's layers keep their inputs only and recompute the rest, without letting them drop anything.

    A layer does so where it is in training mode; its dropouts are modules of their own and stay in eval mode.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    before = [vars(layer).copy() for layer in layers]
    for layer in layers:
        layer.training = layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
    try:
        yield
    finally:
        for layer, attributes in zip(layers, before, strict=True):
            vars(layer).clear()
            vars(layer).update(attributes)
