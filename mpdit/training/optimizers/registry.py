"""What an optimiser is, and the registry of all of them."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from mpdit.model.design import Design
from mpdit.registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@dataclass(frozen=True)
class Trainable:
    """A parameter, as an optimiser sees it.

    Attributes:
        name: in the network.
        parameter: itself.
        rate: µP's factor on the learning rate, where steps are as large as Adam's (mpdit/model/mup.py).
        width_ratio: base width / width under µP, else 1.
    """

    name: str
    parameter: "nn.Parameter"
    rate: float
    width_ratio: float

    @property
    def is_hidden_matrix(self) -> bool:
        """Whether it is a matrix of a block, from features to features."""
        return ".blocks." in self.name and self.parameter.ndim == 2


@dataclass(frozen=True)
class Part:
    """One of torch's optimisers, for some parameters.

    Attributes:
        label: before its tensors' names in a checkpoint.
        optimizer: its groups have a `factor`, which multiplies the learning rate of each step.
        moments: the names of the tensors that it keeps of each parameter, of the parameter's shape.
        counts_steps: whether it also keeps a count of steps for each, as `step`.
    """

    label: str
    optimizer: "torch.optim.Optimizer"
    moments: tuple[str, ...]
    counts_steps: bool

    def empty_state(self, parameter: "Tensor") -> dict[str, "Tensor"]:
        """The state of one parameter before the first step."""
        import torch

        state = {name: torch.zeros_like(parameter) for name in self.moments}
        return ({"step": torch.zeros((), device=parameter.device)} if self.counts_steps else {}) | state


class Optimizer(Protocol):
    """One kind of optimiser with its settings: a frozen dataclass with a `name` and a `doc`."""

    name: ClassVar[str]
    doc: ClassVar[str]

    def check(self, design: Design) -> None:
        """Raise InputError for a design that this optimiser cannot train."""

    def make(self, parameters: Sequence[Trainable], betas: tuple[float, float]) -> list[Part]:
        """Make what takes the steps; every parameter is in one part. betas: those of Adam."""


OPTIMIZERS: Registry[type[Optimizer]] = Registry("optimizer", "mpdit.training.optimizers")


def rate_groups(parameters: Sequence[Trainable], factors: Sequence[float]) -> list[dict[str, Any]]:
    """Group parameters by their factor on the learning rate, as torch's optimisers take them."""
    groups: dict[float, list[Any]] = {}
    for one, factor in zip(parameters, factors, strict=True):
        groups.setdefault(factor, []).append(one.parameter)
    return [{"params": members, "factor": factor} for factor, members in groups.items()]


def uncompiled(kind: Any) -> Any:
    """Return one of torch's optimisers that does not import torch's compiler, which takes seconds, to keep out of it.

    It takes the same steps: torch wraps two methods for code that compiles them, and nothing here does.
    """
    import torch

    methods = {
        "step": torch.no_grad()(inspect.unwrap(kind.step)),
        "add_param_group": inspect.unwrap(kind.add_param_group),
    }
    return type(kind.__name__, (kind,), methods)
