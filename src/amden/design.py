"""The closed loop: generate, measure, keep what meets the targets, and ask again with the model's bias taken off.

The loop knows neither model nor potential: what makes structures and what measures them are callables. A round depends
on the rounds before it and on its number alone, so an interrupted design goes on from its finished rounds.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float

from amden.structure import Structures, concatenate

SLOPES: Final = (0.3, 3.0)
"""Change of the measured mean with what is asked for is taken to lie in this range."""

PRIOR: Final = 1 / 20
"""Spread of what is taken as seen before the first round, in parts of what may be asked for: 2 GPa for the shear
modulus of silica, so that few structures, which scatter as much, do not decide on the slope."""


@dataclass(frozen=True)
class Goal:
    """What a property is to be; the tolerance judges what came, and has no say in what is asked for."""

    target: float
    tolerance: float
    """Largest deviation of a structure that is kept."""
    reach: tuple[float, float]
    """What may be asked of the model."""

    def __post_init__(self) -> None:
        if not self.tolerance > 0:
            raise ValueError(f"the tolerance of a target must be positive, got {self.tolerance}")


@dataclass(frozen=True, eq=False)
class Round:
    """What came of one request; `structures` have every property of the goals, NaN where it could not be measured."""

    asked: Mapping[str, float]
    structures: Structures


def design(
    goals: Mapping[str, Goal],
    *,
    n: int,
    rounds: int,
    make: Callable[[int, Mapping[str, float]], Structures],
    begun: Sequence[Round] = (),
    enough: Callable[[], bool] = lambda: False,
    on_round: Callable[[int, Round], None] = lambda *_: None,
) -> list[Round]:
    """Rounds until `n` structures meet all goals, at most so many, or until there is `enough` (of time, say).

    `make(number, asked)` generates and measures; `begun` are the rounds of an interrupted design. `on_round` is told
    each new round.
    """
    done = list(begun[:rounds])
    while len(done) < rounds and len(kept(goals, done)) < n and not (done and enough()):
        asked = next_request(goals, done)
        done.append(Round(asked, make(len(done), asked)))
        on_round(len(done) - 1, done[-1])
    return done


def next_request(goals: Mapping[str, Goal], done: Sequence[Round]) -> dict[str, float]:
    """What to ask for so that the mean of what comes out is the target, for each property by itself.

    The first round asks for the target. Then measured = a + b asked is fitted to all structures by least squares, b
    held near 1 as if as many structures that differ in both by the same (`PRIOR`) had been seen, and solved for the
    target.

    >>> goal = Goal(36.0, 2.0, reach=(10.0, 50.0))
    >>> next_request({"shear_modulus": goal}, [])
    {'shear_modulus': 36.0}
    """
    return {name: _request(goal, *_pairs(name, done)) for name, goal in goals.items()}


def _request(goal: Goal, asked: Float[np.ndarray, " structures"], measured: Float[np.ndarray, " structures"]) -> float:
    wanted = goal.target
    if len(measured):
        x, y = asked - asked.mean(), measured - measured.mean()
        weight = len(measured) * (PRIOR * (goal.reach[1] - goal.reach[0])) ** 2
        slope = float(np.clip((x @ y + weight) / (x @ x + weight), *SLOPES))
        wanted = float(asked.mean() + (goal.target - measured.mean()) / slope)
    return float(np.clip(wanted, *goal.reach))


def _pairs(name: str, done: Sequence[Round]) -> tuple[np.ndarray, np.ndarray]:
    asked, measured = [np.zeros(0)], [np.zeros(0)]
    for each in done:
        values = each.structures.properties[name].double().numpy()
        measured.append(values[np.isfinite(values)])
        asked.append(np.full(len(measured[-1]), each.asked[name]))
    return np.concatenate(asked), np.concatenate(measured)


def deviations(goals: Mapping[str, Goal], structures: Structures) -> Float[np.ndarray, " structures"]:
    """How far each structure is off its worst target, in tolerances; NaN where a property is unknown."""
    known = {name: structures.properties[name].double().numpy() for name in goals}
    return np.max([abs(known[name] - goal.target) / goal.tolerance for name, goal in goals.items()], axis=0)


def kept(goals: Mapping[str, Goal], done: Sequence[Round]) -> list[tuple[int, int]]:
    """Round and place of each structure that meets all goals, the best first."""
    found = [
        (float(off), number, place)
        for number, each in enumerate(done)
        for place, off in enumerate(deviations(goals, each.structures))
        if off <= 1.0
    ]
    return [(number, place) for _, number, place in sorted(found)]


def chosen(done: Sequence[Round], places: Sequence[tuple[int, int]]) -> Structures:
    """The structures at these places of the rounds."""
    return concatenate([done[number].structures.select([place]) for number, place in places])


def history(goals: Mapping[str, Goal], done: Sequence[Round]) -> Iterator[tuple[int, str, float, float, float, int]]:
    """For each round and property: number, name, what was asked for, mean and standard deviation of what came out, and
    how many structures met all goals."""
    for number, each in enumerate(done):
        met = int(_met(goals, each).sum())
        for name in goals:
            values = each.structures.properties[name].double().numpy()
            known = values[np.isfinite(values)]
            mean, spread = (float(known.mean()), float(known.std())) if len(known) else (np.nan, np.nan)
            yield number, name, each.asked[name], mean, spread, met


def _met(goals: Mapping[str, Goal], each: Round) -> Bool[np.ndarray, " structures"]:
    return deviations(goals, each.structures) <= 1.0
