"""The folder of a campaign: what is in it, what is missing, who may write where.

| file | content |
|---|---|
| `cells-<first>-<end>.safetensors` | a shard: finished cells, written whole or not at all, telling its own origin |
| `manifest.json` | the summary for people, made from the shards |
| `.cells-<first>-<end>.state` | a batch under way (`snapshot`); `.state.old`: one that could not be gone on with |
| `.lock` | empty; a process locks byte k of it while it may write cell k |

The shards are the truth. They may be moved, copied and linked between folders of the same campaign at will.
"""

import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Final

from amden import storage
from amden.shard import load_provenance
from amden.simulate.protocol import Protocol

MANIFEST: Final = "manifest.json"
AND: Final = " + "
"""Between the words of several machines."""
ALL: Final = range(2**62)
"""Every cell there may be."""

_LOCK: Final = ".lock"
_NO_LOCKS: Final = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
"""What file systems answer that know no locks: then there are none."""


class CampaignFolder:
    """A folder, read again at every question; nothing in it is taken for granted but what a shard says of itself."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._provenance: dict[tuple[str, int], Mapping[str, Any]] = {}

    def shards(self) -> list[range]:
        """Cells of each shard, in order."""
        return self._found("cells-*-*.safetensors", self.shard)

    def states(self) -> list[range]:
        """Cells of each batch whose state was saved, in order."""
        return self._found(".cells-*-*.state", self.state)

    def _found(self, pattern: str, place: Callable[[range], Path]) -> list[range]:
        """Cells of the files that lie in their place; what others call theirs is none of ours."""
        named = ((path, _numbered(path)) for path in self.path.glob(pattern))
        found = (cells for path, cells in named if cells is not None and place(cells) == path)
        return sorted(found, key=lambda cells: cells.start)

    def shard(self, cells: range) -> Path:
        """The file of these cells."""
        return self.path / f"{_name(cells)}.safetensors"

    def state(self, cells: range) -> Path:
        """Where these cells are kept while they are under way."""
        return self.path / f".{_name(cells)}.state"

    def provenance(self, cells: range) -> Mapping[str, Any]:
        """What a shard says of itself."""
        return self._read(self.shard(cells))

    def _read(self, path: Path) -> Mapping[str, Any]:
        key = path.name, path.stat().st_mtime_ns
        if key not in self._provenance:
            self._provenance[key] = load_provenance(path)
        return self._provenance[key]

    def failures(self) -> dict[int, str]:
        """Why cells were set aside, by their index."""
        every = (self.provenance(cells)["failures"] for cells in self.shards())
        return {int(i): why for failures in every for i, why in failures.items()}

    def covered(self, cells: range) -> int:
        """How many of these cells the shards hold."""
        return sum(len(_common(shard, cells)) for shard in self.shards())

    def missing(self, cells: range, size: int) -> Iterator[range]:
        """Batches of at most `size` cells that no shard holds, those with a saved state first."""
        begun: list[range] = []
        for state in self.states():
            if _within(state, cells) and not any(_common(state, held) for held in [*self.shards(), *begun]):
                begun.append(state)
        yield from begun
        held = sorted([*self.shards(), *begun], key=lambda some: some.start)
        for before, after in pairwise([range(cells.start), *held, range(cells.stop, ALL.stop)]):
            gap = range(max(before.stop, cells.start), min(after.start, cells.stop))
            for first in gap[::size]:
                yield range(first, min(first + size, gap.stop))

    def require_whole(self, cells: range) -> None:
        """`ValueError` where a batch under way has some of these cells and others."""
        for state in self.states():
            if _common(state, cells) and not _within(state, cells):
                raise ValueError(
                    f"{self.path}: cells {state.start} to {state.stop} are under way as one batch, of which cells "
                    f"{cells.start} to {cells.stop} are only a part; go on with the `n` and `part` (--n, --shard) that "
                    f"it was begun with, or remove {self.state(state).name} to begin it anew"
                )

    def origin(self) -> Mapping[str, Any] | None:
        """Protocol, seed and engine of the campaign in the folder; None where there is none.

        Errors: `ValueError` for a file in the place of the folder, for structures of no campaign or of several, for
        cells that are there twice.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path}: is a file; a campaign needs a folder")
        found = None
        if (self.path / MANIFEST).exists():
            found = self._origin_of(self._manifest())
        for path in sorted(self.path.glob("*.safetensors")):
            mine = self._origin_of(self._read(path))
            require_same(self.path, found or mine, mine)
            found = found or mine
        for one, other in pairwise(self.shards()):
            if other.start < one.stop:
                raise ValueError(
                    f"{self.path}: cells {other.start} to {min(one.stop, other.stop)} are there twice, "
                    f"in {self.shard(one).name} and {self.shard(other).name}; remove one of them"
                )
        return found

    def require(self, origin: Mapping[str, Any]) -> None:
        """`ValueError` unless the campaign in the folder is of this origin.

        One that left a manifest and no cells, done or under way, makes room unless a process is at work on it.
        """
        found = self.origin()
        try:
            require_same(self.path, found or origin, origin)
        except ValueError:
            if self._holds_cells():
                raise
            with self.claimed(ALL):
                if self._holds_cells():
                    raise
                (self.path / MANIFEST).unlink(missing_ok=True)

    def _holds_cells(self) -> bool:
        return bool(self.states()) or any(self.path.glob("*.safetensors"))

    def _origin_of(self, source: Mapping[str, Any]) -> Mapping[str, Any]:
        if "protocol" not in source or "seed" not in source:
            raise ValueError(f"{self.path}: holds structures that no campaign made; choose another folder")
        return {"engine": "amden", **{key: source[key] for key in ("protocol", "seed", "engine") if key in source}}

    def _manifest(self) -> Mapping[str, Any]:
        try:
            return dict(json.loads((self.path / MANIFEST).read_text(encoding="utf-8")))
        except ValueError:
            raise ValueError(f"{self.path / MANIFEST}: not the manifest of a campaign") from None

    def asked_for(self) -> int:
        """The largest `n` that the manifest or a shard tells of."""
        n = self._manifest().get("n", 0) if (self.path / MANIFEST).exists() else 0
        return max([n, *(cells.stop for cells in self.shards())])

    @contextmanager
    def claimed(self, cells: range) -> Iterator["Claim"]:
        """The right to write these cells, while the block lasts.

        Errors: `ValueError` where another process has it for some of them.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / _LOCK).open("ab") as file:
            try:
                _lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB, cells)
            except (BlockingIOError, PermissionError):
                what = "it" if cells == ALL else f"some of its cells {cells.start} to {cells.stop}"
                raise ValueError(f"{self.path}: another process is writing {what}") from None
            yield Claim(self, cells, file)


class Claim:
    """The right of one process to write some cells of a folder, and the manifest."""

    def __init__(self, folder: CampaignFolder, cells: range, file: BinaryIO) -> None:
        self.folder = folder
        self._cells = cells
        self._file = file

    def tidy(self) -> None:
        """Remove what a kill left behind: half-written files, states of cells that are finished."""
        for path in self.folder.path.glob(".*cells-*-*.tmp"):
            cells = _numbered(path)
            if cells is not None and _within(cells, self._cells):
                path.unlink(missing_ok=True)
        with self._manifest_alone():
            for path in self.folder.path.glob(f".{MANIFEST}.*.tmp"):
                path.unlink(missing_ok=True)
        for state in self.folder.states():
            if any(_common(state, shard) for shard in self.folder.shards()):
                self.folder.state(state).unlink(missing_ok=True)

    def write_shard(self, cells: range, content: bytes) -> None:
        """The finished cells take the place of their state."""
        with storage.replacing(self.folder.shard(cells)) as temporary:
            temporary.write_bytes(content)
        self.folder.state(cells).unlink(missing_ok=True)

    def adopt_shard(self, path: Path) -> None:
        """A shard of another folder, linked if the file system can, else copied."""
        with storage.replacing(self.folder.path / path.name) as temporary:
            try:
                os.link(path, temporary)
            except OSError:
                shutil.copyfile(path, temporary)

    def write_manifest(self, origin: Mapping[str, Any], n: int) -> None:
        """The summary of what is there, for a campaign of at least `n` cells."""
        with self._manifest_alone():
            manifest = {**origin, "n": max(n, self.folder.asked_for()), **_summary(self.folder)}
            with storage.replacing(self.folder.path / MANIFEST) as temporary:
                temporary.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @contextmanager
    def _manifest_alone(self) -> Iterator[None]:
        byte = range(ALL.stop, ALL.stop + 1)
        _lock(self._file, fcntl.LOCK_EX, byte)
        try:
            yield
        finally:
            _lock(self._file, fcntl.LOCK_UN, byte)


def _summary(folder: CampaignFolder) -> Mapping[str, Any]:
    """What the shards say of themselves."""
    shards, versions, properties = [], {}, {}
    for cells in folder.shards():
        own = folder.provenance(cells)
        shards.append(
            {
                "file": folder.shard(cells).name,
                "first": cells.start,
                "end": cells.stop,
                "failed": len(own["failures"]),
                "device": own.get("device"),
            }
        )
        for name, version in own.get("versions", {}).items():
            versions.setdefault(name, set()).update(version.split(AND))
        properties |= own.get("properties", {})
    return {
        "shards": shards,
        "failures": {str(i): why for i, why in folder.failures().items()},
        "versions": {name: ", ".join(sorted(found)) for name, found in sorted(versions.items())},
        **({"properties": properties} if properties else {}),
    }


def joined(told: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What several machines say of themselves, in one mapping: words that differ stand side by side.

    >>> joined([{"device": "H100", "versions": {"numpy": "2.0"}}, {"device": "H200", "versions": {"numpy": "2.0"}}])
    {'device': 'H100 + H200', 'versions': {'numpy': '2.0'}}
    """
    together = {}
    for key in dict.fromkeys(key for each in told for key in each):
        values = [each[key] for each in told if key in each]
        if all(isinstance(value, Mapping) for value in values):
            together[key] = joined(values)
        else:
            same = all(value == values[0] for value in values)
            together[key] = values[0] if same else AND.join(dict.fromkeys(map(str, values)))
    return together


def origin_of(protocol: Protocol, seed: int, engine: str) -> Mapping[str, Any]:
    """What the cells of a campaign are a function of, as JSON has it."""
    found = asdict(protocol)
    for stage in found["stages"]:
        stage.pop("typical_duration", None)  # only told, and unknown to older folders
    return json.loads(json.dumps({"protocol": found, "seed": seed, "engine": engine}))


def require_same(folder: Path, found: Mapping[str, Any], origin: Mapping[str, Any]) -> None:
    """`ValueError` unless a folder's campaign is of this origin; wordings may differ."""
    for key in ("seed", "engine"):
        if found[key] != origin[key]:
            raise ValueError(
                f"{folder}: holds a campaign of {key} {found[key]}, not {origin[key]}; choose another folder"
            )
    theirs, own = found["protocol"], origin["protocol"]
    for key in own.keys() - {"doc"}:
        if theirs.get(key) != own[key]:
            values = f" is {theirs.get(key)}, not {own[key]}" if isinstance(own[key], int | float | str) else ""
            raise ValueError(
                f"{folder}: holds a campaign of another protocol (`{key}`{values or ' differs'}); choose another folder"
            )


def merge_campaigns(sources: Sequence[str | Path], out: str | Path) -> CampaignFolder:
    """Bring the shards of several folders of one campaign together in the folder `out`, which may hold some already.

    Nothing is written unless all fits: one protocol, seed and engine; no cell in two places (the same file in two is
    well). Shards are linked where the file system can, else copied.

    Errors: `FileNotFoundError`, `ValueError`.
    """
    target = CampaignFolder(out)
    origin = target.origin()
    chosen = {target.shard(cells).name: target.shard(cells) for cells in target.shards()}
    n = target.asked_for()
    for source in map(CampaignFolder, sources):
        if not source.path.exists():
            raise FileNotFoundError(f"{source.path}: no such folder")
        own = source.origin()
        if own is None:
            raise ValueError(f"{source.path}: holds no campaign")
        require_same(source.path, own, origin or own)
        origin, n = origin or own, max(n, source.asked_for())
        for cells in source.shards():
            path = source.shard(cells)
            if path.read_bytes() != chosen.setdefault(path.name, path).read_bytes():
                raise ValueError(f"{path}: differs from {chosen[path.name]}; a cell must come once")
    _require_apart(list(chosen.values()))
    assert origin is not None
    with target.claimed(ALL) as claim:
        for path in chosen.values():
            if path.parent != target.path:
                claim.adopt_shard(path)
        claim.tidy()
        claim.write_manifest(origin, n)
    return target


def _require_apart(paths: Sequence[Path]) -> None:
    numbered = sorted((*map(int, re.findall(r"\d+", path.name)[:2]), path) for path in paths)
    for (_, end, one), (first, other_end, other) in pairwise(numbered):
        if first < end:
            raise ValueError(
                f"cells {first} to {min(end, other_end)} are in {one} and in {other}: a cell must come once"
            )


def _numbered(path: Path) -> range | None:
    """The cells that a file is named by."""
    found = re.search(r"cells-(\d+)-(\d+)\.", path.name)
    return range(int(found[1]), int(found[2])) if found else None


def _name(cells: range) -> str:
    return f"cells-{cells.start:07d}-{cells.stop:07d}"


def _common(one: range, other: range) -> range:
    return range(max(one.start, other.start), min(one.stop, other.stop))


def _within(part: range, whole: range) -> bool:
    return whole.start <= part.start and part.stop <= whole.stop


def _lock(file: BinaryIO, how: int, cells: range) -> None:
    try:
        fcntl.lockf(file, how, len(cells), cells.start)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
