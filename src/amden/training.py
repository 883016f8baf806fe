"""The training loop: score matching with averaged weights, resumable at any step, on any number of devices.

What a step sees (systems, times, noise) is a function of seed, step and number of devices: a run that was interrupted
goes on exactly. What it leaves is told in `run_folder`.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Int
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils import deterministic

from amden import __version__
from amden.checkpoint import optimizer_tensors, restore_optimizer
from amden.config import to_dict
from amden.dataset import Split, data_facts
from amden.diffusion.loss import Losses
from amden.feed import Feed, Shapes
from amden.inheritance import check_teacher, inherited, origin
from amden.metrics import MetricsLog, Tally
from amden.model import Model, denoiser_of
from amden.objective import Objective
from amden.random import spawn_seeds
from amden.recipe import Recipe, learning_rate, score_config
from amden.run_folder import METRICS, STATE, read_state, write_run
from amden.stopping import Stopping, stopping
from amden.structure import concatenate

_FILL: Final = "fill_uninitialized_memory"


@dataclass(frozen=True)
class Progress:
    """What the loop tells a progress bar now and then."""

    step: int
    steps: int
    loss: float
    """Of the positions."""
    samples_per_second: float
    elements: float | None = None
    """Loss of the elements, where there are several."""
    validation: float | None = None


def train(
    recipe: Recipe,
    split: Split,
    folder: str | Path,
    *,
    fabric: Fabric,
    resume: bool = False,
    start: Model | None = None,
    teacher: Model | None = None,
    compiled: bool = False,
    max_seconds: float | None = None,
    tensorboard: bool = False,
    progress: Callable[[Progress], None] = lambda _: None,
    on_signal: Callable[[], None] = lambda: None,
    provenance: Mapping[str, Any] | None = None,
) -> Model:
    """Train to the recipe's last step, or for `max_seconds`, and return the model with averaged weights.

    Ctrl-C and SIGTERM end it after the step under way, of which `on_signal` is told at once; the folder holds a
    checkpoint then, from which `resume` goes on exactly. A new run begins with random weights, or with those of the
    model `start`. It learns the noise that the model `teacher` predicts if there is one, else the noise drawn.

    Errors: `FileExistsError` if the folder holds a run and `resume` is not asked for, `FileNotFoundError` the other way
    round; `ValueError` if `start` is a model of another shape or `teacher` one of other elements, if the data are not
    those of the run that is resumed, or if weights or losses are no numbers any more; `KeyboardInterrupt` after a
    signal.
    """
    check_folder(folder, resume=resume, start=start is not None)
    if recipe.training.teacher and teacher is None:
        raise ValueError(f"the recipe names a teacher, {recipe.training.teacher}: give that model")
    run = Run(recipe, split, Path(folder), fabric=fabric, compiled=compiled, provenance=provenance or {})
    if teacher is not None:
        run.learn_from(teacher)
    log = MetricsLog(run.folder / METRICS, enabled=fabric.is_global_zero, tensorboard=tensorboard)
    if resume:
        run.restore()
        log.cut(run.step)
    elif start is not None:
        run.start_from(start)
    try:
        with _repeatable(fabric.device), stopping(seconds=max_seconds, on_signal=on_signal) as stop:
            run.loop(log, progress, stop)
    finally:
        log.close()
    return run.model()


def check_folder(folder: str | Path, *, resume: bool, start: bool = False) -> None:
    """Errors, as of `train`, where a run cannot begin or go on in a folder; they cost nothing here."""
    if resume and start:
        raise ValueError("a run that goes on has its weights: leave out `--start` or `--resume`")
    if (Path(folder) / STATE).exists() and not resume:
        raise FileExistsError(f"{folder} holds a run already: go on with `--resume` or choose another folder")
    if resume and not (Path(folder) / STATE).exists():
        raise FileNotFoundError(f"{Path(folder) / STATE}: no such file, so there is no run to go on with")


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
        self._bare = denoiser_of(score_config(recipe, split.training, unseen=split.validation), recipe.diffusion)
        if compiled:
            self._bare.egnn.fuse(fabric.device)
            self._bare.network.compile(dynamic=False, **self._launching())
        fused = fabric.device.type == "cuda"
        adam = torch.optim.Adam(self._bare.network.parameters(), lr=self.config.learning_rate, fused=fused)
        self._network, self._optimizer = fabric.setup(self._bare.network, adam)
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
        student, room = self._bare.with_network(self._network), shapes.room if compiled else None
        self._objective = Objective(recipe, student, fabric.autocast, room=room)
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
        self.step, self.seconds = 0, 0.0
        self.saved: int | None = None
        """The step of the last checkpoint of this process."""
        self.whole = True
        """Whether no step is half done."""

    def loop(self, log: MetricsLog, progress: Callable[[Progress], None], stop: Stopping) -> None:
        """Go on to the last step or until told to stop; leave a checkpoint of finite weights in any case.

        Errors: as of `train`.
        """
        try:
            self._steps(log, progress, stop)
        except BaseException:
            if self.whole and self.finite():
                self.save()
            raise
        self.save()
        if stop.signalled:
            raise KeyboardInterrupt

    def _steps(self, log: MetricsLog, progress: Callable[[Progress], None], stop: Stopping) -> None:
        world, before, begun = self.fabric.world_size, self.seconds, time.monotonic()
        tally, started, late = Tally(self.fabric.device), begun, False
        first = self.step * world + self.fabric.global_rank
        for chosen in self._feed.batches.chosen_at(first, stride=world):
            if self.step >= self.config.steps or late or (world == 1 and stop.due):
                break
            tally.add(*self._advance(chosen))
            validates = self._due(self.config.validate_every)
            if validates or self._due(self.config.log_every):
                rate = tally.systems * world / (time.monotonic() - started)
                row = {
                    "step": self.step,
                    "samples_per_second": rate,
                    "learning_rate": self._rate(),
                    **tally.row("loss"),
                }
                # A device alone must not stop: the others would wait for its gradients.
                self.seconds, late = self._agreed(before + time.monotonic() - begun, stop, row["loss"])
                row |= self.validate() if validates else {}
                log.write(row)
                progress(self._progress(row))
                tally, started = Tally(self.fabric.device), time.monotonic()
            if self._due(self.config.save_every) or (self.saved is None and self._due(self.config.log_every)):
                self.save()

    def _agreed(self, seconds: float, stop: Stopping, loss: float) -> tuple[float, bool]:
        """The seconds of training and whether to stop, the same on all devices; `ValueError` for a loss on any of them
        that is no number."""
        minutes = self.config.minutes
        late = stop.due or (minutes is not None and seconds > 60.0 * minutes)
        told = torch.tensor([seconds, late, not isfinite(loss)], dtype=torch.float32, device=self.fabric.device)
        found = self.fabric.all_reduce(told, reduce_op="max")
        assert isinstance(found, Tensor)
        most, late, bad = found.tolist()
        if bad:
            self.whole = False
            raise ValueError(f"the loss is {loss} at step {self.step}: {self._way_out()}")
        return most, bool(late)

    def _progress(self, row: Mapping[str, float | int]) -> Progress:
        known = row["loss_elements"] if self._bare.config.vocabulary.width else None
        rate, validation = row["samples_per_second"], row.get("validation")
        return Progress(self.step, self.config.steps, row["loss"], rate, known, validation)

    def _launching(self) -> dict[str, str]:
        """How the kernels of a compiled network are launched: as one CUDA graph where launches, one by one from Python,
        take longer than the kernels. An energy model has its GPU busy without.
        """
        graphs = self.fabric.device.type == "cuda" and not self.recipe.energy
        return {"mode": "reduce-overhead"} if graphs else {}

    def _way_out(self) -> str:
        """What to do about numbers that are none."""
        there = (self.folder / STATE).exists()
        goes_on = f"go on with `--resume` from the last checkpoint in {self.folder}" if there else "begin anew"
        return f"lower `training.learning_rate` and {goes_on}"

    def finite(self) -> bool:
        """Whether all weights are numbers."""
        floats = [values for values in self._weights if values.is_floating_point()]
        return bool(torch.stack(torch._foreach_norm(floats)).isfinite().all())  # pyright: ignore[reportPrivateImportUsage]

    def _rate(self) -> float:
        """The learning rate of the next step."""
        return learning_rate(self.step, self.config, seconds=self.seconds)

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.config.steps

    def _share(self, total: int) -> int:
        """The part of a device in what a step takes, rounded up."""
        return -(-total // self.fabric.world_size)

    def _advance(self, chosen: Int[Tensor, " batch"]) -> tuple[Losses, Tensor]:
        """One optimiser step: losses and times of its systems, left on the device."""
        config, self.whole = self.config, False
        generator = torch.Generator(self.fabric.device)
        generator.manual_seed(int(spawn_seeds(config.seed, 1, first=self.step * 1024 + self.fabric.global_rank)[0]))
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate()
        sample, plan = self._feed.sample(chosen, generator)
        self._optimizer.zero_grad(set_to_none=True)
        with self.fabric.no_backward_sync(self._network):
            losses, t = self._objective.training(sample, plan, generator)
            self.fabric.backward(losses.total(config.weights).mean())
        self._share_gradients()
        self.fabric.clip_gradients(self._network, self._optimizer, max_norm=config.clip, error_if_nonfinite=False)
        self._optimizer.step()
        self.step += 1
        decay = min(config.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self._average.values()), self._weights, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
        self.whole = True
        return losses, t

    def _share_gradients(self) -> None:
        """The mean of all devices' gradients in the place of each one's, all at once: hooks that exchange them one by
        one while they come about would be outside of a CUDA graph."""
        if self.fabric.world_size == 1:
            return
        gradients = [p.grad for p in self._bare.parameters() if p.grad is not None]
        flat = self.fabric.all_reduce(torch.cat([g.flatten() for g in gradients]), reduce_op="mean")
        assert isinstance(flat, Tensor)
        parts = flat.split([g.numel() for g in gradients])
        torch._foreach_copy_(gradients, [part.view_as(g) for part, g in zip(parts, gradients, strict=True)])  # pyright: ignore[reportPrivateImportUsage]

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Loss of the averaged weights on the structures set aside at uniform times, with the same noise every time."""
        tally = Tally(self.fabric.device)
        generator = torch.Generator(self.fabric.device).manual_seed(self.config.seed)
        if self._validation is not None:
            with self._averaged():
                for sample, plan in self._validation.in_order(generator):
                    tally.add(*self._objective.validation(sample, plan, generator))
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

    def learn_from(self, teacher: Model) -> None:
        """Learn the noise that this model predicts; the new model's provenance names it.

        Errors: `ValueError` for a model of other elements, properties or noise.
        """
        check_teacher(teacher, self._bare)
        placed = teacher.denoiser.to(self.fabric.device).eval().requires_grad_(False)
        if self._objective.room is not None:
            placed.egnn.fuse(self.fabric.device)
            placed.network.compile(dynamic=False)
        self._objective.teacher = placed
        self.provenance["teacher"] = origin(teacher)

    def start_from(self, model: Model) -> None:
        """Take the weights of a model of the same shape (`inherited`); the step stays 0.

        The new model's provenance names where it began.
        """
        self._bare.load_state_dict(inherited(model, self._bare))
        self.provenance["start"] = origin(model)
        self._weights = list(self._bare.state_dict().values())
        self._average = {k: v.detach().clone() for k, v in self._bare.state_dict().items()}

    def model(self) -> Model:
        """The model with averaged weights, on the CPU."""
        denoiser = denoiser_of(self._bare.config, self.recipe.diffusion)
        denoiser.load_state_dict({k: v.cpu() for k, v in self._average.items()})
        return Model(denoiser.eval().requires_grad_(False), self.recipe.diffusion, self._story())

    def save(self) -> None:
        """Write both checkpoints, each whole or not at all, unless this step has them.

        Errors: `ValueError` for weights that are no numbers, which are not written.
        """
        if self.saved == self.step:
            return
        if not self.finite():
            raise ValueError(f"weights are no numbers any more at step {self.step}: {self._way_out()}")
        if self.fabric.is_global_zero:
            tensors = {"step": torch.tensor(self.step), "seconds": torch.tensor(self.seconds, dtype=torch.float64)}
            tensors |= optimizer_tensors(self._optimizer.optimizer)
            for name, weights in (("weights", self._bare.state_dict()), ("average", self._average)):
                tensors |= {f"{name}.{k}": v for k, v in weights.items()}
            write_run(self.folder, self.recipe, self.model(), tensors)
        self.saved = self.step

    def restore(self) -> None:
        """Go back to the folder's last checkpoint.

        Errors: as of `read_state`.
        """
        state = read_state(self.folder, self.recipe, facts=data_facts(self._data), weights=self._bare.state_dict())
        if "start" in state.header.provenance:
            self.provenance["start"] = state.header.provenance["start"]
        names = list(self._average)
        self._bare.load_state_dict({k: state.tensors[f"weights.{k}"] for k in names})
        self._average = {k: state.tensors[f"average.{k}"].to(self.fabric.device) for k in names}
        restore_optimizer(self._optimizer.optimizer, state.tensors)
        self.step, self.seconds = int(state.tensors["step"]), float(state.tensors.get("seconds", torch.tensor(0.0)))
        self.saved = self.step

    def _story(self) -> dict[str, Any]:
        return {
            **self.provenance,
            "amden": __version__,
            "steps": self.step,
            "data": {**self.provenance.get("data", {}), **data_facts(self._data)},
            "seed": self.config.seed,
            "recipe": to_dict(self.recipe),
        }
