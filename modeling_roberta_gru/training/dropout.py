"""Dropout for training on the CPU: torch's own draws a random number for every element, one after the other."""

import torch
from torch import nn
from transformers import PreTrainedConfig

NUM_LEVELS = 2**16
"""Of a probability: 16 random bits say whether an element is dropped."""
LOWEST = torch.iinfo(torch.int64).min


class CPUDropout(nn.Dropout):
    """[`~torch.nn.Dropout`] with four elements' random bits from one draw.

    The probability is rounded to a multiple of 2⁻¹⁶, and what is kept is scaled by what it is rounded to. Draws from
    torch's generator of the CPU. On another device, or compiled, it is torch's.
    """

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Drop elements in training: (…) of any floating dtype → the same."""
        num_dropped = round(self.p * NUM_LEVELS) if self.training else 0
        is_own = inputs.device.type == "cpu" and not self.inplace and not torch.compiler.is_compiling()
        if not is_own or num_dropped in (0, NUM_LEVELS):
            return super().forward(inputs)
        draws = torch.empty(-(-inputs.numel() // 4), dtype=torch.int64, device="cpu").random_(LOWEST, None)
        bits = draws.view(torch.int16)[: inputs.numel()].view(inputs.shape)
        is_kept = bits >= num_dropped - NUM_LEVELS // 2
        return inputs * is_kept.to(inputs.dtype).mul_(NUM_LEVELS / (NUM_LEVELS - num_dropped))


def use_cpu_dropout(model: nn.Module) -> None:
    """Make every [`~torch.nn.Dropout`] of a model this one."""
    for module in model.modules():
        if type(module) is nn.Dropout:
            module.__class__ = CPUDropout


def slow_attention(config: PreTrainedConfig, device: torch.device, way_out: str) -> str | None:
    """Return what to tell someone whose encoder has attention dropout on a CPU, where torch cannot fuse the two.

    Args:
        config: the encoder's.
        device: what is trained on.
        way_out: the options that turn attention dropout off.

    Returns:
        A line to print; None where there is nothing to say.
    """
    if device.type != "cpu" or not getattr(config, "attention_probs_dropout_prob", 0):
        return None
    return f"On a CPU, attention dropout makes training on long texts several times slower. To turn it off: {way_out}."
