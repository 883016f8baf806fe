"""From what a network says of the class of each atom to the noise in the elements, and to an energy.

A noisy one-hot vector e = α 1_c + σ ε says itself how likely each class c is, N(e; α 1_c, σ²); what the network adds
are logits l, the odds by all that it sees of the neighbourhood:

    p_c ∝ exp(l_c - |e - α 1_c|²/(2 σ²)),   ε = (e - α p)/σ,   E = -ln Σ_c softmax(l)_c exp(-|e - α 1_c|²/(2 σ²))

so ε = σ ∂E/∂e, and where little noise is left the noise is known to the rounding of e. A network that has to put out ε
itself (as the paper's does, eq. 15) would have to divide by σ.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from amden.diffusion.schedule import Schedule

Scale = Float[Tensor, "atoms 1"]


def scales(schedule: Schedule, t: Float[Tensor, " systems"], system: Tensor) -> tuple[Scale, Scale]:
    """α and σ of each atom."""
    return schedule.alpha(t)[system, None], schedule.sigma(t)[system, None]


def class_noise(
    logits: Float[Tensor, "atoms classes"], elements: Float[Tensor, "atoms classes"], scale: tuple[Scale, Scale]
) -> Float[Tensor, "atoms classes"]:
    """ε of each channel.

    >>> one = torch.ones(1, 1)
    >>> class_noise(torch.tensor([[50.0, 0.0]]), torch.tensor([[0.5, 0.25]]), (one, one)).tolist()
    [[-0.5, 0.25]]
    """
    alpha, sigma = scale
    p = torch.softmax(logits + _evidence(elements, alpha, sigma), 1)
    return (elements - alpha * p) / sigma


def class_energy(
    logits: Float[Tensor, "atoms classes"], elements: Float[Tensor, "atoms classes"], scale: tuple[Scale, Scale]
) -> Float[Tensor, " atoms"]:
    """E of each atom."""
    return -torch.logsumexp(torch.log_softmax(logits, 1) + _evidence(elements, *scale), 1)


def _evidence(elements: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """-|e - α 1_c|²/(2 σ²) for each class c."""
    others = elements.square().sum(1, keepdim=True) - elements.square()
    return -0.5 * ((elements - alpha).square() + others) / sigma.square()
