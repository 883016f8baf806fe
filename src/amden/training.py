"""The training loop: score matching with averaged weights, resumable at any step, on any number of devices.

What a step sees (systems, times, noise) is a function of the seed and the step alone, so a run that was interrupted
goes on exactly. A run folder holds `config.yaml`, `model.safetensors` (averaged weights: what samples),
`state.safetensors` (all that going on needs) and `metrics.csv`.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Int
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils import deterministic

from amden import __version__
from amden.checkpoint import Header, load_checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint
from amden.config import to_dict, to_yaml
from amden.dataset import Split
from amden.diffusion.corruption import gaussian_noise
from amden.diffusion.denoiser import Sample
from amden.diffusion.loss import Losses, sample_times, score_matching
from amden.elements import GHOST, MASSES
from amden.feed import Feed, Shapes
from amden.inheritance import inherited
from amden.metrics import MetricsLog, Tally
from amden.model import Model, denoiser_of, save_model
from amden.neighbors import NeighborPlan
from amden.random import spawn_seeds
from amden.recipe import Recipe, learning_rate, score_config
from amden.structure import Structures, concatenate

CONFIG, MODEL, STATE, METRICS = "config.yaml", "model.safetensors", "state.safetensors", "metrics.csv"
"""Files of a run folder."""

_FILL: Final = "fill_uninitialized_memory"


@dataclass(frozen=True)
class Progress:
    """What the loop tells a progress bar now and then."""

    step: int
    steps: int
    loss: float
    samples_per_second: float
    validation: float | None = None


def train(
    recipe: Recipe,
    split: Split,
    folder: str | Path,
    *,
    fabric: Fabric,
    resume: bool = False,
    start: Model | None = None,
    compiled: bool = False,
    max_seconds: float | None = None,
    tensorboard: bool = False,
    progress: Callable[[Progress], None] = lambda _: None,
    provenance: Mapping[str, Any] | None = None,
) -> Model:
    """Train to the recipe's last step, or for `max_seconds`, and return the model with averaged weights.

    Stopped at any moment, by an interrupt too, the folder holds a checkpoint; `resume` goes on from it exactly. A new
    run begins with random weights, or with those of the model `start`.

    Errors: `FileExistsError` if the folder holds a run and `resume` is not asked for, `FileNotFoundError` the other way
    round; `ValueError` if `start` is a model of another shape.
    """
    run = Run(recipe, split, Path(folder), fabric=fabric, compiled=compiled, provenance=provenance or {})
    if (run.folder / STATE).exists() and not resume:
        raise FileExistsError(f"{folder} holds a run already: go on with `--resume` or choose another folder")
    if resume:
        run.restore()
    elif start is not None:
        run.start_from(start)
    log = MetricsLog(run.folder / METRICS, enabled=fabric.is_global_zero, tensorboard=tensorboard)
    try:
        with _repeatable(fabric.device):
            run.loop(log, progress, time.monotonic() + max_seconds if max_seconds else None)
    finally:
        log.close()
    return run.model()


@contextmanager
def _repeatable(device: torch.device) -> Iterator[None]:
    """On a CPU, the gradients of neighbours summed in the same order each time; by default its threads race."""
    before, filled = torch.are_deterministic_algorithms_enabled(), getattr(deterministic, _FILL)
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True, warn_only=True)
        setattr(deterministic, _FILL, False)  # nothing here reads what it has not written
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        setattr(deterministic, _FILL, filled)


def data_facts(structures: Structures) -> dict[str, Any]:
    """What generation later asks of the training data: how dense it was, what its atoms weigh, how large it was."""
    masses = torch.as_tensor(MASSES)[structures.species.cpu()]
    real = structures.species.cpu() != GHOST
    return {
        "structures": len(structures),
        "density": float(structures.density.mean()),
        "density_std": float(structures.density.std(correction=0)),
        "mean_mass": float(masses[real].mean()),
        "atoms": [int(structures.n_atoms.min()), int(structures.n_atoms.max())],
    }


class Run:
    """A training run: the one place where weights change."""

    def __init__(
        self,
        recipe: Recipe,
        split: Split,
        folder: Path,
        *,
        fabric: Fabric,
        compiled: bool = False,
        provenance: Mapping[str, Any],
    ) -> None:
        self.recipe, self.folder, self.fabric, self.provenance = recipe, folder, fabric, dict(provenance)
        self.config = recipe.training
        torch.manual_seed(self.config.seed)
        self._bare = denoiser_of(score_config(recipe, split.training), recipe.diffusion)
        if compiled:
            self._bare.egnn.fuse(fabric.device)
            self._bare.network.compile(dynamic=False, **self._launching())
        fused = fabric.device.type == "cuda"
        adam = torch.optim.Adam(self._bare.network.parameters(), lr=self.config.learning_rate, fused=fused)
        self._network, self._optimizer = fabric.setup(self._bare.network, adam)
        self._denoiser = self._bare.with_network(self._network)
        self._weights = list(self._bare.state_dict().values())
        self._average = {k: v.detach().clone() for k, v in self._bare.state_dict().items()}
        self._data = split.training
        size = min(self._share(self.config.batch_size), len(split.training))
        limits: dict[str, Any] = {
            "max_atoms": self.config.max_atoms and self._share(self.config.max_atoms),
            "ghost_density": self._bare.config.ghost_density,
        }
        sets = [part for part in (split.training, split.validation) if len(part)]
        shapes = Shapes.of(concatenate(sets), cutoff=recipe.egnn.cutoff, batch_size=size, **limits)
        self._room = shapes.room if compiled else None
        self._feed, *held = (
            Feed(
                part,
                self._bare.config.vocabulary,
                device=fabric.device,
                batch_size=min(size, len(part)),
                seed=self.config.seed,
                properties=recipe.properties,
                shapes=shapes if compiled else None,
                **limits,
            )
            for part in sets
        )
        self._validation = held[0] if held else None
        self.step = 0
        self.broken = False

    def loop(self, log: MetricsLog, progress: Callable[[Progress], None], deadline: float | None) -> None:
        """Go on to the last step or until `deadline` (of the monotonic clock); leave a checkpoint in any case."""
        world = self.fabric.world_size
        tally, started = Tally(self.fabric.device), time.monotonic()
        try:
            first = self.step * world + self.fabric.global_rank
            for chosen in self._feed.batches.chosen_at(first, stride=world):
                if self.step >= self.config.steps or (deadline is not None and time.monotonic() > deadline):
                    break
                tally.add(*self._advance(chosen))
                if self._due(self.config.log_every):
                    rate = tally.systems * world / (time.monotonic() - started)
                    row: dict[str, float | int] = {"step": self.step, "samples_per_second": rate}
                    row |= {"learning_rate": learning_rate(self.step, self.config), **tally.row("loss")}
                    if self._due(self.config.validate_every):
                        row |= self.validate()
                    self._require_finite(row["loss"])
                    log.write(row)
                    progress(Progress(self.step, self.config.steps, row["loss"], rate, row.get("validation")))
                    tally, started = Tally(self.fabric.device), time.monotonic()
                if self._due(self.config.save_every):
                    self.save()
        finally:
            if not self.broken:
                self.save()

    def _launching(self) -> dict[str, str]:
        """How the kernels of a compiled network are launched: as one CUDA graph where launches, one by one from Python,
        take longer than the kernels. An energy model has its GPU busy without; several processes keep to what is tried.
        """
        alone = self.fabric.device.type == "cuda" and self.fabric.world_size == 1
        return {"mode": "reduce-overhead"} if alone and not self.recipe.energy else {}

    def _require_finite(self, loss: float) -> None:
        if not isfinite(loss):
            self.broken = True
            raise ValueError(
                f"the loss is {loss} at step {self.step}: lower `training.learning_rate` and go on with `--resume` "
                f"from the last checkpoint in {self.folder}"
            )

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.config.steps

    def _share(self, total: int) -> int:
        """The part of a device in what a step takes, rounded up."""
        return -(-total // self.fabric.world_size)

    def _advance(self, chosen: Int[Tensor, " batch"]) -> tuple[Losses, Tensor]:
        """One optimiser step: losses and times of its systems, left on the device."""
        config = self.config
        generator = torch.Generator(self.fabric.device)
        generator.manual_seed(int(spawn_seeds(config.seed, 1, first=self.step * 1024 + self.fabric.global_rank)[0]))
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self.step, config)
        sample, plan = self._feed.sample(chosen, generator)
        sample = self._hidden(sample, generator)
        exponent, band = config.time_exponent, config.time_band
        losses, t = self._losses(sample, plan, generator, exponent=exponent, band=band)
        self._optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(losses.total(config.weights).mean())
        self.fabric.clip_gradients(self._network, self._optimizer, max_norm=config.clip, error_if_nonfinite=False)
        self._optimizer.step()
        self.step += 1
        decay = min(config.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self._average.values()), self._weights, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
        return losses, t

    def _losses(
        self, sample: Sample, plan: NeighborPlan | None, generator: torch.Generator, **density: Any
    ) -> tuple[Losses, Tensor]:
        """`density` is that of the times; evenly by default, which validation keeps to."""
        diffusion, stratified = self.recipe.diffusion, self.config.stratified
        t = sample_times(len(sample), diffusion, generator, stratified=stratified, **density)
        noise = gaussian_noise(sample, generator)
        denoiser = partial(self._denoiser, plan=plan, room=self._room)
        return score_matching(denoiser, sample, t=t, noise=noise, diffusion=self.recipe.diffusion), t

    def _hidden(self, sample: Sample, generator: torch.Generator) -> Sample:
        """The sample with each property hidden from some systems, so that the model learns to do without."""
        hidden = {}
        for name in self.recipe.properties:
            values = sample.conditions[name]
            drop = torch.rand(len(values), generator=generator, device=values.device) < self.config.missing
            hidden[name] = torch.where(drop.reshape(-1, *(1,) * (values.ndim - 1)), torch.nan, values)
        return replace(sample, conditions=hidden)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Loss of the averaged weights on the structures set aside at uniform times, with the same noise every time."""
        tally = Tally(self.fabric.device)
        generator = torch.Generator(self.fabric.device).manual_seed(self.config.seed)
        if self._validation is not None:
            with self._averaged():
                for sample, plan in self._validation.in_order(generator):
                    tally.add(*self._losses(sample, plan, generator))
        return tally.row("validation")

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The averaged weights in place of the current ones."""
        current = {k: v.detach().clone() for k, v in self._bare.state_dict().items()}
        self._bare.load_state_dict(self._average)
        try:
            yield
        finally:
            self._bare.load_state_dict(current)

    def start_from(self, model: Model) -> None:
        """Take the weights of a model of the same shape (`inherited`); the step stays 0.

        The new model's provenance names where it began.
        """
        self._bare.load_state_dict(inherited(model, self._bare))
        self.provenance["start"] = {k: model.provenance[k] for k in ("name", "steps", "start") if k in model.provenance}
        self._weights = list(self._bare.state_dict().values())
        self._average = {k: v.detach().clone() for k, v in self._bare.state_dict().items()}

    def model(self) -> Model:
        """The model with averaged weights, on the CPU."""
        denoiser = denoiser_of(self._bare.config, self.recipe.diffusion)
        denoiser.load_state_dict({k: v.cpu() for k, v in self._average.items()})
        return Model(denoiser.eval().requires_grad_(False), self.recipe.diffusion, self._story())

    def save(self) -> None:
        """Write both checkpoints, each whole or not at all."""
        if not self.fabric.is_global_zero:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / CONFIG).write_text(to_yaml(self.recipe), encoding="utf-8")
        save_model(self.folder / MODEL, self.model())
        tensors = {"step": torch.tensor(self.step), **optimizer_tensors(self._optimizer.optimizer)}
        for name, weights in (("weights", self._bare.state_dict()), ("average", self._average)):
            tensors |= {f"{name}.{k}": v for k, v in weights.items()}
        header = Header("state", config=to_dict(self.recipe), provenance=self._story())
        save_checkpoint(self.folder / STATE, tensors, header)

    def restore(self) -> None:
        """Go back to the folder's last checkpoint.

        Errors: `FileNotFoundError` if there is none; `ValueError` if it belongs to another recipe.
        """
        state = load_checkpoint(self.folder / STATE, kind="state")
        kept, asked = dict(state.header.config), to_dict(self.recipe)
        different = [
            k for k in ("egnn", "energy", "diffusion", "properties", "ghosts") if kept.get(k, asked[k]) != asked[k]
        ]
        if different:
            raise ValueError(f"{self.folder}: the run was made with another `{different[0]}`, it cannot be resumed")
        if "start" in state.header.provenance:
            self.provenance["start"] = state.header.provenance["start"]
        names = list(self._average)
        self._bare.load_state_dict({k: state.tensors[f"weights.{k}"] for k in names})
        self._average = {k: state.tensors[f"average.{k}"].to(self.fabric.device) for k in names}
        restore_optimizer(self._optimizer.optimizer, state.tensors)
        self.step = int(state.tensors["step"])

    def _story(self) -> dict[str, Any]:
        return {
            **self.provenance,
            "amden": __version__,
            "steps": self.step,
            "data": {**self.provenance.get("data", {}), **data_facts(self._data)},
            "seed": self.config.seed,
            "recipe": to_dict(self.recipe),
        }
