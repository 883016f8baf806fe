import numpy as np
import pytest
import torch

from amden.diffusion.composition import Formula, Neutral, formal_charges, log_probabilities
from amden.diffusion.vocabulary import Vocabulary

SILICA, GHOSTED = Vocabulary((8, 14)), Vocabulary((8, 14), ghosts=True)


def nearly_silica(units: int, *, wrong: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Elements as a denoiser leaves them: one-hot with a little noise, a few of them uncertain."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.tensor([0, 0, 1] * units + [2] * units)
    e = torch.nn.functional.one_hot(classes, 3) + 0.02 * torch.randn((len(classes), 3), generator=generator)
    doubtful = torch.randperm(len(classes), generator=generator)[:wrong]
    e[doubtful] = torch.softmax(torch.randn((wrong, 3), generator=generator), 1)
    return log_probabilities(e).numpy(), classes.numpy()


@pytest.mark.parametrize("constraint", [Formula({14: 1, 8: 2}), Neutral({8: -2, 14: 4})])
def test_thousands_of_atoms_are_exact_and_only_doubtful_ones_change(constraint):
    log_p, _ = nearly_silica(2000, wrong=60)
    chosen = constraint.assigned(log_p, GHOSTED)
    counts = np.bincount(chosen)
    assert counts[0] == 2 * counts[1]
    changed = chosen != log_p.argmax(1)
    assert 0 < changed.sum() < 60
    assert (log_p.max(1)[changed] < np.log(0.9)).all()


def test_what_is_exact_already_stays():
    log_p, classes = nearly_silica(50, wrong=0)
    for constraint in (Formula({14: 1, 8: 2}), Neutral({8: -2, 14: 4})):
        assert (constraint.assigned(log_p, GHOSTED) == classes).all()


def test_probabilities_rise_with_the_elements_and_never_vanish():
    p = log_probabilities(torch.tensor([[0.9, 0.1], [1.0, -0.05], [1.0, -0.01]])).exp()
    assert p[0, 0] == pytest.approx(0.9, abs=0.01)
    assert 0 < p[1, 1] < p[2, 1] < 0.02


def test_a_formula_must_fit_model_and_size():
    with pytest.raises(ValueError, match="GeO2 has Ge, the model knows O, Si"):
        Formula({32: 1, 8: 2}).require(9, SILICA)
    with pytest.raises(ValueError, match="256 atoms cannot be SiO2: take 255 or 258"):
        Formula({14: 1, 8: 2}).require(256, SILICA)
    Formula({14: 1, 8: 2}).require(256, GHOSTED)
    with pytest.raises(ValueError, match="2 atoms are less than one unit of SiO2"):
        Formula({14: 1, 8: 2}).require(2, GHOSTED)
    with pytest.raises(ValueError, match="a formula needs elements with whole numbers"):
        Formula({14: 0})


def test_neutrality_needs_charges_of_both_signs():
    assert Neutral.of(SILICA) == Neutral({8: -2, 14: 4})
    assert Neutral.of(Vocabulary((14,))) is None
    assert Neutral.of(Vocabulary((8, 26))) is None
    assert formal_charges(Vocabulary((8, 26))) is None
    with pytest.raises(ValueError, match="no choice of elements makes 256 atoms neutral"):
        Neutral({8: -2, 14: 4}).require(256, SILICA)
    Neutral({8: -2, 14: 4}).require(256, GHOSTED)
