"""What a generation is asked for beside cells: targets, guidance, composition. How it becomes a denoiser, and how the
denoised samples become structures that keep to it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from amden.diffusion.composition import Constraint, Neutral, log_probabilities
from amden.diffusion.denoiser import Denoiser, Sample
from amden.diffusion.guidance import Guided, Independent, Unconditional
from amden.diffusion.hmc import HMCConfig
from amden.diffusion.leaning import Leaning, constraint_rows
from amden.diffusion.vocabulary import Vocabulary
from amden.model import Model
from amden.random import Streams
from amden.refinement import Refine
from amden.structure import Structures

RESTART: Final = 0.4
"""Time from which unbalanced samples are denoised again, as in the paper."""

CHANGED, CHARGE_ERROR = "changed_atoms", "charge_error"
"""Properties of what was generated: atoms whose element the composition changed, and, where the elements have formal
charges of both signs, the absolute charge in e an atom before that."""

Kind = Literal["null", "model", "icg"]


@dataclass(frozen=True, eq=False)
class Guidance:
    """Classifier-free guidance (eq. 16)."""

    weight: float = 1.0
    """w; 0 is none."""
    kind: Kind = "null"
    """Where the unconditional noise comes from: the model's own null, another `model`, or random conditions (`icg`)."""
    model: Model | None = None
    above: float = 0.0
    """Below this diffusion time no step is guided, and samples are relaxed in the model itself. Which atoms change for
    an exact composition is told with guidance all the same."""

    def __post_init__(self) -> None:
        if not self.weight >= 0:
            raise ValueError(f"the weight of guidance must not be negative, got {self.weight}")
        if (self.kind == "model") != (self.model is not None):
            raise ValueError("guidance by a model needs that model (`--guide`), and the other kinds need none")

    def __str__(self) -> str:
        where = f" at t > {self.above:g}" if self.above else ""
        return f"w = {self.weight:g} ({self.kind}){where}"


@dataclass(frozen=True, eq=False)
class Request:
    """The default asks for nothing: what the model makes by itself."""

    targets: Mapping[str, float | Float[Tensor, "systems *shape"]] = field(default_factory=dict)
    """Value of each property asked for: one for all structures, or one for each."""
    guidance: Guidance = field(default_factory=Guidance)
    """Without targets there is none."""
    composition: Constraint | None = None
    """What the elements keep to exactly."""
    lean_below: float = 0.0
    """Time below which denoising leans towards the composition; 0: only the end is made to fit."""
    restarts: int = 0
    """How often a structure that does not fit by itself is denoised again from t = 0.4, before it is made to fit."""

    def check(self, model: Model, n_atoms: Int[Tensor, " systems"], *, refine: Refine | None) -> None:
        """`ValueError` for what the model cannot do, or not together with `refine`."""
        config = model.denoiser.config
        for name in self.targets:
            if name not in config.properties:
                known = ", ".join(config.properties) or "none"
                raise ValueError(f"the model does not know the property {name!r}; it knows: {known}")
        guide = self.guidance.model
        if guide is not None and guide.denoiser.config.vocabulary != config.vocabulary:
            raise ValueError(f"the guide knows {guide.denoiser.config.vocabulary}, the model {config.vocabulary}")
        if guide is not None and guide.diffusion != model.diffusion:
            raise ValueError("the guide was trained with another diffusion process than the model")
        if guide is not None and isinstance(refine, HMCConfig) and not guide.denoiser.config.energy:
            raise ValueError("Hamiltonian Monte Carlo needs a guide that is an energy model")
        if self.guidance.kind == "icg":
            vectors = [name for name in self.targets if not config.properties[name].quantiles]
            if vectors:
                raise ValueError(f"no distribution is known of {vectors[0]!r}: use the guidance `null`")
        if refine is not None and (self.lean_below > 0 or self.restarts):
            given = (
                "`--lean`" if not self.restarts else "`--restarts`" if not self.lean_below else "`--lean`, `--restarts`"
            )
            raise ValueError(
                f"{given}: not while samples are relaxed, as some models are by default; add `--plain` or leave it out"
            )
        if self.composition is not None:
            for n in n_atoms.unique().tolist():
                self.composition.require(n, config.vocabulary)

    def facts(self) -> dict[str, Any]:
        """What tells one request from another, as JSON."""
        targets = {k: v.tolist() if isinstance(v, Tensor) else v for k, v in self.targets.items()}
        guidance = self.guidance.weight, self.guidance.kind
        return {
            "targets": targets,
            "guidance": [*guidance, *([self.guidance.above] if self.guidance.above else [])] if targets else None,
            "composition": str(self.composition),
            "lean_below": self.lean_below,
            "restarts": self.restarts,
        }

    def conditions(self, chosen: Int[Tensor, " chosen"], device: torch.device) -> dict[str, Tensor]:
        """The targets of some of the structures."""
        return {
            name: (v[chosen] if isinstance(v, Tensor) else torch.full((len(chosen),), v)).float().to(device)
            for name, v in self.targets.items()
        }

    def asked(self, t: float) -> int:
        """How often the network is asked for each noise at a time."""
        return 1 + (self.guided and t >= self.guidance.above)

    @property
    def guided(self) -> bool:
        """Whether the network is asked twice, at any time."""
        return bool(self.targets) and self.guidance.weight > 0


def driver(request: Request, model: Model, denoiser: Denoiser, *, guide: Denoiser | None, streams: Streams) -> Denoiser:
    """What the sampler follows, around a denoiser of the model and one of the guide."""
    config, w = model.denoiser.config, request.guidance.weight
    if request.guided:
        kind = request.guidance.kind
        free: Denoiser = Unconditional(guide if kind == "model" and guide is not None else denoiser)
        if kind == "icg":
            tables = {name: torch.tensor(config.properties[name].quantiles) for name in request.targets}
            tables = {name: values.to(streams.seeds.device) for name, values in tables.items()}
            correlation = {name: config.properties[name].correlation for name in request.targets}
            free = Independent.of(denoiser, tables, streams, correlation=correlation)
        denoiser = Guided(denoiser, free, weight=w, above=request.guidance.above)
    if request.composition is not None and request.lean_below > 0 and config.vocabulary.width:
        rows = constraint_rows(request.composition, config.vocabulary).to(streams.seeds.device)
        denoiser = Leaning(denoiser, rows, request.lean_below, model.diffusion)
    return denoiser


def misfits(sample: Sample, request: Request, vocabulary: Vocabulary) -> Tensor:
    """Which systems do not keep to the composition by themselves."""
    assert request.composition is not None
    rows = constraint_rows(request.composition, vocabulary).to(sample.elements.device)
    classes = torch.nn.functional.one_hot(sample.elements.argmax(1), len(vocabulary.classes)).to(rows)
    off = rows.new_zeros((len(sample), len(rows))).index_add(0, sample.system, classes @ rows.T)
    return (off.abs() > 1e-6).any(1)


def finished(sample: Sample, request: Request, vocabulary: Vocabulary) -> Structures:
    """The structures of a denoised sample, on the CPU: elements exactly as asked for, ghosts among them, and what was
    asked for and changed as properties."""
    likely, system = vocabulary.decode(sample.elements).cpu(), sample.system.cpu()
    species, told = likely, {f"target_{name}": v.cpu().double() for name, v in sample.conditions.items()}
    balance, n = Neutral.of(vocabulary), len(sample)
    if balance is not None:
        each = torch.zeros(max(vocabulary.classes) + 1, dtype=torch.float64)
        for z, q in balance.charges.items():
            each[z] = q
        total = torch.zeros(n, dtype=torch.float64).index_add(0, system, each[likely])
        real = torch.zeros(n, dtype=torch.float64).index_add(0, system, (likely > 0).double())
        told[CHARGE_ERROR] = total.abs() / real.clamp(min=1)
    if vocabulary.width and request.composition is not None:
        log_p = log_probabilities(sample.elements.cpu()).numpy()
        classes = np.array(vocabulary.classes)
        found = [
            classes[request.composition.assigned(part, vocabulary)]
            for part in np.split(log_p, np.cumsum(sample.n_atoms.tolist())[:-1])
        ]
        species = torch.from_numpy(np.concatenate(found)).to(likely)
        told[CHANGED] = torch.zeros(n, dtype=torch.float64).index_add(0, system, (species != likely).double())
    bare = Structures(sample.positions.cpu(), species, sample.cell.cpu(), sample.n_atoms.cpu())
    return replace(bare.to(dtype=torch.float64), properties=told)
