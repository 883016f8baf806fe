"""Initial node features: time, elements and target properties with their learned null (eq. 13, 14)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

_ESCAPED: Final = "escaped:"


@dataclass(frozen=True)
class PropertyScale:
    """What is known of a property from the training set: what scales it for the network, and how it is spread."""

    __pydantic_config__ = {"extra": "forbid"}

    mean: float
    """In its own unit, as all of this."""
    std: float
    size: int | None = None
    """Components of a vector, such as a spectrum, which share mean and standard deviation; None for a number."""
    quantiles: tuple[float, ...] = ()
    """Evenly spaced quantiles of the training set, from the least value to the largest; none for a vector."""
    correlation: Mapping[str, float] = field(default_factory=dict)
    """With the other properties of the model."""

    def __post_init__(self) -> None:
        if not self.std > 0:
            raise ValueError(f"`std` of a property must be positive, got {self.std}: does it vary in the data?")


class PropertyEmbedding(nn.Module):
    """LayerNorm(Linear(y)) of a scaled property (eq. 13); NaN, no target, has an embedding of its own, learned too."""

    mean: Tensor
    std: Tensor

    def __init__(self, scale: PropertyScale, *, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(scale.mean))
        self.register_buffer("std", torch.tensor(scale.std))
        self.linear = nn.Linear(scale.size or 1, width)
        self.norm = nn.LayerNorm(width)
        self.null = nn.Parameter(torch.randn(width))

    def forward(self, values: Float[Tensor, "systems *shape"]) -> Float[Tensor, "systems width"]:
        """Embedding of each system's target; a vector with an unknown component counts as unknown."""
        values = values.reshape(len(values), -1)
        missing = torch.isnan(values).any(1, keepdim=True)
        scaled = torch.where(missing, 0.0, (values - self.mean) / self.std)
        return torch.where(missing, self.null, self.norm(self.linear(scaled)))


def module_name(name: str) -> str:
    """The name of a property's module, which weights are stored under: its own, but for names that torch does not take.

    Those have a dot or are attributes of the container. They are escaped, and so is what looks escaped, so that no two
    properties share a module.

    >>> module_name("shear_modulus"), module_name("band.gap"), module_name("values")
    ('shear_modulus', 'escaped:band%2Egap', 'escaped:values')
    """
    if name and "." not in name and not name.startswith(_ESCAPED) and not hasattr(nn.ModuleDict(), name):
        return name
    return _ESCAPED + name.replace("%", "%25").replace(".", "%2E")


class NodeFeatures(nn.Module):
    """[t, elements, property embeddings] of each atom (eq. 14), properties in alphabetical order."""

    def __init__(self, scales: Mapping[str, PropertyScale], *, element_width: int, property_width: int) -> None:
        super().__init__()
        self.properties = nn.ModuleDict(
            {
                module_name(name): PropertyEmbedding(scale, width=property_width)
                for name, scale in sorted(scales.items())
            }
        )
        self._sizes = {name: scale.size or 1 for name, scale in sorted(scales.items())}
        self.width = 1 + element_width + property_width * len(scales)

    def forward(
        self,
        t: Float[Tensor, " systems"],
        elements: Float[Tensor, "atoms classes"],
        conditions: Mapping[str, Float[Tensor, "systems *shape"]],
        system: Int[Tensor, " atoms"],
    ) -> Float[Tensor, "atoms features"]:
        """Features of each atom; a property without a target counts as missing."""
        missing = torch.full_like(t, torch.nan)[:, None]
        embedded = [
            embed(conditions.get(name, missing.expand(-1, size)))
            for (name, size), embed in zip(self._sizes.items(), self.properties.values(), strict=True)
        ]
        per_system = torch.cat([t[:, None], *(e.to(t.dtype) for e in embedded)], 1)
        return torch.cat([per_system[system], elements], 1)
