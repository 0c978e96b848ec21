"""What an article weighs, statement by statement: what bears out a "könnte" of an answer.

A guess is borne out by a sentence of the article that guesses, fears or plans, and speaks of the
same thing. "Eltern können sich melden" bears out nothing about other Kitas, and neither does a
fear for the budget. Words are the same if the stem of one stands in the other, so that "Kürzung"
is in "Mittelkürzungen", or if both name one event, as "schließen" and "das Aus" do. Words that
stand everywhere ("Stadt", "Kinder") tell nothing by themselves. Some make another guess of the same
words: "weitere", a denial, another town.
"""

import re
from collections.abc import Iterable, Sequence
from enum import IntEnum
from functools import cache, lru_cache

from tasks.liga_relevance.proper_names import PLACES
from tasks.liga_relevance.words import (
    FUNCTION_WORDS,
    MONTHS,
    WEEKDAYS,
    folded,
    unfolded,
    word_set,
)

# Says itself that something may be, or is feared, expected or open. In small letters where a name
# or a noun is spelled alike: die Würde, Karl May, zum Wohl, Frau Hoffmann.
_WEIGHS = re.compile(
    r"\b(?:[Kk]önnte(?:n|st|t)?\b|[Dd]ürfte(?:n|st|t)?\b|[Mm]üsste(?:n|st|t)?\b|würden?\b|wären?\b"
    r"|[Vv]ermut(?:e|en|et|ete|eten|lich\w{0,3}|ung|ungen)\b|[Mm]utmaß|[Aa]ngeblich"
    r"|(?:un)?[Ww]ahrscheinlich|[Mm]öglich(?:e[nrsm]?|erweise)?\b|[Ww]omöglich|wohl\b(?! fühl)"
    r"|[Vv]oraussichtlich|[Vv]ielleicht|[Ee]ventuell|[Ee]vtl\b|[Uu]nter Umständen"
    r"|[Dd]roh(?:t|en|te|ten|end\w{0,2})\b|[Bb]edroh|[Dd]rohung(?:en)?\b"
    r"|erwart(?:e|en|et|ete|eten|bar)\b|[Rr]echne(?:n|t|te|ten)\b[^.!?]{0,60}\bmit\b"
    r"|mit\b[^.!?]{0,80}\b(?:rechnen|gerechnet)\b|geh(?:e|en|t)\b[^.!?]{0,80}\baus(?:zugehen)?\b"
    r"|auszugehen\b|[Bb]efürcht|fürcht(?:e|en|et|ete|eten)\b|[Gg]efährde|Gefahr(?:en)?\b|gefährlich"
    r"|Risik|riskier|[Pp]rognos|denkbar|vorstellbar|nicht aus(?:zuschließen|geschlossen)"
    r"|hoff(?:e|en|t|te|ten|entlich)\b|Hoffnung(?:en)?\b|absehbar|Sorgen?\b|besorgt|Besorgnis"
    r"|sorg(?:e|en|t|te|ten) sich\b|vor de[mr] (?:Aus|Ende|Schließung|Insolvenz|Pleite|Kollaps)\b"
    r"|[Ww]arn(?:e|en|t|te|ten|end\w{0,2}|ung|ungen)\b|[Vv]erd(?:acht|ächtig)|deute(?:t|n)\b"
    r"|[Hh]inweise? auf\b|schätz(?:e|en|t|te|ten|ungsweise)\b|[Uu]nklar|[Uu]ngewiss|fraglich"
    r"|[Pp]otenziell|abzuwarten|abwarten|zeichne(?:t|n) sich\b|schein(?:t|en)\b"
    r"|\boffen, (?:ob|wie|wer|was|wann)\b|\b(?:ist|sei|bleibt|blieb) (?:\w{1,20} ){0,3}offen\b"
    r"|[Gg]e(?:warnt|droht|hofft|bangt|schätzt)\b|[Aa]ngedroht|[Ee]rhofft|[Vv]orgewarnt\b"
    r"|in Frage\b|infrage\b|[Ee]rwäg|Überlegung|überleg|zur Disposition|auf der Kippe|Szenari"
    r"|schließ(?:t|en)\b[^.!?]{0,80}\bnicht aus\b|schloss(?:en)?\b[^.!?]{0,80}\bnicht aus\b"
    r"|(?:behält|behalten|behielten?) (?:\w{1,20} ){0,2}sich\b[^.!?]{0,80}\bvor\b|vorbehalten\b"
    r"|zur Debatte\b|mit dem Gedanken\b|im Gespräch\b(?! mit\b)"
    r"|may\b|might\b|could\b|expect(?:s|ed)?\b|likely\b)"
)
# Can be turned into a guess, if it is about the very same: "wir können" becomes "sie könnten", and
# "soll bis 2027 dauern" becomes "dauert voraussichtlich bis 2027".
_MAY_WEIGH = re.compile(
    r"\b(?:kann|können|könne|darf|dürfen|dürfe|solle?n?|wolle?n|will|möchten?|plan(?:t|en|te|ten)"
    r"|geplant|wenn|falls|sofern|ob|sonst|prüf(?:t|en|te|ten)|künftig|Plan|Pläne)\b|\?",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W\d_]{3,}")
# Words of guessing and of reporting, and those that stand in any sentence.
_NO_CONTENT = FUNCTION_WORDS | word_set(
    """
    könnte könnten dürfte dürften müsste müssten sollte sollten würde würden möchte möchten
    wäre wären hätte hätten vermutlich wahrscheinlich möglicherweise womöglich mutmaßlich
    eventuell vielleicht voraussichtlich sicherlich wohl unter umständen denkbar vorstellbar
    auszuschließen erwarten rechnen befürchten vermuten anzunehmen auszugehen davon gefahr
    gefahren risiko risiken droht drohen drohte drohende drohenden drohender mögliche möglichen
    möglicher besteht bestehen ausgeschlossen betreffen betrifft auswirken bedeuten bedeutet
    handelt folge folgen haben führen sein gibt geben kommen machen weitere weiteren weiterer
    neue sagt sagte heißt erklärte dies dadurch hierdurch ebenfalls auswirkungen konsequenzen
    """
) - {"geplant"}
# Verbs that say no more than the noun beside them: Klage einreichen. "Stellen" are jobs.
_LIGHT = word_set(
    """
    einreichen einzureichen eingereicht einleiten einzuleiten eingeleitet anstrengen anzustrengen
    angestrengt erheben erhoben stellen stellt gestellt ergreifen ergriffen anrufen anzurufen
    angerufen aufrufen aufzurufen aufgerufen veranstalten veranstaltet
    """
)
_ENDING = re.compile(r"(?:ungen|ung|ern|en|er|es|em|et|te|n|s|e|t)$")
_STEM = 6  # letters that are compared at most, and
_LEAST_STEM = 4  # at least
# Of a compound that begins so, more is compared: Elternbeiträge are not Eltern.
_HEADS = word_set("kinder eltern famili frauen mittel landes bundes")
_COMPOUND = 12
# Who, where and when the news of this task is about, whatever it says.
_COMMON = (
    PLACES
    | WEEKDAYS
    | MONTHS.keys()
    | word_set(
        """
    stadt städte land länder kreis bund hessen kommune kommunen gemeinde gemeinden region regionen
    kind kinder eltern mensch menschen familie familien frau frauen mann männer träger verband
    verbände liga einrichtung einrichtungen angebot angebote jahr jahre jahren monat monate woche
    wochen kosten geld mittel euro million millionen prozent thema themen lage situation zahl zahlen
    """
    )
)
# Words for one event on each line, by how they begin in folded text.
_EVENTS = tuple(
    tuple(line.split())
    for line in """
    schliess geschlos aufgeb aufgab einstell eingestel insolv pleite
    kuerz gekuerz einschnitt einspar sparen gespar streich gestrich abbau wegfall entfall
    verlier verlust verlor wegfall entfall abbau streich gestrich
    steig stieg gestieg hoeher erhoeh teurer verteuer anheb zunehm
    sink gesunk rueckgang zurueckgeh gering weniger abnehm
    klag geklag gericht rechtsweg rechtsstreit
    fehl mangel engpass engpaess luecke knapp unterversorg
    streik ausstand arbeitskampf
    verzoeger verspaet verschieb verschob
    beginn begonn start eroeffn
    verkauf verkaeuf veraeusser
    """.strip().splitlines()
)
# Events so grave that an article which guesses at one names it: in a guess, and in an article.
_GRAVE = tuple(
    (re.compile(guessed), re.compile(told))
    for guessed, told in (
        (
            r"\b(?:sterben|stirbt|gestorben|todesf(?:a|ae)ll\w*|todesopfer)\b",
            r"sterb|stirb|starb|storb|\btod|\btot|toedlich|toet|opfer|leben|umkomm|hospiz|palliat",
        ),
        (r"\b(?:suizid|selbstmord|selbsttoetung)", r"su[iy]zid|selbstm|selbstt|das leben"),
        (r"\brueckfaellig", r"rueckf|wieder (?:trink|konsum)"),
    )
)
# The verb that a guess ends with: "könnten kündigen", "dürfte geschlossen werden".
_LAST_VERB = re.compile(
    r"\b(?:könnt|dürft)en?\b[^.!?,;:]{0,160}?\b([a-zäöüß]{4,})"
    r"(?: (?:müssen|werden|sein|haben))*[.!?]?$"
)
# Too short to be compared: it is a closing.
_CLOSING = "Schließung"
_THE_END = re.compile(r"\b(?:das|dem) (?:aus|ende)\b", re.IGNORECASE)
# It takes up what the sentence before is about.
_LEANS = re.compile(
    r"\b(?:sie|ihnen|ihre[nrms]?|er|ihm|dies\w{0,2}|davon|damit|dadurch|dafuer|daran|dazu"
    r"|weitere[nrms]?|andere[nrms]?|deren|dessen|dort|beide[nrs]?|viele|manche|einige)\b"
)
# The guess is about more than what the sentence tells of, or also about another.
_OTHERS = re.compile(r"\b(?:weitere|andere|zusaetzliche)[nrsm]?\b")
_ALSO = re.compile(r"\b(?:auch|ebenfalls|ebenso)\b")
_MORE_TOLD = re.compile(
    r"\b(?:(?:weiter|ander|zusaetzlich|uebrig|neu|naechst)e[nrsm]?|mehr|noch|auch|ebenfalls|ebenso)\b"
)
_DENIED = re.compile(r"\b(?:nicht|nie|niemand\w{0,2}|niemals|kein\w{0,2}|kaum)\b")
_DENIAL_TOLD = re.compile(
    rf"{_DENIED.pattern}|\b(?:ohne|weder)\b|verlier|verlor|verlust|fehl|mangel|entfall|wegfall|knapp"
)
_HESSIAN = word_set("nordhessen mittelhessen osthessen suedhessen rhein-main-gebiet")
_TOWNS = frozenset(folded(place) for place in PLACES) | _HESSIAN
_TOWN_WORD = re.compile(r"[\w-]+")
# Words that hold another, by what they have before it, and mean something else: Bewohner have no
# "Wohnung" in them.
_OTHERWISE = {
    word[:_STEM]: tuple(before)
    for word, *before in map(
        str.split,
        """
        wohn be
        schliess be ent an aus
        such be ver
        komm be ein ab an
        steh be ver ent ge
        kauf ver
        sorg be ver ent
        halt be er ver ent auf in
        wart er
        handel be ver
        richt be unter nach ge
        gruend be
        stimm be
        trag be ver an auf
        teil be er ver ur vor
        treff be
        fahr er ge ver
        setz be er ge ver
        """.strip().splitlines(),
    )
}


class Bearing(IntEnum):
    """How far an article bears out a guess."""

    NONE = 0
    """It guesses nothing, or surely not this."""
    UNSURE = 1
    """It guesses about that, but maybe something else; or says for certain what the statement
    guesses."""
    SAME = 2
    """It guesses about the same thing."""


class Weighed:
    """The sentences of an article, to look up what of them is a guess."""

    def __init__(self, title: str, content: Sequence[str]) -> None:
        told = [unfolded(sentence) for sentence in (title, *content)]
        self._plain = [folded(_THE_END.sub(_CLOSING, sentence)) for sentence in told]
        self._sure = [n for n, sentence in enumerate(told) if _WEIGHS.search(sentence)]
        self._maybe = [n for n, sentence in enumerate(told) if _MAY_WEIGH.search(sentence)]
        self._sentences = told
        self._bearings: dict[str, Bearing] = {}  # more than one rule asks

    def bearing(self, statement: str) -> Bearing:
        """Return how far the article bears out the guess that `statement` is.

        A sentence that guesses bears it out with all or half of its words, two at least; one that
        only can be meant so does, too. A telling word, with a third of all or a half, leaves it
        unsure; so does a sentence that says for certain two thirds of what is guessed.
        """
        if statement not in self._bearings:
            self._bearings[statement] = self._find_bearing(statement)
        return self._bearings[statement]

    def _find_bearing(self, statement: str) -> Bearing:
        stems = content_stems(statement)
        if not stems:
            return Bearing.UNSURE if self._sure else Bearing.NONE
        found = Bearing.NONE
        plain = folded(statement)
        if any(guess.search(plain) and not self._names(told) for guess, told in _GRAVE):
            return found
        verb = _verb_of(statement)
        for number in {*self._sure, *self._maybe}:
            found = max(found, min(self._borne_out(stems, number), self._most(plain, number, verb)))
            if found is Bearing.SAME:
                return found
        return Bearing.UNSURE if self.tells(statement) else found

    def _most(self, statement: str, number: int, verb: frozenset[str]) -> Bearing:
        """Return how far a sentence can bear out a guess, folded, whatever words they share.

        Without the stem of the guess's verb, in `verb` if it has one, it may be of another event.
        """
        if self._differs(statement, number):
            return Bearing.UNSURE if number in self._sure else Bearing.NONE
        if _ALSO.search(statement) and not _MORE_TOLD.search(self._plain[number]):
            return Bearing.UNSURE
        if verb and not _shared(verb, self._plain[number]):
            return Bearing.UNSURE
        return Bearing.SAME

    def _names(self, event: re.Pattern[str]) -> bool:
        return any(event.search(plain) for plain in self._plain)

    def _differs(self, statement: str, number: int) -> bool:
        """Return whether one word makes another guess of it: "weitere", a denial, another town."""
        plain = self._plain[number]
        return (
            (_OTHERS.search(statement) is not None and not _MORE_TOLD.search(plain))
            or (_DENIED.search(statement) is not None and not _DENIAL_TOLD.search(plain))
            or self._elsewhere(statement, number)
        )

    def _elsewhere(self, statement: str, number: int) -> bool:
        """Return whether a sentence, or the one before, names towns, but none of a statement."""
        meant = _towns(statement)
        if not meant:
            return False
        named = _towns(self._plain[number]) | _towns(self._plain[max(0, number - 1)])
        return bool(named) and meant.isdisjoint(named)

    def _borne_out(self, stems: frozenset[str], number: int) -> Bearing:
        """Return how far a sentence that guesses, or may, bears out a guess of these words."""
        own, wide = self._told(stems, number)
        if own == stems:
            return Bearing.SAME
        if own <= _everywhere():
            return Bearing.NONE
        if len(own) > 1:
            return Bearing.SAME if 2 * len(own) >= len(stems) else Bearing.UNSURE
        enough = len(stems) / 3 if number in self._sure else len(stems) / 2
        return Bearing.UNSURE if len(wide) >= enough else Bearing.NONE

    def _told(self, stems: frozenset[str], number: int) -> tuple[frozenset[str], frozenset[str]]:
        """Return which of the words a sentence holds, and which it and the one before do.

        Both are the same if it leans on the one before, by a pronoun or for want of an own noun. No
        sentence leans on the title.
        """
        plain = self._plain[number]
        own = _shared(stems, plain)
        wide = own if number < 2 else own | _shared(stems, self._plain[number - 1])
        return (wide if wide != own and self._leans(number) else own), wide

    def _leans(self, number: int) -> bool:
        rest = _WEIGHS.sub(" ", self._sentences[number])
        return bool(_LEANS.search(self._plain[number])) or content_stems(rest) <= _everywhere()

    def says(
        self, statement: str, about: re.Pattern[str], modal: re.Pattern[str] | None = None
    ) -> bool:
        """Return whether the article says the same `about` someone, with that `modal`.

        Without a modal a sentence will do that guesses, or that can be meant so. Of the statement's
        other words two stand in it, or all there are. Who it is about stands there too, or
        elsewhere ("wir", says its chairwoman) if there are two such words. Both patterns search in
        folded text, and the words that `about` matches count for nothing.
        """
        stems = frozenset(stem for stem in content_stems(statement) if not about.search(stem))
        elsewhere = len(stems) > 1 and any(about.search(plain) for plain in self._plain)
        if modal is None:
            candidates = [self._plain[number] for number in {*self._sure, *self._maybe}]
        else:
            candidates = [plain for plain in self._plain if modal.search(plain)]
        return any(
            (elsewhere or about.search(plain)) and len(_shared(stems, plain)) >= min(2, len(stems))
            for plain in candidates
        )

    def tells(self, statement: str) -> bool:
        """Return whether a sentence says for certain two thirds of what a statement guesses.

        That is no guess of the article, but no invention either: unless it guesses of "weitere",
        denies, or is about another town, and the sentence does not.
        """
        stems = content_stems(statement)
        told, guess = max(2, 2 * len(stems) / 3), folded(statement)
        return any(
            len(_shared(stems, plain)) >= told and not self._differs(guess, number)
            for number, plain in enumerate(self._plain)
        )


@lru_cache(maxsize=256)
def content_stems(sentence: str) -> frozenset[str]:
    """Return the stems of the words of a sentence that say what it is about, folded.

    Of the verbs in `_LIGHT` only if no other word tells anything.
    """
    told = _WORD.findall(_THE_END.sub(_CLOSING, sentence))
    words = [word for word in told if word.lower() not in _NO_CONTENT]
    telling = _stems(word for word in words if word not in _LIGHT)
    return _stems(words) if telling <= _everywhere() else telling


def _verb_of(statement: str) -> frozenset[str]:
    """Return the stem of the verb that a guess ends with, if it says what is to happen."""
    match = _LAST_VERB.search(statement.rstrip('“”«" '))
    if match is None or match.group(1) in _LIGHT:
        return frozenset()
    return content_stems(match.group(1)) - _everywhere()


def _stems(words: Iterable[str]) -> frozenset[str]:
    return frozenset(stem for word in words if len(stem := _stem(folded(word))) >= _LEAST_STEM - 1)


def _stem(word: str) -> str:
    stem = _ENDING.sub("", word)
    stem = stem if len(stem) >= _LEAST_STEM else word
    return stem[: _COMPOUND if stem[:_STEM] in _HEADS else _STEM]


@cache
def _everywhere() -> frozenset[str]:
    return frozenset(_stem(folded(word)) for word in _COMMON)


@lru_cache(maxsize=1024)
def _names_of(stem: str) -> tuple[str, ...]:
    """Return a stem with what stands for it: words for one event, what a compound ends with."""
    if len(stem) > _STEM:
        tail = stem[_STEM:]
        return (stem, tail) if len(tail) > _LEAST_STEM else (stem,)
    if len(stem) < _LEAST_STEM:
        return (stem,)
    events = (
        event
        for event in _EVENTS
        if any(stem.startswith(word[:_STEM]) or word.startswith(stem) for word in event)
    )
    return (stem, *(word for event in events for word in event))


@lru_cache(maxsize=1024)
def _towns(plain: str) -> frozenset[str]:
    words = _TOWN_WORD.findall(plain)
    forms = (form for word in words for form in (word, word.removesuffix("er"), word.rstrip("s")))
    return _TOWNS.intersection(forms)


def _shared(stems: frozenset[str], plain: str) -> frozenset[str]:
    return frozenset(s for s in stems if any(_stands(name, plain) for name in _names_of(s)))


def _stands(name: str, plain: str) -> bool:
    """Return whether a word stands in a sentence, be it in another, but in none of `_OTHERWISE`."""
    place = plain.find(name)
    before = _OTHERWISE.get(name[:_STEM])
    while before and place >= 0 and plain.endswith(before, 0, place):
        place = plain.find(name, place + 1)
    return place >= 0
