"""Write the sample: `items.jsonl` and `labels.jsonl`, the same bytes on every run.

    python examples/support-sample/generate_messages.py [folder]

Every message is put together from the hand-written texts of `bank.yaml`: a case with one or two
of its facts, and sentences that fit any message. Its label is that of the case, with the same
figures, so that a label never says more than its message.
"""

import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from contracts.files import write_jsonl
from contracts.label_definition import LabelDefinition, to_ask
from tasks import load_task

HERE = Path(__file__).resolve().parent
SEED = 20260314
MESSAGES = 234
EXACT_COPIES = NEAR_COPIES = 8
_TASK = load_task("support_messages")
_PRODUCTS = ("Fjord Notes", "Fjord Sync", "Fjord Invoice")
_MONTHS = ("January", "February", "March", "April", "May", "June", "September", "October")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")

Case = dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """A message and its label before they get their id."""

    subject: str
    body: str
    label: dict[str, Any]


def samples(bank: dict[str, Any], rng: random.Random) -> Iterator[Sample]:
    """Yield messages: every case about as often, in random order."""
    cases = [(name, case) for name, group in bank["categories"].items() for case in group]
    general = _endless(rng, bank["general"])
    facts = {case["text"]: _endless(rng, case["facts"]) for _, case in cases}
    chosen = _endless(rng, cases)
    for _ in range(MESSAGES):
        category, case = next(chosen)
        values = _values(case, rng)
        own = [next(facts[case["text"]]) for _ in range(rng.randint(1, 2))]
        frame = [next(general).format_map(values) for _ in range(rng.randint(1, 4))]
        body = [case["text"].format_map(values), *own]
        for sentence in frame:
            body.insert(rng.randint(0, len(body)), sentence)
        label = {
            "summary": case["summary"].format_map(values),
            "category": category,
            "product": values["product"],
            "urgency": case.get("urgency"),
            "reply_needed": case.get("reply", False),
        }
        yield Sample(case["subject"], " ".join(body), label)


def copies(given: list[Sample], synonyms: dict[str, str], rng: random.Random) -> list[Sample]:
    """Return exact and near copies of messages: people write twice, and forward."""
    # Of a short body two other words would make another text.
    near = [s for s in given if len(s.body) > 220 and _reworded(s.body, synonyms) != s.body]
    again = rng.sample(near, NEAR_COPIES)
    exact = rng.sample([sample for sample in given if sample not in again], EXACT_COPIES)
    return exact + [
        replace(sample, subject=f"Fwd: {sample.subject}", body=_reworded(sample.body, synonyms))
        for sample in again
    ]


def build() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows of the two files; raises if the task does not accept a label."""
    rng = random.Random(SEED)
    bank = yaml.safe_load((HERE / "bank.yaml").read_text(encoding="utf-8"))
    made = list(samples(bank, rng))
    made += copies(made, bank["synonyms"], rng)
    rng.shuffle(made)
    items, labels = [], []
    start = datetime(2026, 1, 5, 6, 0)  # noqa: DTZ001 - no zone is needed for a made-up date
    for number, sample in enumerate(made, start=1):
        items.append(
            {
                "id": f"message-{number:03}",
                "subject": sample.subject,
                "body": sample.body,
                "sender": f"{rng.choice(bank['senders'])}@{rng.choice(bank['firms'])}.example",
                "received_at": (start + timedelta(minutes=number * 389)).isoformat(),
            }
        )
        labels.append({"id": items[-1]["id"], "label": _reviewed(items[-1], sample.label)})
    return items, labels


def main(folder: Path = HERE) -> None:
    """Write both files into `folder`."""
    for name, rows in zip(("items", "labels"), build(), strict=True):
        write_jsonl(folder / f"{name}.jsonl", rows)


def _values(case: Case, rng: random.Random) -> dict[str, Any]:
    """Return what the slots of one message are filled with."""
    product = case.get("product")
    return {
        "product": rng.choice(_PRODUCTS) if product == "any" else product,
        "t": rng.randint(2, 9),
        "n": rng.randint(12, 48),
        "m": rng.randint(110, 980),
        "d": f"{rng.randint(4, 20)}th",
        "amount": rng.randint(60, 900),
        "ref": rng.randint(2000, 9000),
        "month": rng.choice(_MONTHS),
        "day": rng.choice(_DAYS),
    }


def _endless(rng: random.Random, values: list[Any]) -> Iterator[Any]:
    """Yield all values in random order, then all again in another: none returns too soon."""
    while True:
        yield from rng.sample(values, len(values))


def _reworded(text: str, synonyms: dict[str, str]) -> str:
    changes = 0
    for old, new in synonyms.items():
        if changes < 2 and old in text:
            text = text.replace(old, new, 1)
            changes += 1
    return text


def _reviewed(item: dict[str, Any], label: dict[str, Any]) -> dict[str, Any]:
    """Return the label, if the task has nothing against it.

    What a field holds that nothing is said of here is what the task decides of it, or null.
    """
    lacking, given = to_ask(LabelDefinition.of(_TASK), label)
    whole = {**label, **dict.fromkeys(lacking), **given}
    answer = _TASK.parse(json.dumps(whole, ensure_ascii=False))
    if broken := _TASK.check(_TASK.item.model_validate(item), answer):
        raise ValueError(f"{item['id']} {item['subject']}: {broken}")
    return answer.model_dump(mode="json")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
