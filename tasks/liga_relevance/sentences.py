"""Splitting German prose into sentences, well enough to count and to compare them.

The library `sentencex` finds the ends; what it does not know of German is put right here: ordinals
("die 3. Gruppe", "der 1. FC"), abbreviations that it lacks, and those that can also end a sentence
("nach SGB II. Die Kinder warten."). Sentences inside quotes and brackets count on their own, and a
line break always ends one. A figure can open a sentence ("Das Heim schließt. 96 Kinder …"), unless
what stands before it is an abbreviation that a figure follows, or the day of a date. Known limits:
an ordinal at the true end of a sentence joins it with the next unless that starts with a function
word; a heading counts as a sentence.
"""

import re
from collections.abc import Iterator

from tasks.liga_relevance.words import FUNCTION_WORDS, SHORT_MONTHS, word_set

# sentencex ends no sentence inside of quotes, and looks for the closing one as far as the text
# goes, for each opening one again. It gets to see spaces in their place.
_QUOTES = str.maketrans(dict.fromkeys("\"“”„‟»«›‹‚‘’'`´()[]{}<>_*", " "))
# "war's." would end on an abbreviation without its apostrophe.
_ELISION = re.compile(r"(?<=\w)['’](?=\w)")
_OPENING = "„‚([{"
# Abbreviations that never end a sentence, written with the last dot.
_OPEN = re.compile(
    r"(?<!\w)(?:hess|bayr|dt|hl|inkl|exkl|zzgl|gem|geb|gest|kath|ev|kap|ziff|art|abs|nr|bd|tel|vgl"
    r"|bzw|ca|evtl|ggf|sog|max|min|rd|dr|prof|st|med|dipl|ing|rer|phil|jur|hg|hrsg|red|stellv|vors"
    r"|[zdu]\. ?[bhau]|i\. ?d\. ?r|m\. ?e)\.$",
    re.IGNORECASE,
)
_ORDINAL = re.compile(r"(?<![\w.,])(\w+)?\s*\b\d{1,2}\.$")
# Before an ordinal that belongs to what follows, as in "der 1. FC" or "im 3. Quartal".
_DETERMINERS = word_set(
    """
    der die das den dem des im am zum zur vom beim ab bis seit einen einem ihr ihre ihren ihrem
    sein seinen seinem unser unseren dessen deren jeder jeden jedes jede und oder
    """
)
# Here sentencex joins always; the next word decides.
_MAYBE_END = re.compile(
    r"(?<!\w)(?:[IVX]{1,5}|usw|etc|ff|Mio|Mrd|Tsd|Std|Min|Str|Jh|e\. ?V|u\. ?[aäÄ]|o\. ?[aäÄ]"
    r"|Abs|Nr|bzw|inkl)\.[ \t]+(?=([A-ZÄÖÜ]\w*))"
)
# sentencex ends no sentence before a figure.
_BEFORE_FIGURE = re.compile(r"(?<=[.!?])\s+(?=\d)")
# Abbreviations that a figure follows, besides those that never end a sentence.
_COUNTS = re.compile(
    r"(?:(?<!\w)(?:mind|insg|durchschn|ggü|jew|zzt|zt|gegr|verst|abb|tab|anl|anm|aufl|ausg|az|art"
    rf"|buchst|drs|fn|rn|rz|tz|jg|kl|lit|nrn|pos|std|sek|u\.\sa|{SHORT_MONTHS}"
    r"|(?-i:Mo|Di|Mi|Do|Fr|Sa|So|[A-HJ-UW-Za-zäöü]))|-drs|str|hausnr)\.$",
    re.IGNORECASE,
)
# 3. 4. 2026, and 1., 2. and 3. of anything
_DAY = re.compile(r"(?<![\w.,])\d{1,2}\.$")
_DAY_AND_MONTH = re.compile(r"(?<![\w.,])\d{1,2}\.\s?\d{1,2}\.$")
_DAY_FOLLOWS = re.compile(r"\s*\d{1,2}\.(?!\d)")
_YEAR_FOLLOWS = re.compile(r"\s*(?:19|20)\d\d\b")
_LIST_NUMBER = re.compile(r"\s*\d{1,2}\.")
# "3 Mio. 2027 und 4 Mio. 2028", but "3 Mio. 2027 sind es 4."
_MILLIONS = re.compile(r"(?<!\w)(?:Mio|Mrd|Tsd)\.$")
_YEAR_OPENS = re.compile(
    r"\s*\d{4} (?:sind|waren|ist|war|wird|werden|wurden?|soll|sollen|kann|können|muss|müssen"
    r"|hat|haben|hatten?|gibt|gab|fehl|komm|steh|sink|steig|stieg|sank)"
)
_CONTINUES = re.compile(r"\s*(?:[a-zäöüß]|[,;:)–-])")
_FIRST_WORD = re.compile(r"\w+")
_WORDS = re.compile(r"\w+")
_LOOK_BACK = 40  # characters: the longest abbreviation or ordinal with the word before it


def sentences(text: str) -> list[str]:
    """Return the sentences of `text` in order, without those that hold no letter or digit."""
    found = (sentence.strip() for line in text.splitlines() for sentence in _in_line(line))
    return [sentence for sentence in found if _WORDS.search(sentence)]


def normalised(sentence: str) -> str:
    """Return a sentence's words only: case and punctuation must not hide a repetition."""
    return " ".join(_WORDS.findall(sentence.casefold()))


def _in_line(line: str) -> Iterator[str]:
    # Slow to load, and most commands of the driver judge no text.
    from sentencex import segment

    shown = _ELISION.sub("e", line).translate(_QUOTES)
    start = end = 0
    for piece in segment("de", shown):
        for length in _lengths(piece):
            before = shown[max(start, end - 2 * _LOOK_BACK) : end]
            if end > start and _ends(before, shown[end : end + _LOOK_BACK]):
                cut = end
                while cut > start and line[cut - 1] in _OPENING:
                    cut -= 1  # an opening quote belongs to the next sentence
                yield line[start:cut]
                start = cut
            end += length
    if end > start:
        yield line[start:end]


def _lengths(piece: str) -> Iterator[int]:
    """Yield the lengths of the parts of what sentencex takes for one sentence."""
    ends = {m.end() for m in _BEFORE_FIGURE.finditer(piece)}
    ends |= {m.end() for m in _MAYBE_END.finditer(piece) if m.group(1).lower() in FUNCTION_WORDS}
    before = 0
    for end in [*sorted(ends), len(piece)]:
        yield end - before
        before = end


def _ends(before: str, following: str) -> bool:
    """Return whether a sentence really ends between the two."""
    if _CONTINUES.match(following) or _LIST_NUMBER.fullmatch(before.rstrip()):
        return False
    tail = before.rstrip()[-_LOOK_BACK:]
    if following.lstrip()[:1].isdecimal() and _leads_to_figure(tail, following):
        return False
    first = _FIRST_WORD.search(following)
    opens = first is not None and first.group().lower() in FUNCTION_WORDS
    ordinal = None if opens else _ORDINAL.search(tail)
    belongs = ordinal is not None and (ordinal.group(1) or "").lower() in _DETERMINERS
    return not belongs and not _OPEN.search(tail)


def _leads_to_figure(tail: str, following: str) -> bool:
    """Return whether the figure that follows belongs to the dot before it."""
    if _DAY.search(tail) and _DAY_FOLLOWS.match(following):
        return True
    if _YEAR_FOLLOWS.match(following):
        if _DAY_AND_MONTH.search(tail):
            return True
        if _MILLIONS.search(tail):
            return _YEAR_OPENS.match(following) is None
    return _COUNTS.search(tail) is not None
