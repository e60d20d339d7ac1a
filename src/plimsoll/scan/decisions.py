"""Decisions of people on the pictures of a table: read from CSV or Parquet, and joined with the scores.

A decision names its picture by `sha256` or `path`. Where it says which stratum it was drawn from, that is a range of
scores: with strata of scores alone it is known how many pictures of the table each has.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.foreign import require
from plimsoll.core.wording import printable
from plimsoll.errors import InputError
from plimsoll.scan import storage
from plimsoll.scan.plan import PARQUET_INSTALL
from plimsoll.scan.table import Table
from plimsoll.system import files

MAX_BYTES = 1_000_000_000
"""A larger file of decisions is refused: millions of decisions stay below it."""
_BATCH = 65_536
_GRID = np.arange(1, 10_000) / 10_000
"""Where the population is counted in any case."""
_NUMBER = r"[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?"
_RANGE = re.compile(rf"\s*[\[(]?\s*({_NUMBER})\s*(?:-|–|\.\.|,|:)\s*({_NUMBER})\s*[\])]?\s*")
_SKIPPED = ("", "skip", "skipped", "unsure")
_FINE = ("fine", "safe", "ok", "good")
"""Words that mean the opposite of bad whoever says them: no mistake where no other word occurs."""
_FORM = (
    "Expected a CSV or Parquet file with the columns decision, and sha256 or path; optional: stratum, weight, reviewer."
)

Floats = NDArray[np.float64]
Values = Mapping[str, Any]


@dataclass
class _Picture:
    """What was decided of a picture."""

    votes: dict[str, bool] = field(default_factory=dict)
    """Reviewer → whether it is bad; a reviewer's last decision counts."""
    stratum: tuple[float, float] | None = None
    weight: float | None = None


@dataclass
class Decisions:
    """The decisions of a file, by picture."""

    file: str
    by_hash: dict[str, _Picture] = field(default_factory=dict)
    by_path: dict[str, _Picture] = field(default_factory=dict)
    skipped: int = 0
    """Rows without a decision."""
    ties: int = 0
    """Pictures that as many reviewers call bad as fine."""

    @classmethod
    def read(cls, file: Path, bad: Collection[str]) -> Decisions:
        """Read decisions; those in `bad` (whatever their case) mean that a picture is bad, any other word that it is
        fine.

        Several reviewers: the majority; ties are left out. Raises InputError where the file can't be read, lacks a
        column, or has no word of `bad`.
        """
        decisions = cls(str(file))
        words: Counter[str] = Counter()
        names = {word.casefold() for word in bad}
        for number, row in enumerate(_rows(file), 1):
            word = str(row.get("decision") or "").strip()
            if word.casefold() in _SKIPPED and word.casefold() not in names:
                decisions.skipped += 1
                continue
            words[word] += 1
            decisions._add(row, word.casefold() in names, number)
        if not words:
            raise InputError(f"{file}: no decisions in it", _FORM)
        if not any(word.casefold() in (*names, *_FINE) for word in words):
            seen = ", ".join(f"{printable(word, 40)} ({count:,})" for word, count in words.most_common(10))
            raise InputError(
                f"{file}: no decision is {' or '.join(sorted(bad))}; it has {seen}",
                "Name the words for bad pictures with --bad WORD, which may be repeated.",
            )
        for pictures in (decisions.by_hash, decisions.by_path):
            for key in [key for key, picture in pictures.items() if _is_tie(picture)]:
                del pictures[key]
                decisions.ties += 1
        return decisions

    @property
    def pictures(self) -> list[_Picture]:
        """All pictures with a decision."""
        return [*self.by_hash.values(), *self.by_path.values()]

    def strata(self, given: Sequence[float] | None) -> Floats:
        """Return the scores at which strata meet: those given, those of the decisions, or none, where the pictures
        were drawn from the whole table.

        Ranges may overlap (an audit of everything beside a look at the borderline): where they do, their pictures are
        a random sample together. Raises InputError where weights differ but no strata are known.
        """
        if given is not None:
            return np.unique(np.asarray(given, np.float64))
        ranges = {picture.stratum for picture in self.pictures if picture.stratum is not None}
        if ranges:
            return np.unique([edge for pair in ranges for edge in pair])
        weights = [picture.weight for picture in self.pictures if picture.weight is not None]
        if weights and max(weights) > 1.05 * min(weights):
            raise InputError(
                f"{self.file}: weights from {min(weights):g} to {max(weights):g}, but no strata that they belong to",
                "Give the column stratum (for example 0.2-0.8), or the scores where strata meet: --strata 0.2,0.8.",
            )
        return np.empty(0)

    def _add(self, row: Values, bad: bool, number: int) -> None:
        sha256, path = (str(row.get(key) or "").strip() for key in ("sha256", "path"))
        if not sha256 and not path:
            raise InputError(f"{self.file}: row {number:,} names no picture", _FORM)
        key = sha256.lower() or path
        picture = (self.by_hash if sha256 else self.by_path).setdefault(key, _Picture())
        picture.votes[str(row.get("reviewer") or f"row {number}")] = bad
        if (text := str(row.get("stratum") or "").strip()) and picture.stratum is None:
            picture.stratum = self._range(text, number)
        if (text := str(row.get("weight") or "").strip()) and picture.weight is None:
            picture.weight = self._weight(text, number)

    def _range(self, text: str, number: int) -> tuple[float, float]:
        match = _RANGE.fullmatch(text)
        if match is None or float(match[1]) >= float(match[2]):
            raise InputError(
                f"{self.file}: row {number:,} has the stratum '{printable(text, 40)}', expected a range of scores such"
                " as 0.2-0.8",
                "Strata of another kind have no known size in the table; give the scores where strata meet with"
                " --strata 0.2,0.8, if each is a random sample of its range.",
            )
        return float(match[1]), float(match[2])

    def _weight(self, text: str, number: int) -> float:
        try:
            weight = float(text)
        except ValueError:
            weight = 0.0
        if not 0 < weight < float("inf"):
            raise InputError(
                f"{self.file}: row {number:,} has the weight '{printable(text, 40)}', expected a number above 0",
                "The weight is how many pictures of the table the reviewed one stands for.",
            )
        return weight


def _is_tie(picture: _Picture) -> bool:
    return 2 * sum(picture.votes.values()) == len(picture.votes)


def _rows(file: Path) -> Iterator[Values]:
    """Yield the rows of a CSV or Parquet file; raises InputError."""
    try:
        with file.open("rb") as stream:
            parquet_file = stream.read(4) == b"PAR1"
        if file.stat().st_size > MAX_BYTES:
            raise InputError(f"{file}: larger than {MAX_BYTES // 1_000_000:,} MB", "Give the decisions alone.")
        if parquet_file:
            yield from _parquet_rows(file)
            return
        reader = csv.DictReader(io.StringIO(files.read_text(file, MAX_BYTES).removeprefix("\ufeff"), newline=""))
        _require_columns(file, reader.fieldnames or ())
        yield from reader
    except (OSError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{file}: can't read the decisions: {reason}", _FORM) from error


def _parquet_rows(file: Path) -> Iterator[Values]:
    arrow = require("pyarrow", PARQUET_INSTALL)
    from pyarrow import parquet

    try:
        source = parquet.ParquetFile(file)
        names = source.schema_arrow.names
        _require_columns(file, names)
        columns = [name for name in names if name in ("decision", "sha256", "path", "stratum", "weight", "reviewer")]
        for batch in source.iter_batches(_BATCH, columns=columns):
            yield from batch.to_pylist()
    except arrow.ArrowException as error:
        raise InputError(f"{file}: can't read the decisions: {error}", _FORM) from error


def _require_columns(file: Path, names: Collection[str]) -> None:
    if "decision" not in names or not {"sha256", "path"} & set(names):
        shown = ", ".join(printable(str(name), 40) for name in list(names)[:20]) or "none"
        raise InputError(f"{file}: the columns are {shown}", _FORM)


@dataclass(frozen=True)
class ReviewedTable:
    """A table's scores, counted, and those of its pictures that people decided on.

    Equal pictures count as often as they occur; a decision on one is a single decision.
    """

    edges: Floats
    """Rising; the population is known between any two of them, a score that equals an edge lying above it."""
    counts: NDArray[np.int64]
    """Pictures below the first edge, between each two, and from the last on."""
    scores: Floats
    """`[reviewed]`."""
    bad: NDArray[np.bool_]
    """`[reviewed]`."""
    strata: Floats
    """The edges where strata meet."""
    without_score: int
    unmatched: tuple[str, ...]
    """Decisions whose picture is not in the table, or has no score there."""

    @property
    def population(self) -> int:
        """Pictures with a score."""
        return int(self.counts.sum())

    @classmethod
    def count(
        cls, table: Table, bundle_sha256: str, decisions: Decisions, strata: Floats, edges: Sequence[float] = ()
    ) -> ReviewedTable:
        """Read the scores of one model from a table, part by part, and join the decisions.

        `edges` are scores where bands will meet. Raises InputError where the table can't be read or has no scores,
        where no decision belongs to it, and where a picture lies outside its stratum.
        """
        join = _Join(decisions)
        every = np.unique(np.concatenate([_GRID, strata, np.asarray(edges, np.float64)]))
        counts, without = np.zeros(every.size + 1, np.int64), 0
        for batch in _batches(table, bundle_sha256):
            scores = batch.column("score").to_numpy(zero_copy_only=False).astype(np.float64)
            scored = ~np.isnan(scores)
            without += int((~scored).sum())
            counts += np.bincount(np.searchsorted(every, scores[scored], side="right"), minlength=counts.size)
            join.add(batch, scores)
        if not counts.sum():
            raise InputError(f"{table.folder.address}: no picture has a score", "Scan pictures with a classifier.")
        scores, bad, unmatched = join.result()
        if not scores.size:
            raise InputError(
                f"{decisions.file}: none of its {len(decisions.pictures):,} pictures is in {table.folder.address}, for"
                f" example {printable(unmatched[0], 100)}",
                "sha256 or path have to be as in the table.",
            )
        return cls(every, counts, scores, bad, strata, without, tuple(unmatched))


class _Join:
    """Finds the score of each picture with a decision."""

    def __init__(self, decisions: Decisions) -> None:
        self._decisions = decisions
        self._sources = tuple(
            (column, pictures, require("pyarrow", PARQUET_INSTALL).array(list(pictures), "string"))
            for column, pictures in (("sha256", decisions.by_hash), ("path", decisions.by_path))
            if pictures
        )
        self._scores: dict[tuple[str, str], float] = {}

    def add(self, batch: Any, scores: Floats) -> None:
        """Take what a batch of the table has."""
        from pyarrow import compute

        for column, pictures, keys in self._sources:
            hits = compute.is_in(batch.column(column), value_set=keys).to_numpy(zero_copy_only=False)
            for row in np.flatnonzero(hits & ~np.isnan(scores)):
                key = batch.column(column)[int(row)].as_py()
                if column == "path" and batch.column("sha256")[int(row)].as_py() in self._decisions.by_hash:
                    continue  # The same picture, decided on by its hash too.
                if (column, key) not in self._scores:
                    self._check(key, pictures[key], float(scores[row]))
                    self._scores[column, key] = float(scores[row])

    def result(self) -> tuple[Floats, NDArray[np.bool_], list[str]]:
        """Return scores, whether each is bad, and the keys without a score."""
        values, bad, unmatched = [], [], []
        for column, pictures, _ in self._sources:
            for key, picture in pictures.items():
                if (score := self._scores.get((column, key))) is None:
                    unmatched.append(key)
                else:
                    values.append(score)
                    bad.append(2 * sum(picture.votes.values()) > len(picture.votes))
        return np.array(values, np.float64), np.array(bad, bool), unmatched

    def _check(self, key: str, picture: _Picture, score: float) -> None:
        if picture.stratum is not None and not picture.stratum[0] <= score <= picture.stratum[1]:
            low, high = picture.stratum
            raise InputError(
                f"{self._decisions.file}: {printable(key, 100)} was drawn from the scores {low:g}-{high:g}, but has the"
                f" score {score:.4f} in the table",
                "Give the table that the pictures were drawn from.",
            )


def _batches(table: Table, bundle_sha256: str) -> Iterator[Any]:
    """Yield the rows of one model: path, sha256, score."""
    arrow = require("pyarrow", PARQUET_INSTALL)
    from pyarrow import compute, parquet

    for name in sorted(table.folder.names("rows")):
        if not name.endswith(".parquet"):
            continue
        address = table.folder.inner(f"rows/{name}")
        try:
            with storage.open_file(address) as stream:
                part = parquet.ParquetFile(stream)
                if "score" not in part.schema_arrow.names:
                    raise InputError(f"{os.fspath(address)}: no column score", "Scan pictures with a classifier.")
                for batch in part.iter_batches(_BATCH, columns=["path", "sha256", "bundle_sha256", "score"]):
                    yield batch.filter(compute.equal(batch.column("bundle_sha256"), bundle_sha256))
        except (OSError, arrow.ArrowException) as error:
            raise InputError(f"can't read {address}: {error}") from error
