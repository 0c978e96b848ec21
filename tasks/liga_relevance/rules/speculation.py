"""Rules on speculation: what the Liga might do, and what might happen without the article's word.

"Die Liga fordert, dass das Land helfen sollte" is a report; "Die Liga sollte helfen" is not.
"Kosten könnten steigen" is a report where the article itself weighs what may come.
"""

import re
from functools import lru_cache

from tasks.liga_relevance.rules.case import Case, Findings, Rule, excerpt

_GUESS = (
    r"(?:(?:dürft|könnt|möcht)e(?:n|t|st)?|(?:wird|werden|will|wollen) (?:\w{1,20} ){0,3}?"
    r"(?:(?<!sehr )(?-i:wohl)(?! fühl)|vermutlich|wahrscheinlich|sicherlich|möglicherweise"
    r"|voraussichtlich))"
)
_ADVICE = r"(?:(?:müsst|sollt|würd)e(?:n|t|st)?)"
_WHO = r"(?:liga|liga-verbände|mitgliedsverbände|arbeitskreise?|ak ?[1-5]|qag)"
# No comma in between: after one another subject can follow, as in "warnt die Liga, könnten Träger".
_NEAR = r"[^.!?,;:]{0,100}"
_LIGA_SPECULATION = re.compile(
    rf"(?P<who>\b{_WHO}\b){_NEAR}?\b{_GUESS}\b"
    rf"|\b{_GUESS}\b{_NEAR}?(?P<who2>\b{_WHO}\b)"
    rf"|(?P<who3>\b{_WHO}\b)(?: hessen)? {_ADVICE}\b"
    rf"|\b{_ADVICE} (?:sich )?(?:die|der|das) (?P<who4>{_WHO}\b)"
    r"|\b(?:es (?:ist|wäre|scheint|erscheint|bleibt) (?:(?!kaum\b|nicht möglich)\w{1,20} ){0,3}"
    r"(?:denkbar|vorstellbar|möglich|wahrscheinlich|anzunehmen|zu (?:vermuten|erwarten)"
    r"|nicht (?:auszuschließen|ausgeschlossen))"
    r"|(?:denkbar|vorstellbar|möglich) (?:ist|wäre|bleibt)(?: auch| zudem)?)"
    rf", dass (?:sich )?(?:auch |sogar )?(?:(?:die|der|das|ein) )?(?P<who5>{_WHO}\b)",
    re.IGNORECASE,
)
# Where the Liga is no more than the source of what is said, or the one it is said to.
_SOURCE = re.compile(
    r"(?:laut|gemäß|zufolge|ansicht|meinung|sicht|angaben?|einschätzung|worten|auffassung|an|bei|mit"
    r"|gegenüber|gegen)"
    r"(?: (?:der|die|den|dem|des))?(?: [a-zäöüß]{1,20}n)? $",
    re.IGNORECASE,
)
_CONJECTURE = re.compile(r"\b(?:dürft|könnt)e(?:n|t|st)?\b", re.IGNORECASE)
_MAY = r"(?:könnt|dürft)e(?:n|t|st)?"
_EFFECT = (
    r"(?:betroffen|gefährdet|beeinträchtigt|belastet|relevant|interessant|wichtig"
    r"|von (?:bedeutung|interesse)) (?:sein|werden)"
    r"|(?:auswirkung|folge|konsequenz|bedeutung|auswirk|einfluss)\w*\b[^.!?]{0,30}\b(?:haben|sein)"
    r"|sich\b[^.!?]{0,60}\bauswirken|betreffen|nach sich ziehen"
)
_SPECULATION = re.compile(
    rf"\b{_MAY}\b[^.!?]{{0,120}}?\b(?:{_EFFECT})\b"
    r"|\b(?:ist|bleibt) (?:\w{1,20} ){0,3}(?:zu (?:erwarten|vermuten|befürchten|rechnen)|anzunehmen"
    r"|davon auszugehen)\b"
    r"|\bes (?:ist|wäre|scheint|erscheint|bleibt) (?:(?!kaum\b|nicht denk|nicht vor)\w{1,20} ){0,2}"
    r"(?:denkbar|vorstellbar|nicht auszuschließen|nicht ausgeschlossen), dass\b"
    r"|\b(?:es ist|man kann|lässt sich|lässt) (?:\w{1,20} ){0,3}(?:davon ausgehen|vermuten)\b",
    re.IGNORECASE,
)
_HEDGE = re.compile(
    rf"\b{_MAY}\b|\b(?:vermutlich|wahrscheinlich|möglicherweise|womöglich|mutmaßlich|eventuell"
    r"|vielleicht|voraussichtlich)\b",
    re.IGNORECASE,
)
# An article that weighs what may come: its conjectures may be reported.
_WEIGHS = re.compile(
    r"\b(?=[acdefghklmprsvw])"  # their first letters: most words are passed at once
    r"(?:könnt|dürft|vermut|wahrscheinlich|möglich|womöglich|wohl\b|droh|voraussichtlich|erwart"
    r"|rechne[nt]|befürcht|eventuell|evtl|prognos|gefährde|gefahr|risiko|risiken|vielleicht|mutmaßlich"
    r"|angeblich|denkbar|vorstellbar|auszuschließen|ausgeschlossen"
    r"|würde|hoff|absehbar|sorge|fürcht|steh(?:t|en) vor\b|vor dem aus\b"
    r"|may\b|might\b|could\b|expect|likely)",
    re.IGNORECASE,
)
# Reported speech turns "wir können" into "sie könnten".
_REPORTABLE = re.compile(r"\b(?:kann|können|könne|darf|dürfen|dürfe|soll|sollen)\b", re.IGNORECASE)


def _liga_speculation(case: Case) -> Findings:
    for name, text in case.claims:
        for found in _LIGA_SPECULATION.finditer(text):
            who = next(
                group for group in ("who", "who2", "who3", "who4", "who5") if found.group(group)
            )
            before = text[max(0, found.start(who) - 50) : found.start(who)]
            if not _SOURCE.search(before):
                yield f"{name} {excerpt(found.group())}"
                break


def _argument_mood(case: Case) -> Findings:
    for argument in case.answer.argumentationskette:
        if found := _CONJECTURE.search(argument):
            yield f"{found.group()} in {excerpt(argument)}"


@lru_cache(maxsize=8)
def _weighs(article: str) -> bool:
    return _WEIGHS.search(article) is not None


def _speculation(case: Case) -> Findings:
    if _weighs(case.shown):
        return
    for name, text in (*case.prose, ("reasoning", case.answer.reasoning)):
        if found := _SPECULATION.search(text):
            yield f"{name} {excerpt(found.group())}"


def _hedge(case: Case) -> Findings:
    if _weighs(case.shown) or _REPORTABLE.search(case.shown):
        return
    for name, text in case.prose:
        if found := _HEDGE.search(text):
            yield f"{name} {excerpt(text[found.start() : found.start() + 60])}"


LIGA_SPECULATION = Rule(
    "liga-speculation",
    "error",
    "Keine Vermutung und kein Rat, was die Liga tun dürfte, könnte oder sollte",
    _liga_speculation,
)
ARGUMENT_MOOD = Rule(
    "argument-mood",
    "error",
    "Ein Argument steht im Konjunktiv; schreibe es im Indikativ",
    _argument_mood,
)
SPECULATION = Rule(
    "speculation",
    "error",
    "Eine Vermutung, die der Artikel nicht äußert; nenne nur, was er sagt",
    _speculation,
)
HEDGE = Rule(
    "hedge",
    "warning",
    "Ein Text vermutet oder steht im Konjunktiv, der Artikel nicht",
    _hedge,
)
