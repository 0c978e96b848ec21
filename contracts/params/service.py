"""Settings and figures of the stages that judge the model and put it into service."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from contracts.stage import Metrics, Params

_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}"
"""A part of a model's name in the serving engine (serving/engine.py: full_tag)."""


ERRORS = (".brier", ".ece")
"""How the names of measures end that are errors: 0 is best, where 1 is of all others."""
MEASURES = ("", ".precision", ".recall", ".f1", ".macro_f1", ".exact", ".kappa", *ERRORS)
"""How the names of measures end, after that of a field (images/labeler/measures.py)."""
RULES_OF_POSITIVE = "rules.positive"
"""The one measure that is named otherwise."""


# --- evaluate -------------------------------------------------------------------------------------
class EvaluateParams(Params):
    """The questions to the candidate, and what it takes to go live."""

    not_identity: ClassVar[frozenset[str]] = frozenset(
        {"concurrency", "timeout_s", "patience_s", "champion"}
    )

    limit: int | None = Field(None, ge=1)
    """Most rows of the test split to ask; None asks all."""
    concurrency: int = Field(8, ge=1, le=256)
    """Most requests in flight; how many the server really answers at once is found out."""
    timeout_s: float = Field(300, gt=0)
    """Limit of one request in seconds."""
    patience_s: float = Field(120, ge=0)
    """How long the engine may answer nothing, a restart included, before the stage gives up."""
    max_unanswered: float = Field(0.02, ge=0, le=0.5)
    """Share of the rows that no comparison may be made on because the engine had no answer of the
    champion's or base model's, asked again as well. With more of the base model's the evaluation
    fails; a champion that leaves out more, while the engine answers others, cannot be compared
    with, so the candidate is refused unless it is forced."""
    min_valid: float = Field(0.99, ge=0, le=1)
    """Least share of answers that must be valid."""
    min_rules: float = Field(0.5, ge=0, le=1)
    """Least share of answers that must break no label rule of severity error (`rules`), and least
    share of the positive ones by themselves (`rules.positive`), which have the long texts. 0 asks
    for nothing, which suits a trial with a tiny model only."""
    min_scores: dict[str, float] = {}
    """Least value by measure, e.g. `{relevant: 0.9}`; see scores.json for the names. Not for an
    error (`.brier`, `.ece`), of which less is better."""
    above_constant: bool = True
    """Demand that in each measure compared the candidate is better than the same answer to every
    row would be; not in `valid` and `rules`, nor where even the labels could not be shown to be.
    Off, a useless model can pass where nothing is live."""
    baseline: str = ""
    """The base model as the serving engine names it, e.g. `qwen3:14b-q8_0`: asked the same, it is
    what the training has to beat. "" leaves the comparison out."""
    base: str = ""
    """Set by the driver: the model in the engine that the candidate is an adapter on, deploy.base;
    "" where the candidate is a whole model."""
    champion: str = ""
    """Set by the driver: the name that is live, `deploy.name`."""
    measures: tuple[str, ...] = ()
    """The measures in which models are compared; () takes those that matter by the task."""
    alpha: float = Field(0.05, gt=0, lt=0.5)
    """Level of the tests: how often chance alone may look like a difference."""
    margin: float = Field(0.1, gt=0, le=1)
    """How much worse than the champion a candidate must be shown not to be, in each measure; 1
    demands nothing of the kind, which suits a small test set."""
    drift_positions: int = Field(128, ge=0)
    """Most places of validation answers at which the candidate's probabilities are compared with
    what was trained, one request each; 0 leaves it out. See docs/reference/sentinels.md."""

    @field_validator("min_scores")
    @classmethod
    def _can_be_reached(cls, asked: dict[str, float]) -> dict[str, float]:
        """Refuse a value that no model reaches, and one for what is better the less it is."""
        if errors := [name for name in asked if name.endswith(ERRORS)]:
            raise ValueError(f"{', '.join(errors)}: an error, of which less is better")
        if above := [f"{name}: {least:g}" for name, least in asked.items() if least > 1]:
            raise ValueError(f"{', '.join(above)}: no measure is above 1, so no model would pass")
        return asked

    @field_validator("min_scores", "measures")
    @classmethod
    def _are_measures(cls, asked: Any) -> Any:
        """Refuse an unknown kind of measure hours before it is asked for."""
        for name in asked:
            field, dot, kind = name.partition(".")
            if name != RULES_OF_POSITIVE and (dot + kind not in MEASURES or not field):
                kinds = ", ".join(each for each in MEASURES if each)
                raise ValueError(f"{name} is no measure: one is FIELD, or ends with {kinds}")
        return asked


class EvaluateMetrics(Metrics):
    """The scores of the candidate."""

    rows: int
    valid: int
    promote: bool
    scores: dict[str, float]
    """By measure, those first by which models are compared; `ERRORS` among them."""
    reasons: tuple[str, ...] = ()
    silent: str = ""
    """Digest of a champion that left too many rows without an answer to be compared with."""
    models: dict[str, str] = {}
    """Digest of each model that was asked, by its role: candidate, champion, baseline; and under
    `base` that of the model that the candidate is an adapter on."""
    engine: str = ""
    """The serving engine that was asked: an Ollama's address, or `llamacpp`; "" of an older one."""
    drift: float | None = None
    """KL divergence (nats) of the candidate from base and adapter; None: not compared."""
    agreement: float | None = None
    """Share of the places at which both hold the same token for the likeliest."""

    def summary(self) -> str:
        """Return the share of valid answers, the verdict, and the scores."""
        first = list(self.scores.items())[:4]
        shown = ", ".join(f"{told_measure(name)} {value:.2f}" for name, value in first)
        verdict = "promoted" if self.promote else "refused"
        return f"{self.valid}/{self.rows} valid, {shown}; {verdict}"


def told_measure(name: str) -> str:
    """Return a measure's name for people, who take a figure for a score if nothing is said."""
    return f"{name} (less is better)" if name.endswith(ERRORS) else name


# --- deploy, restore, reprocess, verify: effects on the outside world -----------------------------
class DeployParams(Params):
    """Where the new model goes live."""

    not_identity: ClassVar[frozenset[str]] = frozenset({"force", "keep"})

    name: str = Field("", pattern=rf"^$|^({_NAME}/)?{_NAME}$")
    """Name of the model in the serving engine; versions are `name:RUN`, the alias
    `name:latest`. Empty: the task's, with dashes."""
    form: Literal["merged", "adapter"] = "merged"
    """`merged`: a whole model. `adapter`: the LoRA alone, served on `base`: quicker to make, and
    smaller (docs/how-to/adapter.md)."""
    base: str = Field("", pattern=rf"^$|^({_NAME}/)?{_NAME}(:{_NAME})?$")
    """With form=adapter: the base model as the serving engine names it, e.g. `qwen3:14b-q8_0`. It
    has to be the one of `fetch`."""
    keep: int = Field(3, ge=1)
    """Models of earlier runs that are kept for `driver rollback`; older ones are removed, and of
    them first what was taken back."""
    force: str = ""
    """Why a model that the gate has refused goes live all the same; `run --force REASON` sets it,
    and the deployment keeps it, with the name of the user."""

    @model_validator(mode="after")
    def _names_a_base(self) -> DeployParams:
        if self.form == "adapter" and not self.base:
            raise ValueError("form=adapter needs base, the model that it is served on")
        if self.base and self.base.partition(":")[0] == self.name:
            raise ValueError(f"base={self.base} is what is deployed: it would be trained twice")
        return self

    @property
    def served_on(self) -> str:
        """The model that the adapter is served on, "" for a merged model."""
        return self.base if self.form == "adapter" else ""


class DeployMetrics(Metrics):
    """What is live now, and what was."""

    tag: str
    alias: str
    digest: str
    previous: str = ""
    forced: str = ""
    """Why, and by whom, the gate was overruled; "" where it was not."""
    moved: bool = True
    """Whether the name named another model before, or none; an older driver has not noted it."""

    def summary(self) -> str:
        """Return the version and its digest, and whether the gate was overruled."""
        forced = f", forced: {self.forced}" if self.forced else ""
        return f"{self.alias} is {self.tag} ({self.digest[:12]}){forced}"


class RestoreParams(Params):
    """The return of the service has nothing to set here; see `backend` and `window`."""


class RestoreMetrics(Metrics):
    """How long the backend was away."""

    away_s: float

    def summary(self) -> str:
        """Return the outage in minutes and seconds."""
        if not self.away_s:
            return "the service was not touched"
        return f"backend healthy, away for {int(self.away_s // 60)} min {self.away_s % 60:.0f} s"


class ReprocessParams(Params):
    """How the backend's items get the new model's answers."""

    not_identity: ClassVar[frozenset[str]] = frozenset(
        {
            *("mode", "concurrency", "timeout_s", "bulk_timeout_s", "patience_s"),
            *("max_error_share", "unverified"),
        }
    )

    enabled: bool = True
    """False leaves the items as they are; without a backend there are none."""
    reviewed: bool = False
    """Reprocess manually reviewed items too: the backend overwrites what people have written."""
    unverified: bool = False
    """Take the answers of a live model that is not verified, or was taken back;
    `driver reprocess --unverified` sets it."""
    mode: Literal["item", "channel"] = "item"
    """`item`: one request an item, each with its own commit. `channel`: one request a channel where
    that loses nothing (docs/how-to/reprocess.md), else item by item."""
    concurrency: int = Field(2, ge=1, le=64)
    """Most items under way at once; more than the serving engine answers at once gain nothing."""
    timeout_s: float = Field(180, gt=0)
    """How long one item may take."""
    bulk_timeout_s: float = Field(7200, gt=0)
    """How long a whole channel may take, with mode=channel."""
    patience_s: float = Field(300, ge=0)
    """How long the backend, or Ollama behind it, may be away before the stage gives up."""
    max_error_share: float = Field(0.1, ge=0, le=1)
    """Share of failed items from which the stage stops."""


class ReprocessMetrics(Metrics):
    """What became of the items."""

    processed: int
    failed: int
    left_out: int
    skipped: str = ""
    """Why no item was looked at; "" where they were."""

    def summary(self) -> str:
        """Return the counts, or why there are none."""
        if not self.processed + self.failed + self.left_out:
            return self.skipped or "no item to reprocess"
        return f"{self.processed} items, {self.failed} failed, {self.left_out} reviewed left out"


class VerifyParams(Params):
    """How the deployed model is checked before every item gets its answers."""

    not_identity: ClassVar[frozenset[str]] = frozenset({"timeout_s"})

    constrained: bool = False
    """Send the task's JSON schema with the canary. The backend sends none, so the default is the
    truer test."""
    items: int = Field(3, ge=0, le=100)
    """How many items the backend analyses with the new model before any other; they are read back
    and judged. 0 asks the engine alone; without a backend there are none. Where none can be asked,
    all reviewed or not in the backend, run and report warn."""
    max_error_share: float = Field(0, ge=0, le=1)
    """Share of them that may be left without a valid answer. With more the model is taken back."""
    max_broken_share: float = Field(0.5, ge=0, le=1)
    """Share of them whose answer may break a label rule that is an error: a good model does that
    now and then. With more the model is taken back; 1 leaves the rules out."""
    timeout_s: float = Field(300, gt=0)
    """Limit of one question in seconds."""


class VerifyMetrics(Metrics):
    """The canary's answer, and what the backend's items have shown."""

    model: str
    digest: str
    fields: int
    answer: dict[str, Any]
    items: tuple[str, ...] = ()
    """The items that the backend has analysed with this model."""
    wanted: int = 0
    """How many were to be: `VerifyParams.items`, 0 without a backend."""
    failed: int = 0
    """How many of them have no valid answer."""
    broken: int = 0
    """How many have an answer that breaks a label rule."""

    def summary(self) -> str:
        """Return who answered, and how."""
        said = f"{self.model} answered the canary, {self.fields} fields valid"
        if not self.items:
            return f"{said}. WARNING: {self.unseen()}" if self.unseen() else said
        valid = len(self.items) - self.failed
        rules = f", {self.broken} against a label rule" if self.broken else ""
        return f"{said}; through the backend {valid} of {len(self.items)} items valid{rules}"

    def unseen(self) -> str:
        """Return what is not verified where not one item could be asked, "" where that is none."""
        if self.items or not self.wanted:
            return ""
        return (
            f"not one of the {self.wanted} items of verify.items could be asked through the "
            "backend, so nobody has seen which model it asks, and that it keeps the answers"
        )
