"""The answer: nine fields, in the order in which the model writes them."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator


class Priority(StrEnum):
    """How urgent an article is, on the only scale the backend knows."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"

    @property
    def meaning(self) -> str:
        """What of the guide's four steps it stands for."""
        return "; oder ".join(step.guide for step in Urgency if step.priority is self)


class Urgency(StrEnum):
    """The four steps of the labelling guide.

    Only people and the guide speak of them: `priority` is the one place where they become the
    three that the backend knows.
    """

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"

    @property
    def priority(self) -> Priority:
        """The step on the backend's scale."""
        return Priority.HIGH if self is Urgency.CRITICAL else Priority(self.value)

    @property
    def guide(self) -> str:
        """What the guide answers to the question whether the Liga must act."""
        return _GUIDE[self]


_GUIDE = {
    Urgency.CRITICAL: "sofort, binnen 24 bis 48 Stunden: Kürzung, Schließung, Insolvenz, "
    "Gesetzentwurf mit Frist",
    Urgency.HIGH: "binnen zwei Wochen: Referentenentwurf, Anhörung, Reform, Förderrichtlinie, "
    "Tarifrunde",
    Urgency.MEDIUM: "beobachten: Debatte, Forderung, Studie, Bericht",
    Urgency.LOW: "nur zur Kenntnis: Porträt, Hintergrund, Ehrung",
}


class Arbeitskreis(StrEnum):
    """The working groups that an article is handed to."""

    AK1 = "AK1"
    AK2 = "AK2"
    AK3 = "AK3"
    AK4 = "AK4"
    AK5 = "AK5"
    QAG = "QAG"

    @property
    def meaning(self) -> str:
        """What the working group is for, as the prompts say it."""
        return _TOPICS[self]


_TOPICS = {
    Arbeitskreis.AK1: "Grundsatz und Sozialpolitik",
    Arbeitskreis.AK2: "Migration und Flucht",
    Arbeitskreis.AK3: "Gesundheit, Pflege und Senioren",
    Arbeitskreis.AK4: "Eingliederungshilfe",
    Arbeitskreis.AK5: "Kinder, Jugend, Frauen und Familie",
    Arbeitskreis.QAG: "Digitalisierung, Klimaschutz, Wohnen",
}

# Upper bounds keep a model that does not stop from filling its context; the lengths that a good
# answer should have are label rules, because they depend on the article.
Summary = Annotated[str, StringConstraints(min_length=1, max_length=2500)]
Analysis = Annotated[str, StringConstraints(min_length=1, max_length=6000)]
Argument = Annotated[str, StringConstraints(min_length=1, max_length=500)]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=40)]
Reasoning = Annotated[str, StringConstraints(min_length=1, max_length=800)]


class LigaRelevance(BaseModel):
    """What the Liga has to know about one article."""

    # Finite floats only: infinities are not JSON. Whitespace stays as it is, as nothing is
    # ever repaired; `_blank_texts` refuses texts that are nothing else.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    summary: Summary | None = Field(
        title="Zusammenfassung",
        description="Neutrale Fakten in 4 bis 8 Sätzen, bei kurzen Artikeln weniger; null, wenn "
        "die Meldung nicht relevant ist.",
    )
    detailed_analysis: Analysis | None = Field(
        title="Analyse",
        description="Fakten, Zahlen, wörtliche Zitate, Folgen und Zusammenhang in 10 bis 15 "
        "Sätzen, soweit der Artikel sie trägt; keine Vermutung über die Liga. null, wenn die "
        "Meldung nicht relevant ist.",
    )
    argumentationskette: list[Argument] = Field(
        max_length=6,
        title="Argumente",
        description="2 bis 6 Argumente für eine Stellungnahme, im Indikativ; leer, wenn die "
        "Meldung nicht relevant ist.",
    )
    relevant: bool = Field(title="Relevant", description="Ob die Liga die Meldung kennen muss.")
    relevance_score: float = Field(
        ge=0.0,
        le=1.0,
        title="Relevanz",
        description="Wie sicher die Meldung relevant ist; ab 0.5 genau dann, wenn relevant true "
        "ist.",
    )
    priority: Priority | None = Field(
        title="Priorität",
        description="Ob und bis wann die Liga handeln muss; null genau dann, wenn die Meldung "
        "nicht relevant ist.",
    )
    assigned_aks: list[Arbeitskreis] = Field(
        max_length=3,
        title="Arbeitskreise",
        description="Die zuständigen Arbeitskreise, der wichtigste zuerst; leer, wenn die Meldung "
        "nicht relevant ist.",
    )
    tags: list[Tag] = Field(
        max_length=8, title="Schlagworte", description="Kurze Schlagworte, auch bei irrelevanten."
    )
    reasoning: Reasoning = Field(
        title="Begründung",
        description="Warum die Meldung relevant ist oder nicht, in 1 bis 3 Sätzen.",
    )

    @model_validator(mode="after")
    def _blank_texts(self) -> Self:
        """Refuse a text or tag that is blank."""
        texts = [self.summary, self.detailed_analysis, self.reasoning]
        if any(t is not None and not t.strip() for t in [*texts, *self.argumentationskette]):
            raise ValueError("a text is blank")
        if any(not tag.strip() for tag in self.tags):
            raise ValueError("a tag is blank")
        return self

    @model_validator(mode="after")
    def _no_doubles(self) -> Self:
        """Refuse a list that names something twice."""
        for name in ("argumentationskette", "assigned_aks", "tags"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} names something twice")
        return self

    @model_validator(mode="after")
    def _fits_relevance(self) -> Self:
        """Refuse a relevant answer without its two texts, and an irrelevant one with something in
        summary, analysis, priority, arguments or Arbeitskreise."""
        missing = [n for n in ("summary", "detailed_analysis") if getattr(self, n) is None]
        if self.relevant and missing:
            raise ValueError(f"relevant without {' and '.join(missing)}")
        if not self.relevant:
            empties = ("summary", "detailed_analysis", "priority")
            filled = [name for name in empties if getattr(self, name) is not None]
            filled += [n for n in ("argumentationskette", "assigned_aks") if getattr(self, n)]
            if filled:
                raise ValueError(f"irrelevant with {' and '.join(filled)}")
        return self
