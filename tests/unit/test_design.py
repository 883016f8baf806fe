"""The closed loop on a model that is biased in a known way."""

import numpy as np
import pytest
import torch

from amden.design import Goal, Round, chosen, design, deviations, history, kept, next_request
from amden.structure import Structures


class Biased:
    """Structures whose property is a + b asked + noise, a function of the number of the round."""

    def __init__(self, a: float, b: float, spread: float, n: int = 12) -> None:
        self.a, self.b, self.spread, self.n, self.calls = a, b, spread, n, []

    def __call__(self, number, asked):
        self.calls.append(number)
        noise = torch.randn(self.n, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
        values = {name: self.a + self.b * x + self.spread * noise for name, x in asked.items()}
        cells = torch.eye(3, dtype=torch.float64).repeat(self.n, 1, 1)
        return Structures(
            torch.zeros(self.n, 3), torch.full((self.n,), 14), cells, torch.ones(self.n, dtype=torch.long), values
        )


GOAL = {"modulus": Goal(36.0, 0.5, reach=(10.0, 60.0))}


@pytest.mark.parametrize(("a", "b"), [(5.0, 1.0), (10.0, 0.6), (-4.0, 1.2), (20.0, 0.4)])
def test_the_bias_is_found_and_taken_off(a, b):
    done = design(GOAL, n=10**6, rounds=8, make=Biased(a, b, spread=1.0))
    right = (36.0 - a) / b
    assert done[0].asked["modulus"] == 36.0
    assert abs(np.mean([r.structures.properties["modulus"].mean() for r in done[5:]]) - 36.0) < 0.5
    assert done[-1].asked["modulus"] == pytest.approx(right, abs=0.15 * abs(right - 36.0) + 0.8)


def test_it_stops_when_there_are_enough_and_keeps_the_best():
    make = Biased(2.0, 1.0, spread=1.0)
    done = design(GOAL, n=8, rounds=50, make=make)
    found = kept(GOAL, done)
    assert len(found) >= 8
    assert len(kept(GOAL, done[:-1])) < 8
    off = deviations(GOAL, chosen(done, found))
    assert (np.diff(off) >= 0).all()
    assert off[-1] <= 1.0
    assert sum(row[-1] for row in history(GOAL, done)) == len(found)


def test_an_interrupted_design_goes_on_as_if_nothing_had_been():
    whole = design(GOAL, n=30, rounds=7, make=Biased(2.0, 0.8, spread=2.0))
    make = Biased(2.0, 0.8, spread=2.0)
    begun = design(GOAL, n=30, rounds=3, make=make)
    again = design(GOAL, n=30, rounds=7, make=make, begun=begun)
    assert make.calls == list(range(len(again)))
    assert [r.asked for r in again] == [r.asked for r in whole]


def test_requests_stay_within_reach_and_the_budget_is_kept():
    goal = {"modulus": Goal(36.0, 0.1, reach=(10.0, 40.0))}
    done = design(goal, n=5, rounds=6, make=Biased(-30.0, 1.0, spread=0.1))
    assert len(done) == 6
    assert done[-1].asked["modulus"] == 40.0
    ended = design(goal, n=5, rounds=6, make=Biased(-30.0, 1.0, spread=0.1), enough=lambda: True)
    assert len(ended) == 1


def test_what_could_not_be_measured_is_neither_kept_nor_learnt_from():
    one = Biased(0.0, 1.0, spread=0.0, n=3)(0, {"modulus": 36.0})
    one.properties["modulus"][:] = torch.tensor([36.0, float("nan"), 36.2])
    done = [Round({"modulus": 36.0}, one)]
    assert kept(GOAL, done) == [(0, 0), (0, 2)]
    assert next_request(GOAL, done)["modulus"] == pytest.approx(35.9, abs=0.01)
    one.properties["modulus"][:] = float("nan")
    assert next_request(GOAL, done) == {"modulus": 36.0}


def test_two_goals_must_both_be_met():
    goals = {"modulus": Goal(36.0, 5.0, (0.0, 60.0)), "rings": Goal(5.0, 0.1, (3.0, 7.0))}
    one = Biased(0.0, 1.0, spread=0.0, n=2)(0, {"modulus": 36.0, "rings": 5.0})
    one.properties["rings"][1] = 5.2
    assert kept(goals, [Round({"modulus": 36.0, "rings": 5.0}, one)]) == [(0, 0)]


def test_what_is_asked_for_does_not_depend_on_the_tolerance():
    """So rounds serve another tolerance too."""
    wide = {"modulus": Goal(36.0, 5.0, reach=(10.0, 60.0))}
    done = design(GOAL, n=10**6, rounds=4, make=Biased(5.0, 0.8, spread=1.0))
    assert next_request(GOAL, done) == next_request(wide, done)
    assert len(kept(wide, done)) > len(kept(GOAL, done))


def test_a_tolerance_of_nothing():
    with pytest.raises(ValueError, match="must be positive"):
        Goal(36.0, 0.0, (0.0, 1.0))
