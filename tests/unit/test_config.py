from dataclasses import dataclass, field
from math import inf
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from amden.config import from_dict, load_config, to_dict, to_yaml, with_overrides


@dataclass(frozen=True)
class Linear:
    __pydantic_config__ = {"extra": "forbid"}

    slope: float = 1.0


@dataclass(frozen=True)
class Cosine:
    __pydantic_config__ = {"extra": "forbid"}

    period: int = 10


@dataclass(frozen=True)
class Optimizer:
    __pydantic_config__ = {"extra": "forbid"}

    rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    decay: Linear | Cosine = field(default_factory=Linear)

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise ValueError(f"`rate` must be positive, got {self.rate}")


@dataclass(frozen=True)
class Recipe:
    __pydantic_config__ = {"extra": "forbid"}

    data: Path
    steps: int = 100
    validation: float | int = 0.1
    name: str = "run"
    amp: bool = False
    limit: float | None = None
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(rate=5e-4))
    stages: tuple[Linear, ...] = ()
    weights: dict[str, float] = field(default_factory=dict)


def load(tmp_path: Path, text: str, *overrides: str) -> Recipe:
    (tmp_path / "recipe.yaml").write_text(text)
    return load_config(Recipe, tmp_path / "recipe.yaml", overrides=overrides)


def test_values_reach_the_nested_dataclasses(tmp_path):
    recipe = load(
        tmp_path,
        "data: a/b\nvalidation: 500\noptimizer:\n  betas: [0.8, 1]\n  decay: {period: 3}\nstages: [{slope: 2}, {}]\n"
        "weights: {energy: 0.5}\nlimit: .inf\n",
    )
    assert recipe == Recipe(
        data=Path("a/b"),
        validation=500,
        optimizer=Optimizer(rate=5e-4, betas=(0.8, 1.0), decay=Cosine(3)),
        stages=(Linear(2.0), Linear()),
        weights={"energy": 0.5},
        limit=inf,
    )
    assert isinstance(recipe.validation, int)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("1E-3", 1e-3), ("2.5e4", 2.5e4), ("1e5", 1e5), (".5", 0.5), ("-1.e+2", -100.0), ("3", 3.0)],
)
def test_numbers_as_people_write_them(tmp_path, text, value):
    assert load(tmp_path, f"data: a\nlimit: {text}").limit == value


def test_a_round_count_in_scientific_notation_is_an_integer(tmp_path):
    assert load(tmp_path, "data: a\nsteps: 2e5").steps == 200_000


def test_no_is_a_name_not_a_boolean(tmp_path):
    assert load(tmp_path, "data: a\nname: no").name == "no"
    assert load(tmp_path, "data: a\nname: 2024-01-01").name == "2024-01-01"


def test_overrides_win_and_keep_the_rest_of_the_section(tmp_path):
    recipe = load(tmp_path, "data: a\nsteps: 5", "steps=1e3", "optimizer.betas=[0.5, 0.6]", "amp=true")
    assert (recipe.steps, recipe.amp) == (1000, True)
    assert recipe.optimizer == Optimizer(rate=5e-4, betas=(0.5, 0.6))


def test_overrides_reach_into_lists(tmp_path):
    recipe = load(tmp_path, "data: a\nstages: [{slope: 1}, {slope: 2}]", "stages.1.slope=7")
    assert recipe.stages == (Linear(1.0), Linear(7.0))


def test_arguments_are_not_written_to():
    data = {"optimizer": {"rate": 1.0}}
    with_overrides(data, ["optimizer.rate=2.0"])
    assert data == {"optimizer": {"rate": 1.0}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: a\noptimizer: {rat: 1}", r"recipe.yaml: unknown key `optimizer.rat`, did you mean `rate`\?"),
        ("data: a\nstepz: 1", r"unknown key `stepz`, did you mean `steps`\?"),
        ("data: a\noptimizer: {decay: {xyzw: 1}}", "unknown key `optimizer.decay.xyzw`, expected one of period, slope"),
        ("data: a\noptimizer: {decay: {slope: 1, period: 1}}", "`optimizer.decay.period` does not go with the other"),
        ("data: a\nstages: [{slope: 1}, {slop: 1}]", r"unknown key `stages.1.slop`, did you mean `slope`\?"),
        ("data: a\nsteps: '3'", "`steps` must be a valid integer, got '3'"),
        ("data: a\nsteps: 3.5", "`steps` must be a valid integer"),
        ("data: a\nsteps: true", "`steps` must be a valid integer, got True"),
        ("data: a\nvalidation: much", "`validation` must be a valid number, got 'much'"),
        ("data: a\noptimizer: 3", "`optimizer` must be a mapping, got 3"),
        ("data: a\noptimizer: {betas: [1]}", "`optimizer.betas.1` is missing"),
        ("data: a\nweights: {energy: high}", "`weights.energy` must be a valid number, got 'high'"),
        ("steps: 3", "`data` is missing"),
        ("data: a\noptimizer: {rate: -1}", "`optimizer`: `rate` must be positive, got -1.0"),
        ("data: a\nsteps: 1\nsteps: 2", "line 3: not valid YAML: key `steps` comes twice"),
        ("data: [a", "line 1: not valid YAML"),
        ("- a\n- b", "must be a mapping of keys to values, got list"),
        ("", "must be a mapping of keys to values, got NoneType"),
    ],
)
def test_one_clear_line_for_each_mistake(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        load(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_all_mistakes_are_named_at_once(tmp_path):
    with pytest.raises(ValueError, match=r"`steps` must be.*`amp` must be"):
        load(tmp_path, "data: a\nsteps: x\namp: 3")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.yaml: no such file"):
        load_config(Recipe, tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps", "an override must look like `a.b=value`, got 'steps'"),
        ("=3", "an override must look like"),
        ("a..b=3", "an override must look like"),
        ("steps.x=3", "override `steps.x`: there is no `x` in 5"),
        ("stages.1.slope=3", "override `stages.1.slope`: there is no `1` in"),
        ("name=[1", "override `name`.*not valid YAML"),
    ],
)
def test_bad_overrides(tmp_path, override, message):
    with pytest.raises(ValueError, match=message):
        load(tmp_path, "data: a\nsteps: 5\nstages: [{}]", override)


def test_errors_of_the_top_class_stand_alone():
    with pytest.raises(ValueError, match=r"^configuration: `rate` must be positive, got -1.0$"):
        from_dict(Optimizer, {"rate": -1})


recipes = st.builds(
    Recipe,
    data=st.text("abc/.", min_size=1).map(Path),
    steps=st.integers(-(2**60), 2**60),
    validation=st.integers() | st.floats(allow_nan=False),
    name=st.text(),
    amp=st.booleans(),
    limit=st.none() | st.floats(allow_nan=False),
    optimizer=st.builds(
        Optimizer,
        rate=st.floats(1e-12, 1e12),
        betas=st.tuples(st.floats(0, 1), st.floats(0, 1)),
        decay=st.builds(Linear, st.floats(allow_nan=False)) | st.builds(Cosine, st.integers()),
    ),
    stages=st.lists(st.builds(Linear, st.floats(allow_nan=False))).map(tuple),
    weights=st.dictionaries(st.text(), st.floats(allow_nan=False)),
)


NUMBERLIKE = Recipe(data=Path("a"), name="0E0", weights={"0E0": 0.0, "1e3": 1.0, "no": 2.0, "12:30": 3.0, ".5": 4.0})
"""Text that one YAML or another takes for a number, a boolean or a time."""


@example(NUMBERLIKE)
@settings(max_examples=25, deadline=None)
@given(recipes)
def test_written_text_reads_back_equal(tmp_path_factory, recipe):
    path = tmp_path_factory.mktemp("config") / "recipe.yaml"
    path.write_text(to_yaml(recipe))
    assert load_config(Recipe, path) == recipe
    assert from_dict(Recipe, to_dict(recipe)) == recipe


@given(st.floats(allow_nan=False))
def test_every_float_that_python_prints_is_read_as_that_number(value):
    assert with_overrides({}, [f"x={value!r}"])["x"] == value or abs(value) == inf


def test_yaml_of_a_configuration_is_plain():
    assert yaml.safe_load(to_yaml(Recipe(Path("a")))) == to_dict(Recipe(Path("a")))
