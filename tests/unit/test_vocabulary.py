import pytest
import torch

from amden.diffusion.vocabulary import Vocabulary


def test_ghosts_are_the_last_class():
    vocabulary = Vocabulary((8, 14), ghosts=True)
    encoded = vocabulary.encode(torch.tensor([0, 8, 14]))
    assert encoded.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert vocabulary.classes == (8, 14, 0)
    assert vocabulary.width == 3


@pytest.mark.parametrize("vocabulary", [Vocabulary((14,)), Vocabulary((14,), ghosts=True), Vocabulary((3, 8, 14, 15))])
def test_decoding_undoes_encoding_of_noisy_elements(vocabulary):
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(len(vocabulary.classes), (50,), generator=generator)
    species = torch.tensor(vocabulary.classes)[chosen]
    encoded = vocabulary.encode(species)
    assert encoded.shape == (50, vocabulary.width)
    assert torch.equal(vocabulary.decode(encoded + 0.49 * torch.rand(encoded.shape, generator=generator)), species)


def test_a_single_class_leaves_nothing_to_diffuse():
    assert Vocabulary((14,)).encode(torch.tensor([14, 14])).shape == (2, 0)
    assert Vocabulary((14,)).decode(torch.zeros(3, 0)).tolist() == [14, 14, 14]


def test_strangers_are_named():
    with pytest.raises(ValueError, match="element Ge is unknown to this model, which knows O, Si"):
        Vocabulary((8, 14)).encode(torch.tensor([8, 32]))
    with pytest.raises(ValueError, match="element X is unknown to this model, which knows Si"):
        Vocabulary((14,)).encode(torch.tensor([0]))


@pytest.mark.parametrize("species", [(), (0, 14), (14, 8), (8, 8)])
def test_species_must_be_ascending_and_real(species):
    with pytest.raises(ValueError, match="`species` must be ascending atomic numbers above 0, got"):
        Vocabulary(species)


def test_a_vocabulary_tells_what_it_knows():
    assert str(Vocabulary((8, 14), ghosts=True)) == "O, Si and ghosts"
