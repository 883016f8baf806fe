"""What training minimises on a batch: times, noise and hidden properties by the recipe, and the error of the model."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from amden.diffusion.corruption import gaussian_noise
from amden.diffusion.denoiser import Denoiser, Noise, Sample
from amden.diffusion.loss import Losses, sample_times, score_matching
from amden.neighbors import NeighborPlan
from amden.nn.score import Room, ScoreModel
from amden.recipe import Recipe

Precision = Callable[[], AbstractContextManager]
"""Makes a context in which a network is evaluated, such as `Fabric.autocast`."""


@dataclass
class Objective:
    """Score matching as a recipe has it (eq. 17)."""

    recipe: Recipe
    denoiser: ScoreModel
    """The student."""
    precision: Precision
    """That of the teacher; the student's network brings its own."""
    room: Room | None = None
    """What compiled networks see, whatever the size of the batch."""
    teacher: ScoreModel | None = None
    """The model whose noise is learned in the place of the drawn one."""

    def training(self, sample: Sample, plan: NeighborPlan | None, generator: torch.Generator) -> tuple[Losses, Tensor]:
        """Losses and times of a batch, some of whose properties are hidden; a teacher is followed, if there is one."""
        config = self.recipe.training
        density = {"exponent": config.time_exponent, "band": config.time_band}
        taught = None if self.teacher is None else self._told(partial(self.teacher, plan=plan, room=self.room))
        return self._losses(self._hidden(sample, generator), plan, generator, teacher=taught, **density)

    def validation(
        self, sample: Sample, plan: NeighborPlan | None, generator: torch.Generator
    ) -> tuple[Losses, Tensor]:
        """The same at uniform times, with all properties and drawn noise: comparable from recipe to recipe."""
        return self._losses(sample, plan, generator, teacher=None)

    def _losses(
        self,
        sample: Sample,
        plan: NeighborPlan | None,
        generator: torch.Generator,
        *,
        teacher: Denoiser | None,
        **density: Any,
    ) -> tuple[Losses, Tensor]:
        diffusion, stratified = self.recipe.diffusion, self.recipe.training.stratified
        t = sample_times(len(sample), diffusion, generator, stratified=stratified, **density)
        noise = gaussian_noise(sample, generator)
        student = partial(self.denoiser, plan=plan, room=self.room)
        return score_matching(student, sample, t=t, noise=noise, diffusion=diffusion, teacher=teacher), t

    def _told(self, teacher: Denoiser) -> Denoiser:
        def noise(sample: Sample, t: Tensor) -> Noise:
            with self.precision():
                return teacher(sample, t)

        return noise

    def _hidden(self, sample: Sample, generator: torch.Generator) -> Sample:
        """The sample with each property hidden from some systems, so that the model learns to do without."""
        hidden = {}
        for name in self.recipe.properties:
            values = sample.conditions[name]
            drop = torch.rand(len(values), generator=generator, device=values.device) < self.recipe.training.missing
            hidden[name] = torch.where(drop.reshape(-1, *(1,) * (values.ndim - 1)), torch.nan, values)
        return replace(sample, conditions=hidden)
