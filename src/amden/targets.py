"""What a user asks for in text, checked against what a model knows: properties with units, compositions."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction
from math import gcd, lcm
from typing import Final

import numpy as np
from ase.formula import Formula as ParsedFormula
from rich.table import Table

from amden.analysis.observables import UNITS
from amden.compositions import counts_of, formal_charge
from amden.diffusion.composition import Constraint, Formula, Neutral
from amden.diffusion.vocabulary import Vocabulary
from amden.elements import FORMAL_CHARGES, atomic_number, symbol
from amden.model import Model
from amden.nn.embedding import PropertyScale
from amden.properties import property_of
from amden.refinement import name_of, read_refinement, sampling_of
from amden.request import CHANGED, CHARGE_ERROR, Guidance, Kind, Request
from amden.simulate.oxides import check_counts, formula_counts, read_terms
from amden.structure import Structures
from amden.units import converted

PROPERTY_UNITS: Final[Mapping[str, str]] = {**UNITS, "density": "g/cm³"}
"""Units of properties that amden computes; the others have the unit that the user knows."""

ODD: Final = 3.0
"""Standard deviations off what the other targets imply that earn a note."""
CONTRADICTORY: Final = 5.0
"""And those that are refused."""

_NUMBER = re.compile(r"^\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(\S*)\s*$")


@dataclass(frozen=True)
class Targets:
    """Targets that a model understands."""

    values: Mapping[str, float]
    """In the units of the training data."""
    notes: tuple[str, ...] = ()
    """What is unusual about them."""


def property_span(name: str, scale: PropertyScale) -> str:
    """The training range of a property in words.

    >>> property_span("shear_modulus", PropertyScale(25.0, 3.0, quantiles=(12.0, 20.0, 25.0, 30.0, 43.0)))
    '12 to 43 GPa'
    """
    unit = f" {PROPERTY_UNITS[name]}" if name in PROPERTY_UNITS else ""
    if not scale.quantiles:
        return f"mean {scale.mean:.4g}, standard deviation {scale.std:.2g}{unit}"
    return f"{scale.quantiles[0]:.4g} to {scale.quantiles[-1]:.4g}{unit}"


def read_targets(
    texts: Sequence[str], known: Mapping[str, PropertyScale], *, extrapolate: bool = False, option: str = "--target"
) -> Targets:
    """Targets such as `shear_modulus=36 GPa`; a number without a unit is in that of the training data.

    `option` is what errors call them.

    Values outside the range of the training set, or at odds with each other by what is usual there, are refused unless
    `extrapolate` is set; then, and where they are merely rare, they come with a note.

    Errors: `ValueError` for a property that the model does not know, one that comes twice, a text that is no target, a
    unit that does not fit.
    """
    values: dict[str, float] = {}
    notes: list[str] = []
    for text in texts:
        name, value = _target(text, known, option)
        if name in values:
            raise ValueError(f"`{option} {name}` comes twice: {values[name]:g} and {value:g}")
        values[name] = value
        notes += _outside(name, value, known[name], extrapolate)
    notes += _at_odds(values, known, extrapolate)
    return Targets(values, tuple(notes))


def read_request(
    model: Model,
    *,
    targets: Sequence[str] = (),
    extrapolate: bool = False,
    guidance: float | None = None,
    above: float | None = None,
    kind: Kind | None = None,
    guide: Model | None = None,
    composition: str | None = None,
    lean: float = 0.0,
    restarts: int = 0,
) -> tuple[Request, tuple[str, ...]]:
    """The request that these options make, and what is unusual about it, which is to be told before generating.

    Guidance that is not given is as the model's recipe says.

    Errors: `ValueError` as of `read_targets` and `read_composition`, and for options that go with others only.
    """
    read = read_targets(targets, model.denoiser.config.properties, extrapolate=extrapolate)
    if not targets and any(given is not None for given in (guidance, kind, guide, above)):
        raise ValueError("guidance strengthens targets: give one by `--target`")
    if guide is not None and kind not in (None, "model"):
        raise ValueError(f"`--guide` is for `--guidance-kind model`, not {kind!r}")
    best = sampling_of(model).guidance
    chosen = Guidance(
        best.weight if guidance is None else guidance,
        "model" if guide is not None else kind or best.kind,
        guide,
        best.above if above is None else above,
    )
    wanted = read_composition(composition, model.denoiser.config.vocabulary)
    if wanted is None and (lean or restarts):
        raise ValueError("`--lean` and `--restarts` need a composition to keep to")
    notes = (*read.notes, *composition_notes(wanted, model.denoiser.config.vocabulary))
    return Request(read.values, chosen, wanted, lean_below=lean, restarts=restarts), notes


def box_density(request: Request, density: float | None) -> float | None:
    """The density in g/cm³ that a cell is made for: that given, or that asked for as a target.

    Errors: `ValueError` where both are given and differ.
    """
    target = request.targets.get("density")
    if density is not None and isinstance(target, float) and abs(density / target - 1.0) > 0.005:
        raise ValueError(f"`--density` {density:g} contradicts `--target density={target:g}`")
    return target if density is None and isinstance(target, float) else density


def read_composition(text: str | None, vocabulary: Vocabulary) -> Constraint | None:
    """`SiO2`, atoms `Si:1 O:2`, moles `SiO2:60 Li2O:40`, `neutral` or `free`; nothing is neutral where the elements
    have formal charges of both signs.

    Errors: `ValueError` for a text that is none of these, or elements without charges for `neutral`.

    >>> str(read_composition("SiO2:60 Li2O:40", Vocabulary((3, 8, 14))))
    'Si3O8Li4'
    """
    if text is None or text == "neutral":
        found = Neutral.of(vocabulary)
        if found is None and text is not None:
            raise ValueError(f"the model's elements ({vocabulary}) have no formal charges of both signs to balance")
        return found
    if text == "free":
        return None
    parts = _mixture(text) if set(text) & set(":=") else _formula(text)
    return Formula({atomic_number(name): n for name, n in parts.items()})


def composition_notes(wanted: Constraint | None, vocabulary: Vocabulary) -> tuple[str, ...]:
    """What is unusual about a composition of elements that the model knows: some left out, charges out of balance.

    >>> composition_notes(read_composition("Si2O3", Vocabulary((8, 14))), Vocabulary((8, 14)))
    ('Si2O3 is not neutral: its formal charges sum to +2 e',)
    """
    if not isinstance(wanted, Formula) or not wanted.parts.keys() <= set(vocabulary.species):
        return ()
    missing = [symbol(z) for z in vocabulary.species if z not in wanted.parts]
    charge = sum(n * FORMAL_CHARGES.get(symbol(z), 0) for z, n in wanted.parts.items())
    notes = [f"{wanted} leaves out {', '.join(missing)}, which the model knows"] if missing else []
    if charge and Neutral.of(vocabulary) is not None:
        notes.append(f"{wanted} is not neutral: its formal charges sum to {charge:+d} e")
    return tuple(notes)


def _target(text: str, known: Mapping[str, PropertyScale], option: str) -> tuple[str, float]:
    name, equals, right = (part.strip() for part in text.partition("="))
    if not equals or not name:
        raise ValueError(f"`{option}` must look like 'shear_modulus=36 GPa', got {text!r}")
    if name not in known:
        near = get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        have = "; ".join(f"{k} ({property_span(k, v)})" for k, v in known.items()) or "none"
        raise ValueError(f"the model does not know the property {name!r}{hint}; it knows: {have}")
    if known[name].size is not None:
        raise ValueError(f"{name!r} is a vector of {known[name].size} numbers: targets of it are set from Python")
    match = _NUMBER.match(right)
    if match is None:
        raise ValueError(f"`{option} {name}` needs a number, with or without a unit, got {right!r}")
    value, unit = float(match[1]), match[2]
    if unit and name not in PROPERTY_UNITS:
        raise ValueError(f"the unit of {name!r} is not known to amden: give the number as in the training data")
    return name, converted(value, unit, PROPERTY_UNITS[name]) if unit else value


def _outside(name: str, value: float, scale: PropertyScale, extrapolate: bool) -> list[str]:
    if not scale.quantiles:
        return []
    unit = f" {PROPERTY_UNITS[name]}" if name in PROPERTY_UNITS else ""
    low, high = np.quantile(scale.quantiles, [0.05, 0.95])
    if not scale.quantiles[0] <= value <= scale.quantiles[-1]:
        beyond = f"{name} = {value:g}{unit} is outside the training data, {property_span(name, scale)}"
        if not extrapolate:
            raise ValueError(f"{beyond}; `--extrapolate` tries all the same")
        return [beyond]
    if not low <= value <= high:
        return [
            f"{name} = {value:g}{unit} is rare: nine in ten of the training data have {low:.4g} to {high:.4g}{unit}"
        ]
    return []


def _at_odds(values: Mapping[str, float], known: Mapping[str, PropertyScale], extrapolate: bool) -> list[str]:
    """Each target against what the others imply, by the correlations of the training set: for standardised values z
    with the inverse P of their correlation matrix, z_i given the others is N(-Σ_j≠i P_ij z_j / P_ii, 1/P_ii)."""
    names = list(values)
    if len(names) < 2:
        return []
    z = np.array([(values[n] - known[n].mean) / known[n].std for n in names])
    correlation = np.array([[1.0 if a == b else known[a].correlation.get(b, 0.0) for b in names] for a in names])
    inverse = np.linalg.pinv(correlation)
    spread = 1.0 / np.sqrt(np.diag(inverse))
    implied = z - (inverse @ z) / np.diag(inverse)
    off = np.abs(z - implied) / spread
    worst = int(off.argmax())
    if off[worst] < ODD or off[worst] < 1.5 * np.abs(z).max():
        return []  # rare for itself, not for the company it keeps
    name, others = names[worst], ", ".join(f"{n} = {values[n]:g}" for n in names if n != names[worst])
    scale = known[name]
    usual = f"{scale.mean + implied[worst] * scale.std:.3g} ± {spread[worst] * scale.std:.2g}"
    text = f"targets are at odds: by the training data {others} goes with {name} = {usual}, not {values[name]:g}"
    if off[worst] > CONTRADICTORY and not extrapolate:
        raise ValueError(f"{text}; `--extrapolate` tries all the same")
    return [text]


def _mixture(text: str) -> dict[str, int]:
    """The smallest whole numbers of atoms in these amounts of oxides or elements."""
    amounts: dict[str, Fraction] = {}
    for formula, amount in read_terms(text):
        for name, n in formula_counts(formula).items():
            amounts[name] = amounts.get(name, Fraction()) + n * amount
    whole = lcm(*(amount.denominator for amount in amounts.values()))
    counts = {name: int(whole * amount) for name, amount in amounts.items()}
    return {name: n // gcd(*counts.values()) for name, n in counts.items()}


def _formula(text: str) -> dict[str, int]:
    check_counts(text)
    try:
        parts = ParsedFormula(text).count()
    except ValueError:
        parts = {}
    if not parts:
        raise ValueError(f"`--composition` must be a formula such as SiO2, 'Si:1 O:2', neutral or free, got {text!r}")
    return parts


def outcome(made: Structures, request: Request) -> Iterator[str]:
    """What became of composition, charge and targets, in lines for the terminal."""
    yield from balance(made, request)
    if len(made) and request.targets:
        each = (
            f"{name} = {v:g} {PROPERTY_UNITS.get(name, '')}".rstrip() if isinstance(v, float) else f"{name} of each"
            for name, v in request.targets.items()
        )
        yield f"asked for {', '.join(each)}; density {float(made.density.mean()):.3f} g/cm³"
        for name in request.targets:
            if name != "density" and name not in made.properties:
                yield f"{name}: not measured{_way(name)}"


def balance(made: Structures, request: Request) -> Iterator[str]:
    """What became of composition and charge, in lines for the terminal."""
    if CHARGE_ERROR in made.properties:
        error = made.properties[CHARGE_ERROR]
        neutral, when = int((error == 0).sum()), " before balancing" if CHANGED in made.properties else ""
        yield f"charge error{when}: {float(error.mean()):.4f} e an atom, {neutral} of {len(made)} neutral"
    if CHARGE_ERROR in made.properties and CHANGED in made.properties:
        after = sum(formal_charge(counts) == 0 for counts in counts_of(made))
        yield f"after: {after} of {len(made)} exactly neutral"
    if CHANGED in made.properties:
        changed = made.properties[CHANGED]
        amount = f"{float(changed.mean()):.3g} atoms a structure, at most {int(changed.max())}"
        yield f"elements changed to be {request.composition}: {amount}"


def _way(name: str) -> str:
    """How a property of what was generated comes to be measured."""
    found = property_of(name)
    return f"; `amden properties FILE --{found} --out OTHER` measures it" if found else " by amden"


def model_table(name: str, model: Model) -> Table:
    """What a model is and understands, for the terminal."""
    config, told = model.denoiser.config, model.provenance
    data = told.get("data", {})
    table = Table("", name)
    table.add_row("kind", "energy model" if config.energy else "score model")
    table.add_row("elements", str(config.vocabulary))
    if config.ghost_density is not None:
        table.add_row("ghosts", f"up to {config.ghost_density:g} atoms/Å³")
    table.add_row(
        "trained on", f"{data.get('structures', '?')} × {data.get('source', '?')}, {told.get('steps', '?')} steps"
    )
    if "density" in data:
        table.add_row("density", f"{data['density']:.3f} ± {data.get('density_std', float('nan')):.3f} g/cm³")
    if "atoms" in data:
        table.add_row("atoms", f"{data['atoms'][0]} to {data['atoms'][1]}")
    for prop, scale in config.properties.items():
        unit = f" {PROPERTY_UNITS[prop]}" if prop in PROPERTY_UNITS else ""
        table.add_row(f"condition {prop}", f"{property_span(prop, scale)}, {scale.mean:.4g} ± {scale.std:.2g}{unit}")
    refine = read_refinement(None, model)
    table.add_row("sampled by", "standard denoising" if refine is None else name_of(refine))
    if config.properties:
        guidance = sampling_of(model).guidance
        table.add_row("guided with", str(Guidance(guidance.weight, guidance.kind, above=guidance.above)))
    origin = told.get("start", {})
    while origin:
        table.add_row("began with", f"{origin.get('name', '?')}, {origin.get('steps', '?')} steps")
        origin = origin.get("start", {})
    if "teacher" in told:
        table.add_row("taught by", f"{told['teacher'].get('name', '?')}, {told['teacher'].get('steps', '?')} steps")
    partner = sampling_of(model).hmc_denoiser
    if partner is not None:
        table.add_row("denoised by", f"{partner}, with Hamiltonian Monte Carlo")
    return table
