"""The layer of attention by the delta rule."""

import torch
from torch import Tensor, nn

from mpdit.model.design import Design
from mpdit.model.layers import linear, normalize

DIRECTIONS = 2


class DeltaMixer(nn.Module):
    """The memories of both directions, read: (batch, heads, tokens, d) of q, k, v, and x for β → (…, tokens, d).

    Keys have norm 1, and β = sigmoid(W·x) is one number for each head and token.
    """

    def __init__(self, width: int, heads: int, design: Design) -> None:
        super().__init__()
        self.rate = linear(design, width, heads)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, x: Tensor) -> Tensor:
        rate = self.rate(x).sigmoid().mT.unsqueeze(-1)
        k = normalize(k) / k.shape[-1] ** 0.5
        forwards, backwards = delta_rule(q, k, v, rate)
        return ((forwards + backwards) / DIRECTIONS**0.5).to(v.dtype)


def delta_rule(q: Tensor, k: Tensor, v: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
    """Return o_t = S_t q_t, S_t = S_{t−1} + β_t (v_t − S_{t−1} k_t) k_tᵀ, from the first token on and from the last.

    All tokens at once, in fp32: with u_t = β_t (v_t − S_{t−1} k_t), S_t = Σ_{s ≤ t} u_s k_sᵀ, so
    (I + tril(β·KKᵀ, −1)) U = β·V and O = tril(QKᵀ) U; from the last token on, with triu for tril.
    q, k, v: (…, tokens, d), rate: (…, tokens, 1) → (…, tokens, d) twice.
    """
    with torch.autocast(q.device.type, enabled=False):
        q, k, v, rate = q.float(), k.float(), v.float(), rate.float()
        overlap, reading, new = rate * (k @ k.mT), q @ k.mT, rate * v
        forwards = torch.linalg.solve_triangular(overlap.tril(-1), new, upper=False, unitriangular=True)
        backwards = torch.linalg.solve_triangular(overlap.triu(1), new, upper=True, unitriangular=True)
        return reading.tril() @ forwards, reading.triu() @ backwards
