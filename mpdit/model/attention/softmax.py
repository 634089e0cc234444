"""Softmax attention, as in DiT; with cosine logits in the designs that preserve magnitude."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from mpdit.model.attention.registry import ATTENTIONS
from mpdit.model.design import Design
from mpdit.model.layers import linear, normalize


@ATTENTIONS.register
@dataclass(frozen=True)
class Softmax:
    """Every token attends to every token, by the softmax of scaled dot products. arXiv 1706.03762."""

    name: ClassVar[str] = "softmax"
    doc: ClassVar[str] = "every token attends to every token (arXiv 1706.03762)"

    def check(self, design: Design) -> None:
        """Accept every design."""

    def build(self, width: int, heads: int, design: Design) -> nn.Module:
        """Build the layer of this width."""
        return SoftmaxAttention(width, heads, design)

    def flop(self, tokens: int, width: int) -> int:
        """Count 2·tokens²·width operations each for the logits and for the weighted sum."""
        return 4 * tokens**2 * width


class SoftmaxAttention(nn.Module):
    """Self-attention: x: (batch, tokens, channels) → the same shape.

    With cosine attention the logits are √d_head·cos θ. Averaging over tokens shrinks the values, by an amount that no
    fixed factor can undo (tokens are correlated), so a renormalized design brings the output back to unit magnitude.
    """

    def __init__(self, width: int, heads: int, design: Design) -> None:
        super().__init__()
        self.heads, self.cosine, self.renormalized = heads, design.cosine_attention, design.renormalized
        self.qkv = linear(design, width, 3 * width)
        self.proj = linear(design, width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, width = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        if self.cosine:
            q, k = normalize(q), normalize(k)
        y = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, width))
        return normalize(y) if self.renormalized else y
