"""Write the sample: `items.jsonl` and `labels.jsonl`, the same bytes on every run.

    python examples/liga-sample/generate.py [folder]

Every item is put together from the hand-written sentences in `bank/`, and its label from the
labels' side of the same sentences, so that a label never says more than its item. Facts and
figures are drawn at random with a fixed seed.
"""

import json
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from contracts.files import write_jsonl
from contracts.label_definition import LabelDefinition, to_ask
from tasks import load_task
from tasks.liga_relevance import Article, Urgency
from tasks.liga_relevance.article import CONTENT_LIMIT

HERE = Path(__file__).resolve().parent
SEED = 20260312
SCORES = {Urgency.CRITICAL: 0.9, Urgency.HIGH: 0.8, Urgency.MEDIUM: 0.7, Urgency.LOW: 0.6}
# How many items of each kind; a long one has several sections, a short one a single event.
SHORT_RELEVANT, SHORT_IRRELEVANT = 99, 186
LONG_RELEVANT = (1, 2, 2, 3, 3, 4, 5, 6, 8, 10, 12, 12)
LONG_IRRELEVANT = (1, 1, 1, 2, 2, 3, 3, 4, 5, 6, 6, 7, 7, 8, 8, 9, 9, 9, 9)
HASHTAGS = 0.25
FRAME_PER_ITEM = 36
EXACT_COPIES = NEAR_COPIES = 12
RELEVANT_COPIES = 4  # of each kind

Topic = dict[str, Any]


@dataclass(frozen=True)
class Section:
    """One event with its facts: sentences of an article, and what a label says of them."""

    topic: Topic
    place: str
    occasion: str
    title: str
    article: list[str]
    summary: str = ""
    analysis: list[str] = field(default_factory=list)
    urgency: Urgency | None = None


@dataclass(frozen=True)
class Sample:
    """An item and its label before they get their ids."""

    title: str
    content: str
    label: dict[str, Any]
    place: str


class Bank:
    """The sentences of `bank/`, handed out so that few items share more than one of them."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.names = _load("names")
        self.relevant = [t for n in (1, 2, 3) for t in _load(f"relevant_{n}")]
        self.irrelevant: list[Topic] = _load("irrelevant")
        self._general = _endless(rng, _load("general")["saetze"])
        self._facts = {
            topic["thema"]: _endless(rng, topic["fakten"])
            for topic in [*self.relevant, *self.irrelevant]
        }
        self._places: dict[str, Iterator[str]] = {}

    def events(self, topics: list[Topic]) -> Iterator[tuple[Topic, Any]]:
        """Yield all events of the topics in random order, again and again."""
        return _endless(self.rng, [(t, event) for t in topics for event in t["ereignisse"]])

    def section(self, topic: Topic, event: Any, facts: int, general: int) -> Section:
        """Return an event at a place that this event has not had before, with facts around it."""
        parts = event if isinstance(event, dict) else _irrelevant_event(event)
        names = self.names["countries" if topic["thema"] == "Außenpolitik" else "towns"]
        place = next(self._places.setdefault(parts["anlass"], _endless(self.rng, names)))
        fill = self._filler(place)
        told = fill(parts)
        chosen = _distinct(self._facts[topic["thema"]], facts)
        lines = [fill(dict(zip(("text", "note"), f.split(" => "), strict=False))) for f in chosen]
        frame = [fill({"text": t})["text"] for t in _distinct(self._general, general)]
        body = _mixed(self.rng, [line["text"] for line in lines], frame)
        relevant = "stufe" in parts
        return Section(
            topic=topic,
            place=place,
            occasion=told["anlass"],
            title=told["titel"],
            article=[told["text"], *body],
            summary=told["kurz"] if relevant else "",
            analysis=[told["mehr"], *(line["note"] for line in lines)] if relevant else [],
            urgency=Urgency(parts["stufe"]) if relevant else None,
        )

    def _filler(self, place: str) -> Callable[[dict[str, str]], dict[str, str]]:
        """Return a function that fills the slots of one line with the same values."""
        rng = self.rng
        association = rng.choice(self.names["associations"])

        def fill(texts: dict[str, str]) -> dict[str, str]:
            values = {
                "ort": place,
                "land": place,
                "verband": association,
                "Verband": association[0].upper() + association[1:],
                "t": rng.randint(2, 9),
                "n": rng.randint(12, 39),
                "m": rng.randint(110, 980),
                "k": f"{rng.randint(1, 4)}.{rng.randint(1, 9)}00",
                "p": rng.randint(4, 28),
                "mio": f"{rng.randint(1, 9)},{rng.randint(1, 9)}",
                "grad": rng.randint(29, 38),
                "tempo": rng.randint(90, 130),
                "tag": rng.randint(2, 28),
                "monat": rng.choice(self.names["months"]),
            }
            return {name: text.format_map(values) for name, text in texts.items()}

        return fill


def relevant_label(sections: list[Section], rng: random.Random) -> dict[str, Any]:
    """Return the label of an item of one section or of a round-up of several."""
    sections = sections[:6]  # six events fill a summary; nobody reads more of them
    first = sections[0]
    topics = [section.topic for section in sections]
    urgencies = [s.urgency for s in sections if s.urgency]
    urgency = min(urgencies, key=list(Urgency).index)
    summary = [section.summary for section in sections]
    if len(sections) == 1:
        arguments = rng.sample(first.topic["argumente"], 2)
        # The first line tells more of the event, the others are facts: with two of them, one
        # fits the summary.
        cut = 1 if len(first.analysis) < 3 else 2
        summary += first.analysis[1:cut]
        analysis = [first.analysis[0], *first.analysis[cut:]]
        reasoning = (
            f"Es geht um {first.occasion} in {first.place}, das betrifft {first.topic['gruppe']}."
        )
    else:
        arguments = [rng.choice(topic["argumente"]) for topic in topics[:4]]
        # Half of the facts of each section would do; the guide wants 10 to 15 sentences at most.
        each = max(2, min(4, 14 // len(sections)))
        analysis = [line for s in sections for line in s.analysis[:each]][:14]
        # The shortest round-ups have few events, but enough facts for a fuller summary.
        spare = [line for s in sections[:3] for line in s.analysis[each:]]
        summary += spare[: max(0, 4 - len(summary))]
        groups = " und ".join(dict.fromkeys(topic["gruppe"] for topic in topics[:2]))
        reasoning = f"Die Meldungen aus {first.place} und anderen Orten betreffen {groups}."
    return {
        "summary": " ".join(summary),
        "detailed_analysis": " ".join(analysis),
        "argumentationskette": list(dict.fromkeys(arguments)),
        "relevant": True,
        "relevance_score": SCORES[urgency],
        "priority": urgency.priority.value,
        "assigned_aks": list(dict.fromkeys(ak for t in topics for ak in t["aks"]))[:3],
        "tags": list(dict.fromkeys(tag for t in topics[:2] for tag in t["tags"])),
        "reasoning": reasoning,
    }


def irrelevant_label(sections: list[Section]) -> dict[str, Any]:
    """Return the label of an item without a social side: empty but for tags and a reason."""
    first = sections[0]
    tags = dict.fromkeys(tag for section in sections for tag in section.topic["tags"])
    return {
        "summary": None,
        "detailed_analysis": None,
        "argumentationskette": [],
        "relevant": False,
        "relevance_score": first.topic["wert"],
        "priority": None,
        "assigned_aks": [],
        "tags": list(tags)[:3],
        # One form for each topic: a tiny model learns it in the minutes of the demo.
        "reasoning": f"Das Thema ist {first.topic['thema']}, ein sozialer Bezug fehlt.",
    }


def short_samples(bank: Bank, topics: list[Topic], count: int) -> Iterator[Sample]:
    """Yield posts and short reports: one event, a few sentences."""
    events = bank.events(topics)
    for _ in range(count):
        facts = bank.rng.randint(1, 3)
        section = bank.section(*next(events), facts, general=bank.rng.randint(0, facts + 2))
        sentences = list(section.article)
        if bank.rng.random() < HASHTAGS:
            sentences.append(f"#{section.topic['tags'][0]} #{section.place}")
        label = _label([section], bank.rng)
        yield Sample(section.title, " ".join(sentences), label, section.place)


def long_samples(bank: Bank, topics: list[Topic], sizes: tuple[int, ...]) -> Iterator[Sample]:
    """Yield round-ups of `sizes` events each, from a half page to beyond the limit."""
    for size in sizes:
        frame = min(4, FRAME_PER_ITEM // size)
        sections = [
            bank.section(
                topic, bank.rng.choice(topic["ereignisse"]), len(topic["fakten"]) - 1, frame
            )
            for topic in bank.rng.sample(topics, size)
        ]
        content = "\n\n".join(" ".join(section.article) for section in sections)
        title = f"Rückblick: {sections[0].title}"
        yield Sample(title, content, _label(_seen(sections), bank.rng), sections[0].place)


def copies(samples: list[Sample], bank: Bank) -> list[Sample]:
    """Return exact and near copies of short items, as news aggregators are full of them."""
    synonyms = bank.names["synonyms"]
    short = [s for s in samples if len(s.content) < 600]
    near = [s for s in short if _reworded(s.content, synonyms) != s.content]
    chosen = []
    for pool, count in ((short, EXACT_COPIES), (near, NEAR_COPIES)):
        for relevant, part in ((True, RELEVANT_COPIES), (False, count - RELEVANT_COPIES)):
            free = [s for s in pool if s.label["relevant"] is relevant and s not in chosen]
            chosen += bank.rng.sample(free, part)
    return chosen[:EXACT_COPIES] + [
        replace(s, title=f"Nachrichten aus {s.place}", content=_reworded(s.content, synonyms))
        for s in chosen[EXACT_COPIES:]
    ]


def build() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows of the two files; raises if the task does not accept a label."""
    rng = random.Random(SEED)
    bank = Bank(rng)
    alone = [topic for topic in bank.relevant if topic["aks"] in (["AK2"], ["AK4"])]
    samples = [
        # Twice the two working groups that have a single topic each.
        *short_samples(bank, [*bank.relevant, *alone], SHORT_RELEVANT),
        *short_samples(bank, bank.irrelevant, SHORT_IRRELEVANT),
        *long_samples(bank, bank.relevant, LONG_RELEVANT),
        *long_samples(bank, bank.irrelevant, LONG_IRRELEVANT),
    ]
    samples += copies(samples, bank)
    rng.shuffle(samples)
    items, labels = [], []
    start = datetime(2026, 1, 5, 6, 0)  # noqa: DTZ001 - no zone is needed for a made-up date
    for number, sample in enumerate(samples, start=1):
        item_id = f"liga-{number:03}"
        items.append(
            {
                "id": item_id,
                "title": sample.title,
                "content": sample.content,
                "source": rng.choice(bank.names["sources"]),
                "published_at": (start + timedelta(minutes=number * 613)).isoformat(),
                "url": f"https://example.org/{item_id}",
            }
        )
        labels.append({"id": item_id, "label": _reviewed(items[-1], sample.label)})
    return items, labels


def main(folder: Path = HERE) -> None:
    """Write both files into `folder`."""
    for name, rows in zip(("items", "labels"), build(), strict=True):
        write_jsonl(folder / f"{name}.jsonl", rows)


def _load(name: str) -> Any:
    return yaml.safe_load((HERE / "bank" / f"{name}.yaml").read_text(encoding="utf-8"))


def _irrelevant_event(line: str) -> dict[str, str]:
    occasion, title, text = line.split(" => ")
    return {"anlass": occasion, "titel": title, "text": text}


def _endless(rng: random.Random, values: list[Any]) -> Iterator[Any]:
    """Yield all values in random order, then all again in another: none returns too soon."""
    while True:
        yield from rng.sample(values, len(values))


def _distinct(values: Iterator[str], count: int) -> list[str]:
    taken: dict[str, None] = {}
    while len(taken) < count:
        taken[next(values)] = None
    return list(taken)


def _mixed(rng: random.Random, ordered: list[str], others: list[str]) -> list[str]:
    """Return both lists in one, with the order of the first kept."""
    mixed = list(ordered)
    for other in others:
        mixed.insert(rng.randint(0, len(mixed)), other)
    return mixed


def _label(sections: list[Section], rng: random.Random) -> dict[str, Any]:
    return relevant_label(sections, rng) if sections[0].urgency else irrelevant_label(sections)


def _seen(sections: list[Section]) -> list[Section]:
    """Return the sections that lie wholly before the cut: a label must not know the rest."""
    length = 0
    seen = []
    for section in sections:
        length += len(" ".join(section.article)) + 2
        if length > CONTENT_LIMIT:
            break
        seen.append(section)
    return seen


def _reworded(text: str, synonyms: dict[str, str]) -> str:
    changes = 0
    for old, new in synonyms.items():
        if changes < 3 and old in text:
            text = text.replace(old, new, 1)
            changes += 1
    return text


def _reviewed(item: dict[str, Any], label: dict[str, Any]) -> dict[str, Any]:
    """Return the label, if the task accepts it for the item.

    What a field holds that nothing is said of here is what the task decides of it, or null.
    """
    task = load_task("liga_relevance")
    lacking, given = to_ask(LabelDefinition.of(task), label)
    whole = {**label, **dict.fromkeys(lacking), **given}
    answer = task.parse(json.dumps(whole, ensure_ascii=False))
    broken = [v for v in task.check(Article.model_validate(item), answer) if v.severity == "error"]
    if broken:
        raise ValueError(f"{item['id']} {item['title']}: {broken}")
    return answer.model_dump(mode="json")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
