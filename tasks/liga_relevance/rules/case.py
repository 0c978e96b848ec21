"""What the rules judge, and the parts of it that more than one of them looks at."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from tasks.liga_relevance.article import CONTENT_LIMIT, Article, user_message
from tasks.liga_relevance.hedges import Weighed
from tasks.liga_relevance.namesakes import Namesakes
from tasks.liga_relevance.numbers import numbers_in
from tasks.liga_relevance.output import LigaRelevance
from tasks.liga_relevance.sentences import sentences
from tasks.liga_relevance.vocabulary import Vocabulary
from tasks.liga_relevance.words import flowing, unfolded, words_of

Findings = Iterator[str]
"""What a rule has found in an answer, each named shortly with its field."""


@dataclass(frozen=True)
class Case:
    """An article and the answer that the rules judge."""

    article: Article
    answer: LigaRelevance

    @cached_property
    def shown(self) -> str:
        """All that a model gets to see of the article: nothing else can bear out an answer.

        Its line breaks are blanks, as they may be those of a page.
        """
        return flowing(unfolded(user_message(self.article)))

    @cached_property
    def words(self) -> list[str]:
        """The words of `shown`, in small letters."""
        return words_of(self.shown)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The same in whatever form a name has."""
        return Vocabulary(self.shown)

    @cached_property
    def namesakes(self) -> Namesakes:
        """The people of `shown` by their surnames."""
        return Namesakes(self.shown)

    @cached_property
    def numbers(self) -> set[str]:
        """The numbers of `shown`, those written out included."""
        return numbers_in(self.shown)

    @cached_property
    def content(self) -> str:
        """What a model gets to see of the article's text; the title where there is none."""
        return self.article.content[:CONTENT_LIMIT] or self.article.title

    @cached_property
    def content_sentences(self) -> list[str]:
        """The sentences of `content`."""
        return sentences(self.content)

    @cached_property
    def weighed(self) -> Weighed:
        """What of title and content is a guess, a fear or a plan."""
        broken = "\n" in self.content  # maybe within sentences, at the width of a page
        told = sentences(flowing(self.content)) if broken else self.content_sentences
        return Weighed(self.article.title, told)

    @cached_property
    def summary(self) -> list[str]:
        """The sentences of the summary."""
        return sentences(self.answer.summary or "")

    @cached_property
    def analysis(self) -> list[str]:
        """The sentences of the analysis."""
        return sentences(self.answer.detailed_analysis or "")

    @cached_property
    def reasoning(self) -> list[str]:
        """The sentences of the reasoning."""
        return sentences(self.answer.reasoning)

    @cached_property
    def arguments(self) -> list[str]:
        """The sentences of all arguments, one after the other."""
        return [s for text in self.answer.argumentationskette for s in sentences(text)]

    @cached_property
    def prose(self) -> tuple[tuple[str, str], ...]:
        """The two texts of a relevant answer by name; nothing for an irrelevant one."""
        named = (
            ("summary", self.answer.summary),
            ("detailed_analysis", self.answer.detailed_analysis),
        )
        return tuple((name, text) for name, text in named if text is not None)

    @cached_property
    def claims(self) -> tuple[tuple[str, str], ...]:
        """All texts that claim something, by name: everything but the tags."""
        arguments = (("argumentationskette", text) for text in self.answer.argumentationskette)
        return (*self.prose, ("reasoning", self.answer.reasoning), *arguments)

    @cached_property
    def texts(self) -> tuple[tuple[str, str], ...]:
        """All texts by name."""
        return (*self.claims, *(("tags", tag) for tag in self.answer.tags))


class Rule(NamedTuple):
    """A label rule. An error bars a label from training; a warning is counted in the report."""

    id: str
    severity: Literal["error", "warning"]
    message: str
    """What is wrong and what to do, in German: the teacher reads it, before what was found."""
    find: Callable[[Case], Findings]


def excerpt(text: str, limit: int = 80) -> str:
    """Return a text for a message: on one line, in quotes, not longer than `limit`."""
    flat = " ".join(text[: 2 * limit].split())
    return f"„{flat[:limit]}{'…' if len(flat) > limit else ''}“"
