"""f_decode: one linear layer from the output of f_inter back to the multi-level embedding of a slice (Eq. 14)."""

from __future__ import annotations

from torch import Tensor, nn


class MaskedDecoder(nn.Module):
    """Predict the multi-level embedding of each slice from f_inter's output (Eq. 14).

    It is linear on purpose: what it predicts must already be in f_inter's output, and it is thrown away after stage 2.

    It starts at zero. f_inter's outputs end in a LayerNorm and have length sqrt(D); a random map turns them into
    predictions an order longer than the targets, and the steps that shrink those again make f_inter give the same
    output for every volume (mean cosine 0.99999 after 20 steps on real scans), which it does not recover from soon.

    Args:
        width: Width D of f_inter's output.
        embedding_width: Width E of the frozen multi-level embedding it predicts.
    """

    def __init__(self, width: int, embedding_width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, embedding_width)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, outputs: Tensor) -> Tensor:
        """Map ``(B, F, D)`` to ``(B, F, E)``."""
        return self.linear(outputs)
