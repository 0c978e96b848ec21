"""Settings and figures of the stages that make the data: snapshot, fetch, label, split."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from contracts.stage import Metrics, Params


# --- snapshot: the items as they are now ----------------------------------------------------------
class SnapshotParams(Params):
    """Where the items come from."""

    not_identity: ClassVar[frozenset[str]] = frozenset({"max_age_h"})

    source: Literal["files", "backend"] = "files"
    """`files` reads JSONL files, `backend` the application's own items (backend.url)."""
    items: tuple[str, ...] = ()
    """JSONL files or globs with the items, relative to the current directory; a file that several
    name is read once, and blank lines count for nothing."""
    reviewed: tuple[str, ...] = ()
    """JSONL files or globs with reviewed labels, `{"id": …, "label": {…}}`; they win over any
    teacher."""
    max_age_h: float = Field(24, ge=0)
    """Hours for which a snapshot of the backend is taken as it is, so that an interrupted run goes
    on with its own items; 0 always takes a new one."""
    source_digest: str = ""
    """Set by the driver: what the source holds, so that a change of a file is seen."""


class SnapshotMetrics(Metrics):
    """Counts of what was taken."""

    items: int
    reviewed: int
    unusable_reviews: int = 0
    """Reviews that are no whole valid label: the label stage completes those that lack added fields
    alone, and puts the others into quarantine."""

    def summary(self) -> str:
        """Return the counts."""
        unusable = f", {self.unusable_reviews} that are not whole" if self.unusable_reviews else ""
        return f"{self.items} items, {self.reviewed} reviewed labels{unusable}"


# --- fetch: the base model ------------------------------------------------------------------------
class FetchParams(Params):
    """Which base model, and exactly which version of it."""

    model: str = "Qwen/Qwen3-14B"
    """Model id on the Hugging Face hub; unused when `path` is set."""
    revision: str = ""
    """Commit of the model repository (40 hex digits); a branch name can move under a run."""
    path: str = ""
    """A local folder with the base model instead of the hub."""
    source_digest: str = ""
    """Set by the driver: names, sizes and times of a local folder's files."""

    @model_validator(mode="after")
    def _pinned(self) -> FetchParams:
        if not self.path and not re.fullmatch("[0-9a-f]{40}", self.revision):
            raise ValueError(
                "revision must be the commit (40 hex digits) of the model on the hub, "
                "or path a local folder"
            )
        return self


class FetchMetrics(Metrics):
    """What was fetched."""

    model: str
    files: int
    bytes: int

    def summary(self) -> str:
        """Return model and size."""
        return f"{self.model}, {self.bytes / 1e9:.2f} GB in {self.files} files"


# --- label: the teacher's answers -----------------------------------------------------------------
class LabelParams(Params):
    """How the teacher is asked."""

    not_identity: ClassVar[frozenset[str]] = frozenset(
        {"concurrency", "timeout_s", "patience_s", "num_ctx"}
    )

    teacher: str = Field("qwen3:32b", min_length=1)
    """The larger local model, as the serving engine names it."""
    num_ctx: int | None = Field(None, ge=512)
    """Context window in tokens: label prompt, article, an answer and its correction; None
    derives it from the longest item."""
    num_predict: int = Field(3000, ge=16)
    """Most tokens in one answer."""
    temperature: float = Field(0.1, ge=0, le=2)
    """Sampling temperature of the first attempt."""
    max_attempts: int = Field(3, ge=1, le=10)
    """Attempts at an item before it goes to quarantine."""
    concurrency: int = Field(16, ge=1, le=256)
    """Most requests in flight at one server; how many it really answers at once is found out."""
    timeout_s: float = Field(600, gt=0)
    """Limit of one request in seconds."""
    patience_s: float = Field(120, ge=0)
    """How long no server may answer anything, a restart included, before the stage gives up."""
    gold_sample: int = Field(20, ge=0)
    """Reviewed items that the teacher is asked for too, to measure how far it agrees; their labels
    stay as they are. Not one whose text an item with an imported label shares; and where every item
    is reviewed it is asked nothing."""
    min_labelled: float = Field(0.8, ge=0, le=1)
    """Least share of items that must end with a valid label."""
    backfill: bool = True
    """Whether answers of before an edit of the task are kept as far as the edit allows, and asked
    for added fields alone; false labels every item anew after any edit."""


class LabelMetrics(Metrics):
    """Where the labels come from."""

    reviewed: int
    imported: int = 0
    cached: int
    asked: int
    backfilled: int = 0
    """Items whose answers the teacher was asked to complete by the fields that they lacked."""
    derived: int = 0
    """Labels made of answers that were given under an earlier definition of the task."""
    quarantined: int
    imports: int = 0
    """Number of the last import of labels that the stage knew of."""

    def summary(self) -> str:
        """Return the counts, most trusted first."""
        imported = f"{self.imported} imported, " if self.imported else ""
        filled = f"{self.backfilled} asked for added fields, " if self.backfilled else ""
        return (
            f"{self.reviewed} reviewed, {imported}{self.cached} cached, {self.asked} asked, "
            f"{filled}{self.quarantined} quarantined"
        )


# --- split ----------------------------------------------------------------------------------------
class SplitParams(Params):
    """How the labelled items are divided."""

    validation: float = Field(0.15, gt=0, lt=1)
    """Share of the rows held out for the choice of the checkpoint."""
    test: float = Field(0.15, gt=0, lt=1)
    """Share of the rows held out for the evaluation."""
    near_duplicate: float = Field(0.7, gt=0, le=1)
    """Jaccard similarity of word 3-shingles from which two items are in one group, which never
    crosses a split."""
    train_on: Literal["one", "all"] = "one"
    """Of a group in training: `one` row, or `all` whose words differ. Validation and test always
    hold one of each group."""
    by: Literal["class", "time"] = "class"
    """`class` draws every split with the same mix of classes; `time` tests on the newest items and
    validates on those before, items without a date are trained on."""
    test_set: str = Field("default", pattern=r"^[A-Za-z0-9_-]{0,60}$")
    """Name of the frozen test set that later runs keep and fill up; another name starts another
    one, "" keeps none."""
    seed: int = Field(17, ge=0, lt=1 << 32)
    """Seed of the draw; a frozen test set stays what it is."""

    @model_validator(mode="after")
    def _leaves_training(self) -> SplitParams:
        if self.validation + self.test > 0.8:
            raise ValueError("validation and test together leave under 20 % for training")
        return self


class SplitMetrics(Metrics):
    """Rows in each split."""

    train: int
    validation: int
    test: int
    duplicates: int
    frozen: int
    """Test rows that an earlier run has tested too."""
    test_set_digest: str
    """Of the frozen test set's file as this split has left it, "" without one."""

    def summary(self) -> str:
        """Return the sizes."""
        kept = f" ({self.frozen} as before)" if self.frozen else ""
        return (
            f"{self.train} / {self.validation} / {self.test} rows{kept}, "
            f"{self.duplicates} duplicates left out"
        )
