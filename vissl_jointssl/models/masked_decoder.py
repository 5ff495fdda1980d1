"""f_decode: one linear layer from the output of f_inter back to the multi-level embedding of a slice (Eq. 14)."""

from __future__ import annotations

from torch import Tensor, nn


class MaskedDecoder(nn.Module):
    """Predict the multi-level embedding of each slice from f_inter's output (Eq. 14).

    It is linear on purpose: what it predicts must already be in f_inter's output, and it is thrown away after stage 2.

    Args:
        width: Width D of f_inter's output.
        embedding_width: Width E of the frozen multi-level embedding it predicts.
    """

    def __init__(self, width: int, embedding_width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, embedding_width)

    def forward(self, outputs: Tensor) -> Tensor:
        """Map ``(B, F, D)`` to ``(B, F, E)``."""
        return self.linear(outputs)
