"""The layer of softmax attention."""

from torch import Tensor, nn
from torch.nn import functional as F

from mpdit.model.design import Design
from mpdit.model.layers import linear, normalize


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
