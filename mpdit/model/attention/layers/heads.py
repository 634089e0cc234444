"""What kinds of attention with queries, keys and values have in common: the maps around what mixes the tokens."""

from collections.abc import Callable

from torch import Tensor, nn

from mpdit.model.design import Design
from mpdit.model.layers import linear, normalize

Mixer = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class HeadedAttention(nn.Module):
    """Queries, keys and values of each head, mixed over the tokens: x: (batch, tokens, channels) → the same shape.

    With cosine attention queries and keys have unit magnitude. Averaging over tokens shrinks the values, by an amount
    that no fixed factor can undo (tokens are correlated), so a renormalized design brings the output back to unit
    magnitude.

    Args:
        width: the channels.
        heads: how many heads share them.
        design: of the network.
        mix: `mix(q, k, v, x)`, where q, k, v and the result are (batch, heads, tokens, channels of a head), and x is
            what they were made from.
    """

    def __init__(self, width: int, heads: int, design: Design, mix: Mixer) -> None:
        super().__init__()
        self.heads, self.cosine, self.renormalized = heads, design.cosine_attention, design.renormalized
        self.qkv = linear(design, width, 3 * width)
        self.proj = linear(design, width, width)
        self.mix = mix
        self.turn: nn.Module = nn.Identity()  # of queries and keys, by their positions

    def forward(self, x: Tensor) -> Tensor:
        b, n, width = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        if self.cosine:
            q, k = normalize(q), normalize(k)
        q, k = self.turn(q), self.turn(k)
        y = self.proj(self.mix(q, k, v, x).transpose(1, 2).reshape(b, n, width))
        return normalize(y) if self.renormalized else y
