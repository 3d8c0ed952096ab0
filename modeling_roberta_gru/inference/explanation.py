"""Show how a classifier came to its prediction: its scores after every token, and what each token contributed.

    trace(model, tokenizer, text)      what the prediction was when the model had read so far, and where it turned
    attribute(model, tokenizer, text)  how much each token speaks for a label (needs the extra `explain`)

Both read documents of any length. What is read is drawn as one HTML page (reading.py) and as a picture.
"""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch.utils.checkpoint import checkpoint
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import logging as transformers_logging

from ..data.labels import REGRESSION, SINGLE_LABEL, LabelSpace
from ..errors import InputError, unknown_name
from ..files import alone, check_writable, write_text, writing_to
from ..training.loading import load_classifier
from ..training.plots import GREY, can_draw, drawable, fallback_fonts, save, shortened, tidy
from .reading import (
    Attribution,
    Trace,
    completeness,
    curve_name,
    curve_score,
    drawn_positions,
    excerpt,
    html,
    influence_heading,
    influential_words,
    is_binary,
    label_colours,
    landmarks,
    prediction,
    read,
    sides,
    word_values,
)

NUM_STEPS = 32
MOST_ATTRIBUTED = 16_384
"""Tokens. Longer texts are attributed only where the number of steps is given: a step, which reads the text there and
back, can take minutes on a processor."""
MOST_BARS = 1000
MOST_NOTES = 6
NUM_NOTE_LINES = 3

logger = logging.getLogger(__name__)


def trace(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, max_length: int | None = None
) -> Trace:
    """Follow the model through a text, in bounded memory.

    The last scores are what the model says of the text. The encoder looks ahead as far as a token's window goes, and
    a right-to-left GRU has read the whole text before.

    Args:
        model: a RoBERTa-GRU classifier in evaluation mode.
        tokenizer: its fast tokenizer.
        text: text of any length.
        max_length: cut it to this many tokens, special tokens included, as a [`Scorer`] does; None: read all of it.

    Raises:
        InputError: if model or tokenizer cannot do this, or the text holds no words.
    """
    encoding = _encode(model, tokenizer, text, max_length)
    if max_length is not None:  # what was not read is not shown
        text = text[: max(end for _, end in encoding["offset_mapping"])]
    with _progress("Reading", " passages") as bar:

        def count(*_: Any) -> None:
            bar.update()  # what a hook returns takes the place of the module's output

        # The encoder reads passage by passage; how many there are is the model's affair.
        hook = model.base_model.register_forward_hook(count)
        try:
            return read(model, tokenizer, text, LabelSpace.from_config(model.config).problem_type, encoding)
        finally:
            hook.remove()


def attribute(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    label: str | None = None,
    num_steps: int = NUM_STEPS,
    max_length: int | None = None,
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
        max_length: as for [`trace`].

    Raises:
        InputError: as [`trace`] does, and if Captum is not installed or the label unknown.
    """
    check_captum()
    from captum.attr import IntegratedGradients  # an extra; it also imports pyplot

    encoding = _encode(model, tokenizer, text, max_length)
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


def explain_model(
    name: str,
    text: str,
    output_dir: Path | None = None,
    label: str | None = None,
    steps: int | None = None,
    attributions: bool = True,
    max_length: int | None = None,
) -> tuple[Trace, Attribution | None, list[Path]]:
    """Explain what a saved model says of a text, and leave a picture and a page in a folder, if one is named.

    Args:
        name: a run's folder, a saved model's folder or a Hub id.
        text: text of any length.
        output_dir: the folder; made if need be. Earlier explanations there are replaced, other files kept. Unset:
            nothing is written.
        label: the label in question; unset: the one with the highest score.
        steps: of the attributions' integral; unset: [`NUM_STEPS`], but with a warning none are computed for a text of
            more than [`MOST_ATTRIBUTED`] tokens.
        attributions: whether to compute them.
        max_length: the number of tokens that the text is cut to; None: all of it is read.

    Returns:
        Trace, attribution if asked for, and the files written.

    Raises:
        InputError: if anything given is not usable; nothing is written then.
    """
    if steps is not None and steps < 1:
        raise InputError(f"steps must be at least 1, got {steps}.", field="steps")
    if attributions:
        check_captum()
    if output_dir is not None:
        check_writable("--output-dir", output_dir)
    model, tokenizer = load_classifier(name)
    if not hasattr(model, "running_logits"):
        raise InputError(
            f"{name} is a {model.config.model_type}: only a RoBERTa-GRU has running predictions.", file=name
        )
    if label is not None:
        label_index(LabelSpace.from_config(model.config).names, label)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    traced = trace(model, tokenizer, text, max_length)
    attribution = None
    if attributions and steps is None and len(traced.tokens) > MOST_ATTRIBUTED:
        logger.warning(
            "Attributions were skipped: %s tokens would need %d forward and backward passes. Pass --steps to compute "
            "them anyway.",
            f"{len(traced.tokens):,}",
            NUM_STEPS,
        )
    elif attributions:
        num_steps = NUM_STEPS if steps is None else steps
        attribution = attribute(model, tokenizer, text, label, num_steps, max_length)
    if output_dir is None:
        return traced, attribution, []
    picture, page = output_dir / "explanation.png", output_dir / "explanation.html"
    with alone(output_dir, waits=True), writing_to(output_dir):  # of two processes, both files of one
        draw_trace(traced, attribution, picture, label)
        write_text(page, html(traced, attribution, label, whole_page=True))
    return traced, attribution, [picture, page]


def report(trace: Trace, attribution: Attribution | None = None, label: str | None = None) -> str:
    """Write as text what was found.

    Args:
        trace: what [`trace`] returned.
        attribution: what [`attribute`] returned, if it was asked for.
        label: whose moves to tell where the prediction never turned; unset: the leading one.
    """
    lines = [f"Prediction: {prediction(trace)}, after {len(trace.tokens):,} tokens.", ""]
    heading, places = landmarks(trace, label or trace.leading)
    lines.append(heading)
    width = max((len(turn.label) for turn in places), default=0)
    for turn in places:
        before, word, after = excerpt(trace, turn.position)
        moved = f"{turn.label:<{width}} {trace.written_move(turn)}"
        lines.append(f"  token {turn.position:>6,}  {moved}  {before}«{word}»{after}")
    if attribution is not None:
        lines += ["", influence_heading(attribution)]
        for position, value in chain(*influential_words(trace, attribution)):
            lines.append(f"  token {position:>6,}  {attribution.written(value)}  {excerpt(trace, position)[1]}")
        lines.append(completeness(attribution))
    return "\n".join(lines)


@fallback_fonts()
def draw_trace(
    trace: Trace, attribution: Attribution | None, path: str | os.PathLike[str], label: str | None = None
) -> None:
    """Draw the scores after every token, the words at which the prediction turned, and the attributions below.

    Args:
        trace: what `explanation.trace` returned.
        attribution: what `explanation.attribute` returned, or None.
        path: the PNG file to write.
        label: whose moves to show where the prediction never turned; unset: the attribution's, or the leading one.
    """
    figure = Figure(figsize=(9, 3.8 if attribution is None else 6), layout="constrained")
    panels = [figure.subplots()] if attribution is None else figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    for axes in panels:
        tidy(axes)
        axes.grid(axis="x", visible=False)
        axes.set_xlim(-0.01 * len(trace.tokens), 1.01 * (len(trace.tokens) - 1))
    _draw_scores(panels[0], trace, label or (trace.leading if attribution is None else attribution.label))
    if attribution is not None:
        _draw_attribution(panels[1], trace, attribution)
    panels[-1].set_xlabel("token")
    panels[-1].xaxis.set_major_locator(MaxNLocator(8, integer=True))
    panels[-1].xaxis.set_major_formatter("{x:,.0f}")
    figure.suptitle(drawable(f"{prediction(trace)} after {len(trace.tokens):,} tokens"), fontsize=11)
    save(figure, path)


def check_captum() -> None:
    """Check that attributions can be had.

    Raises:
        InputError: if Captum is not installed.
    """
    if find_spec("captum") is None:
        raise InputError(
            "Attributions need Captum: pip install captum. On the command line, --no-attributions skips them.",
            field="attributions",
        )


def label_index(labels: Sequence[str], label: str) -> int:
    """Return a label's index.

    Raises:
        InputError: if there is no such label.
    """
    if label not in labels:
        raise unknown_name("label", label, labels)
    return list(labels).index(label)


def _encode(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, max_length: int | None
) -> BatchEncoding:
    """Tokenise what is read of the text, once it is sure that it can be explained."""
    if not hasattr(model, "running_logits"):
        raise InputError(f"A RoBERTa-GRU classifier can be explained, but a {type(model).__name__} was given.")
    if model.training:
        raise InputError("The model is in training mode, where dropout makes all results random: call model.eval().")
    if not tokenizer.is_fast:
        raise InputError(f"{type(tokenizer).__name__} gives no token offsets: use a fast tokenizer.")
    if not text.strip():
        raise InputError("The text is empty.", field="text")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"Character {error.start + 1} of the text is half a character: decode the text again.", field="text"
        ) from None
    cut = {"truncation": max_length is not None, "max_length": max_length}
    encoding = tokenizer(text, return_offsets_mapping=True, verbose=False, **cut)
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    if special.issuperset(encoding["input_ids"]):
        raise InputError("The text holds no words, only special tokens.", field="text")
    return encoding


def _draw_scores(axes: Axes, trace: Trace, followed: str) -> None:
    if is_binary(trace):  # the other label's curve would be this one's mirror image
        positions = drawn_positions(trace.scores[:, 1])
        scores = trace.scores[positions, 1]
        axes.plot(positions, scores, color="black", linewidth=0.9)
        for label, colour in label_colours(trace).items():
            side = scores > 0.5 if label else scores < 0.5
            name = f"{shortened(trace.labels[label])} leads"
            axes.fill_between(
                positions, 0.5, scores, where=side, interpolate=True, color=colour, alpha=0.6, lw=0, label=name
            )
    else:
        for label, colour in label_colours(trace).items():
            positions = drawn_positions(trace.scores[:, label])
            name = shortened(trace.labels[label])
            axes.plot(positions, trace.scores[positions, label], color=colour, linewidth=1.3, label=name)
    axes.set_ylabel(drawable(curve_name(trace)))
    axes.legend(frameon=False, ncols=4, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.2)
    low, high = axes.get_ylim() if trace.problem_type == REGRESSION else (-0.03, 1.03)
    axes.set_ylim(low, high + 0.08 * NUM_NOTE_LINES * (high - low))  # words stand above the curves
    if trace.problem_type != REGRESSION:
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    turns = landmarks(trace, followed, MOST_NOTES)[1]
    _note_words(axes, trace, [(turn.position, curve_score(trace, turn)) for turn in turns])


def _note_words(axes: Axes, trace: Trace, places: Iterable[tuple[int, float]]) -> None:
    """Mark places on a curve, and write their words above where there is room on one of the lines."""
    ends, centres = [-np.inf] * NUM_NOTE_LINES, [-np.inf] * NUM_NOTE_LINES  # of each line's last word, in axes
    for position, score in places:
        axes.plot(position, score, marker="o", markersize=6, color="black", markerfacecolor="white")
        word = _noted(trace, position)
        start, centre, end = _extent(axes, word, position)
        for line in range(NUM_NOTE_LINES):
            # Neither words on words, nor words on another's line down to the curve.
            if start > max(ends[line], *centres[:line], -np.inf) and centre > max(*ends[line + 1 :], -np.inf, -np.inf):
                break
        else:
            continue
        ends[line], centres[line] = end, centre
        axes.annotate(
            word,
            (position, score),
            (position, 1.0 - 0.065 * line),
            textcoords=axes.get_xaxis_transform(),
            ha="center",
            va="top",
            fontsize=9,
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.6},
        )


def _draw_attribution(axes: Axes, trace: Trace, attribution: Attribution) -> None:
    values, ends = word_values(trace, attribution), trace.ends
    largest = np.sort((-abs(values)).argsort(kind="stable")[:MOST_BARS])
    colours = [sides(trace, attribution)[int(value < 0)] for value in values[largest]]
    axes.vlines(ends[largest], 0, values[largest], colors=colours, linewidth=np.clip(300 / len(values), 1.2, 6))
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set_ylabel(f"for {shortened(attribution.label)}\n({attribution.unit})")
    axes.margins(y=0.25)
    for side in influential_words(trace, attribution, most=4):
        taken: list[tuple[float, float]] = []
        for position, value in side:
            word = _noted(trace, position)
            start, _, end = _extent(axes, word, position)
            if any(start < other_end and other_start < end for other_start, other_end in taken):
                continue
            taken.append((start, end))
            sign = 1 if value > 0 else -1
            axes.annotate(
                word,
                (position, value),
                (0, 4 * sign),
                textcoords="offset points",
                ha="center",
                va="bottom" if value > 0 else "top",
                fontsize=9,
            )


def _extent(axes: Axes, word: str, position: int) -> tuple[float, float, float]:
    """Estimate where a word written at a position begins, stands and ends, in axes."""
    centre = axes.transLimits.transform((position, 0))[0]
    half = 0.005 * (len(word) + 1)
    return centre - half, centre, centre + half


def _noted(trace: Trace, position: int) -> str:
    """Name a place by its word, or by its number where no font can write the word."""
    word = excerpt(trace, position)[1]
    return shortened(word) if can_draw(word) else f"token {position:,}"


def _log_odds(logits: torch.Tensor, index: int, problem_type: str) -> torch.Tensor:
    """Return log p / (1 - p) of a label, or a regression's target: logits (B, C) → (B,), in at least float32."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if problem_type != SINGLE_LABEL:
        return logits[:, index]
    others = torch.cat([logits[:, :index], logits[:, index + 1 :]], dim=1)
    return logits[:, index] - others.logsumexp(dim=1)


def _progress(what: str, unit: str, total: int | None = None) -> Any:
    # On standard error; `transformers.utils.logging.disable_progress_bar` silences it.
    return transformers_logging.tqdm(desc=what, unit=unit, total=total, leave=False, mininterval=0.5)


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
