"""The label rules: what makes a formally valid answer unfit to learn from.

Each rule has an id, a severity, a message for the teacher, and a function from a message with its
answer to what it finds.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Literal, NamedTuple

from tasks.chat import QWEN3
from tasks.definition import Violation
from tasks.support_messages.message import Message, user_message
from tasks.support_messages.output import Category, Product, SupportAnswer


def _word_list(text: str) -> tuple[str, ...]:
    """Return the words of `text`, which white space divides: a list that can be read."""
    return tuple(text.split())


_MOST_FINDINGS = 5
"""Of one rule: enough to correct an answer, without filling the next request."""
_MOST_SENTENCES = 2
_SENTENCE_END = re.compile(r"[.!?]+[\"”’')]*(?:\s+(?=[A-Z\"“'(])|$)")
# "e.g. Monday" and "No. 4711" end no sentence.
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|vs|no|approx|mr|mrs|ms|dr|inc|ltd)|\b[A-Z])\.$", re.IGNORECASE
)
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_NUMBER = re.compile(r"\d+(?:[.,:/-]\d+)*")
_NAME = re.compile(r"(?<![.!?\"“] )(?<!^)\b[A-Z][\w'’-]+")
_PLACEHOLDER = re.compile(
    r"(?:n/?a|none|null|nil|unknown|tbd|tba|todo|summary|no summary(?: available)?|empty|string"
    r"|not (?:available|applicable|specified|provided)|placeholder|lorem ipsum.{0,400}|[-–—.?_*…]+"
    r"|(?:a |the )?summary of the message|[\[<{]{1,2}[^\[\]<>{}]{0,80}[\]>}]{1,2})[.!]?",
    re.IGNORECASE | re.DOTALL,
)
_FIRST_PERSON = re.compile(r"\b(?:I|I'm|I’m|my|me|mine|we|our|ours|us)\b")
# Words of English that stand in hardly any other language, and in every second sentence.
_ENGLISH = frozenset(
    _word_list(
        """
        the of to and a is for with that this not has have been by from their they who which does
        wants asks reports says cannot an it after because since when how whether would on be are
        at off out up as about before
        """
    )
)
_LEAST_WORDS = 4
"""Fewer tell no language."""
_LEAST_ENGLISH = 0.12
"""Share of such words; English prose has about 40 %, other languages below 8."""
_COUNTED = "zero one two three four five six seven eight nine ten eleven twelve"
_NUMBER_WORDS = {word: str(number) for number, word in enumerate(_word_list(_COUNTED))}

Findings = Iterator[str]
"""What a rule has found in an answer, each named shortly."""


@dataclass(frozen=True)
class Case:
    """A message and the answer that the rules judge."""

    message: Message
    answer: SupportAnswer

    @cached_property
    def shown(self) -> str:
        """All that a model gets to see of the message: nothing else can bear out an answer."""
        return unicodedata.normalize("NFC", user_message(self.message))

    @cached_property
    def words(self) -> frozenset[str]:
        """The words of `shown`, in small letters."""
        return frozenset(_words(self.shown))

    @cached_property
    def numbers(self) -> frozenset[str]:
        """The numbers of `shown`, those written out included."""
        written = {_NUMBER_WORDS[word] for word in self.words if word in _NUMBER_WORDS}
        return frozenset(written | set(_numbers(self.shown)))


class Rule(NamedTuple):
    """A label rule. An error bars a label from training; a warning is counted in the report."""

    id: str
    severity: Literal["error", "warning"]
    message: str
    """What is wrong and what to do: the teacher reads it, before what was found."""
    find: Callable[[Case], Findings]


def sentences(text: str) -> list[str]:
    """Return the sentences of a short English text."""
    found, start = [], 0
    for end in _SENTENCE_END.finditer(text):
        piece = text[start : end.end()].strip()
        if end.end() < len(text) and _ABBREVIATION.search(piece):
            continue
        found.append(piece)
        start = end.end()
    found.append(text[start:].strip())
    return [each for each in found if _WORD.search(each)]


def _words(text: str) -> list[str]:
    return [word.casefold().replace("’", "'") for word in _WORD.findall(text)]


def _numbers(text: str) -> Iterator[str]:
    """Yield the numbers of a text: 1,200.50 and 1200.50 are one, 19:30 stays as it is."""
    for number in _NUMBER.findall(text):
        grouped = re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", number)
        yield number.replace(",", "") if grouped else number


# --- the rules -----------------------------------------------------------------------------------
def _control_token(case: Case) -> Findings:
    text = f"{case.shown}\n{case.answer.summary}"
    yield from (token for token in QWEN3.control_tokens if token in text)


def _placeholder(case: Case) -> Findings:
    if _PLACEHOLDER.fullmatch(case.answer.summary.strip()):
        yield _excerpt(case.answer.summary)


def _not_english(case: Case) -> Findings:
    words = _words(case.answer.summary)
    english = sum(word in _ENGLISH for word in words)
    strange = {x for x in case.answer.summary if x.isalpha() and not _is_latin(x)}
    foreign = len(words) >= _LEAST_WORDS and english < _LEAST_ENGLISH * len(words)
    if foreign or strange - set(case.shown):
        yield _excerpt(case.answer.summary)


def _is_latin(letter: str) -> bool:
    return letter.isascii() or unicodedata.name(letter, "").startswith(("LATIN", "MODIFIER"))


def _too_long(case: Case) -> Findings:
    count = len(sentences(case.answer.summary))
    if count > _MOST_SENTENCES:
        yield f"it has {count} sentences"
    # A subject alone still takes "The sender asks …" around it.
    if len(case.answer.summary) > 120 + len(case.message.subject) + len(case.message.body):
        yield "it is longer than the message"


def _ellipsis(case: Case) -> Findings:
    if re.search(r"(?:…|\.{3,})[\"”’')]*$", case.answer.summary.rstrip()):
        yield _excerpt(case.answer.summary[-40:])


def _ungrounded_number(case: Case) -> Findings:
    told = [*_numbers(case.answer.summary)]
    told += [_NUMBER_WORDS[w] for w in _words(case.answer.summary) if w in _NUMBER_WORDS]
    # "one of the invoices", "no one": not a figure
    yield from (n for n in dict.fromkeys(told) if n not in case.numbers and n != "1")


def _ungrounded_name(case: Case) -> Findings:
    """Names stand with a capital inside of a sentence, and the message has them in some form."""
    for name in dict.fromkeys(_NAME.findall(case.answer.summary)):
        parts = [part.removesuffix("'s") for part in _words(name)]
        if any(part not in case.words and f"{part}s" not in case.words for part in parts):
            yield name


def _ungrounded_product(case: Case) -> Findings:
    product = case.answer.product
    if product and not _names(case.shown, product):
        yield product.value


def _missing_product(case: Case) -> Findings:
    named = [product for product in Product if _names(case.shown, product)]
    if case.answer.product is None and named and case.answer.category is not Category.SPAM:
        yield named[0].value


def _names(text: str, product: Product) -> bool:
    """Return whether a text names a product, by its full name or in any case of it."""
    return re.search(rf"\b{re.escape(product.value)}\b", text, re.IGNORECASE) is not None


def _first_person(case: Case) -> Findings:
    if found := _FIRST_PERSON.search(case.answer.summary):
        yield _excerpt(found.group())


def _unanswered_question(case: Case) -> Findings:
    asked = "?" in case.message.body and case.answer.category is not Category.SPAM
    if asked and not case.answer.reply_needed:
        yield "reply_needed is false"


def _excerpt(text: str, limit: int = 80) -> str:
    flat = " ".join(text[: 2 * limit].split())
    return f'"{flat[:limit]}{"…" if len(flat) > limit else ""}"'


RULES: tuple[Rule, ...] = (
    Rule("control-token", "error", "The text holds the model's control tokens", _control_token),
    Rule("placeholder", "error", "The summary says nothing; write a real one", _placeholder),
    Rule("not-english", "error", "The summary is not in English", _not_english),
    Rule("too-long", "error", "The summary is too long; leave details out", _too_long),
    Rule("ellipsis", "error", "The summary breaks off; finish the sentence", _ellipsis),
    Rule(
        "ungrounded-number",
        "error",
        "A number is not in the message; leave it out",
        _ungrounded_number,
    ),
    Rule(
        "ungrounded-name",
        "error",
        "A name is not in the message; leave it out",
        _ungrounded_name,
    ),
    Rule(
        "ungrounded-product",
        "error",
        "The message does not name this product; null if it names none",
        _ungrounded_product,
    ),
    Rule("missing-product", "error", "The message names a product", _missing_product),
    Rule(
        "first-person",
        "warning",
        'The summary speaks as the sender; write about "the sender"',
        _first_person,
    ),
    Rule(
        "unanswered-question",
        "warning",
        "The sender asks something, so an answer is waited for",
        _unanswered_question,
    ),
)


def check(message: Message, answer: SupportAnswer) -> list[Violation]:
    """Return everything that the rules have against `answer` as the label of `message`."""
    case = Case(message, answer)
    return [
        Violation(rule.id, rule.severity, f"{rule.message}: {found}")
        for rule in RULES
        for found in islice(rule.find(case), _MOST_FINDINGS)
    ]
