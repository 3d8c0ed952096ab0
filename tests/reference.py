"""RoBERTa-GRU once more, as slow and obvious code: the definition that the fast model is tested against.

One document, one step at a time. Nothing is imported from the modeling file; parameters are read by name from the
model under test, so that values and gradients can be compared. Cast the model to float64 for that. Dropout is left
out, and logits are calibrated: this is the model in eval mode.
"""

import torch
from torch import Tensor
from transformers import PreTrainedModel


def window_starts(n: int, window: int, overlap: int) -> list[int]:
    """Return where the content of each window of `n` tokens begins: position 1 in the document, then `room` apart."""
    room = window - 2  # between the document's first token and its last, which stand in every window
    starts = [1]
    while starts[-1] + room < n - 1:
        starts.append(min(starts[-1] + room - overlap, n - 1 - room))
    return starts


def encoder_states(model: PreTrainedModel, input_ids: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
    """Return the encoder's states (n, D) of a document of n real tokens (int64, shape (n,))."""
    config = model.config
    n = len(input_ids)
    token_types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids

    def encode(tokens: list[int]) -> Tensor:
        positions = [config.pad_token_id + 1 + column for column in range(len(tokens))]
        outputs = model.roberta(
            input_ids=input_ids[None, tokens],
            position_ids=torch.tensor([positions]),
            token_type_ids=token_types[None, tokens],
        )
        return outputs.last_hidden_state[0]

    window = config.max_position_embeddings - config.pad_token_id - 1
    if n <= window:
        return encode(list(range(n)))
    overlap = min(64, (window - 2) // 4) if config.window_overlap is None else config.window_overlap
    states: dict[int, Tensor] = {}
    distances: dict[int, int] = {}  # of each content token from the nearer edge of the window it has its state from
    for start in window_starts(n, window, overlap):
        content = list(range(start, start + window - 2))
        encoded = encode([0, *content, n - 1])
        for column, t in enumerate(content, start=1):
            distance = min(t - content[0], content[-1] - t)
            if distance > distances.get(t, -1):
                states[t], distances[t] = encoded[column], distance
        states.setdefault(0, encoded[0])
        states[n - 1] = encoded[-1]
    return torch.stack([states[t] for t in range(n)])


def gru_step(parameters: dict[str, Tensor], prefix: str, x: Tensor, h: Tensor) -> Tensor:
    """Take one step of a GRU (PyTorch's equations: Cho et al. 2014, with the reset gate after the product).

    Args:
        x: input (D,).
        h: state (H,).

    Returns:
        The next state (H,).
    """
    x_r, x_z, x_n = (parameters[f"{prefix}.weight_ih_l0"] @ x + parameters[f"{prefix}.bias_ih_l0"]).chunk(3)
    h_r, h_z, h_n = (parameters[f"{prefix}.weight_hh_l0"] @ h + parameters[f"{prefix}.bias_hh_l0"]).chunk(3)
    r = torch.sigmoid(x_r + h_r)
    z = torch.sigmoid(x_z + h_z)
    candidate = torch.tanh(x_n + r * h_n)
    return (1 - z) * candidate + z * h


def gru_states(model: PreTrainedModel, states: Tensor) -> Tensor:
    """Read encoder states (n, D) left to right, and right to left if bidirectional: (n, E), perhaps with their own."""
    config, parameters, encoded = model.config, dict(model.named_parameters()), states
    n = len(states)
    for layer in range(config.num_gru_layers):
        directions = [("left_to_right", range(n))]
        if config.gru_bidirectional:
            directions.append(("right_to_left", range(n - 1, -1, -1)))
        halves = []
        for name, times in directions:
            h = states.new_zeros(config.gru_hidden_size)
            half: list[Tensor] = [h] * n
            for t in times:
                h = gru_step(parameters, f"gru.{name}.{layer}", states[t], h)
                half[t] = h
            halves.append(torch.stack(half))
        states = torch.cat(halves, dim=1)
    return torch.cat([states, encoded], dim=1) if config.skip_connection else states


def summarise(model: PreTrainedModel, states: Tensor) -> Tensor:
    """Reduce states (n, E) to one vector (A·E,); A is 1 but for several attentions."""
    config = model.config
    if config.summary == "last":
        width, both = config.gru_hidden_size, config.gru_output_size
        return torch.cat([states[-1, :width], states[0, width:both], states[-1, both:]])
    if config.summary == "mean":
        return torch.stack([column.sum() for column in states.T]) / len(states)
    if config.summary == "max":
        return torch.stack([column.max() for column in states.T])
    values = []
    for query, horizon in zip(dict(model.named_parameters())["summary.query"], config.attention_horizons, strict=True):
        scores = torch.stack([query @ h for h in states]) / len(query) ** 0.5
        if horizon:
            scores = scores - torch.arange(len(states) - 1, -1, -1).to(states) / horizon
        exponentials = torch.exp(scores - scores.max())
        weights = exponentials / exponentials.sum()
        values.append(torch.stack([weight * h for weight, h in zip(weights, states, strict=True)]).sum(dim=0))
    return torch.cat(values)


def head(model: PreTrainedModel, features: Tensor) -> Tensor:
    """Map one summary (A·E,) or one state (E,) to calibrated logits (C,)."""
    config, parameters = model.config, dict(model.named_parameters())
    if config.head_hidden_size > 0:
        features = parameters["head.dense.weight"] @ features + parameters["head.dense.bias"]
        features = torch.clamp(features, min=0)
    logits = parameters["head.out_proj.weight"] @ features + parameters["head.out_proj.bias"]
    single_label = config.problem_type in (None, "single_label_classification") and config.num_labels > 1
    return logits / config.calibration_temperature if single_label else logits


def running_logits(model: PreTrainedModel, input_ids: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
    """Return the logits (n, C) after every token: the summary sees the states up to it only.

    A right-to-left "last" is the state at the first token throughout.
    """
    states = gru_states(model, encoder_states(model, input_ids, token_type_ids))
    return torch.stack([head(model, summarise(model, states[: t + 1])) for t in range(len(states))])


def document_logits(model: PreTrainedModel, input_ids: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
    """Return the logits (C,) of one document of n real tokens (int64, shape (n,))."""
    states = gru_states(model, encoder_states(model, input_ids, token_type_ids))
    return head(model, summarise(model, states))


def token_logits(model: PreTrainedModel, input_ids: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
    """Return the logits (n, C) of every token of one document."""
    states = gru_states(model, encoder_states(model, input_ids, token_type_ids))
    return torch.stack([head(model, h) for h in states])
