"""Dropout for training on the CPU: torch's own draws a random number for every element, one after the other."""

import torch
from torch import nn

NUM_LEVELS = 2**16
"""Of a probability: 16 random bits say whether an element is dropped."""
LOWEST = torch.iinfo(torch.int64).min
SLOW_ATTENTION = (
    "On a CPU, attention dropout can make training on long texts several times slower: torch's fused attention does "
    "not support dropout there. To turn it off"
)
"""Start of a message; callers append the option."""


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
