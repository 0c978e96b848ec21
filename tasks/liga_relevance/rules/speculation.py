"""Rules on speculation: what might happen, without the article's word.

"Kosten könnten steigen" is a report where the article itself weighs what may come of the costs
(tasks/liga_relevance/hedges.py): each sentence has to be borne out, not the text as a whole.
"""

import re
from collections.abc import Iterator

from tasks.liga_relevance.hedges import Bearing
from tasks.liga_relevance.rules.case import Case, Findings, Rule, excerpt

LIKELY = r"(?:vermutlich|wahrscheinlich|möglicherweise|womöglich|unter umständen)"
# Not "sehr wohl", "sich wohl fühlen", "wohl behütet" or "das Wohl".
WOHL = r"(?<!sehr )\b(?-i:wohl)\b(?! (?:ge)?fühl| behütet| aufgehoben| versorgt| überlegt)"
"""Adverbs of a guess, to be searched for in any case."""

_MAY = r"(?:könnt|dürft)e(?:n|t|st)?"
_CONJECTURE = re.compile(rf"\b{_MAY}\b", re.IGNORECASE)
_EFFECT = (
    r"(?:(?:betroffen|gefährdet|beeinträchtigt|belastet|relevant|interessant|wichtig"
    r"|von (?:bedeutung|interesse)) (?:sein|werden)"
    r"|(?:auswirkung|folge|konsequenz|bedeutung|auswirk|einfluss)\w*\b[^.!?]{0,60}\b(?:haben|sein)"
    r"|sich\b[^.!?]{0,60}\bauswirken|betreffen|nach sich ziehen)"
)
_AT_RISK = r"(?:betroffen|gefährdet|bedroht)"
_SPECULATION = re.compile(
    rf"\b{_MAY}\b[^.!?]{{0,120}}?\b{_EFFECT}\b"
    r"|\b(?:ist|sind|bleibt|bleiben) (?:\w{1,20} ){0,3}"
    r"(?:zu (?:erwarten|vermuten|befürchten|rechnen)|anzunehmen|davon auszugehen)\b"
    r"|\bes (?:ist|wäre|scheint|erscheint|bleibt) (?:(?!kaum\b|nicht denk|nicht vor)\w{1,20} ){0,2}"
    r"(?:denkbar|vorstellbar|nicht auszuschließen|nicht ausgeschlossen), dass\b"
    r"|\b(?:es ist|man kann|lässt sich|lässt) (?:\w{1,20} ){0,3}(?:davon ausgehen|vermuten)\b"
    rf"|\bpotenziell\b[^.!?,;:]{{0,60}}\b{_AT_RISK}\b"
    rf"|\bschein(?:t|en)\b[^.!?,;:]{{0,60}}\b{_AT_RISK}\b",
    re.IGNORECASE,
)
# What is feared in the indicative: "es droht eine Klage", but not "sie droht mit einer Klage".
_FEARED = (
    r"(?:\bdroh(?:t|en|te|ten)\b(?![^.!?,;:]{0,60}\b(?:mit|damit)\b)|\bdrohende[nrsm]?\b"
    r"|\b(?:besteh(?:t|en)|birgt|bergen) (?:(?!kein)\w{1,20} ){0,3}(?:gefahr|risik)(?:en|o)?\b"
    r"|\b(?:steigt|wächst) (?:das risiko|die gefahr)\b|\b(?:gefahr|risiko) besteht\b"
    r"|\bläuft gefahr\b)"
)
# "Eine Klage ist nicht ausgeschlossen", but not "Kinder sind vom Essen nicht ausgeschlossen".
_OPEN = (
    r"(?:\bnicht auszuschließen\b|\bnicht ausgeschlossen(?:,? dass| ist| sei| bleibt| scheint)\b"
    r"|\b(?:ist|bleibt|scheint) (?:(?!vo[nm])\w{1,20} ){0,2}nicht ausgeschlossen(?=\W*$)"
    r"|\bmögliche[nrsm]? (?:aus|rück)?(?:wirkung|folge|konsequenz|risik|effekt)\w*)"
)
_HARM = (
    r"(?:führen|verschärfen|verschlechtern|verschlimmern|erschweren|verstärken|treffen|belasten"
    r"|gefährden|signalwirkung haben)"
)
_WOULD = (
    rf"(?:\bwürden?\b[^.!?]{{0,120}}?\b(?:{_HARM}|schließen|einstellen|aufgeben|wegfallen|entfallen)\b"
    r"|\bwären? (?:\w{1,20} ){0,3}das (?:aus|ende)\b)"
)
# What is yet to be seen, which says nothing.
_TO_BE_SEEN = (
    r"(?:\b(?:bleibt|bleiben|ist|sind) (?:\w{1,20} ){0,3}(?:abzuwarten|absehbar)\b"
    r"|\bzeichne(?:t|n) sich\b[^.!?,;:]{0,60}\bab\b|\bes scheint,? als\b)"
)
# The writer's own guess, unless somebody is said to have made it.
_OWN_GUESS = re.compile(
    # "könnten nicht" is reported speech as a rule, and no guess
    r"\bdürfte(?:n|t|st)?\b|\bkönnte(?:n|t|st)?\b(?![^.!?,;:]{0,80}\b(?:nicht|nie|nur|niemand|niemals|kein\w{0,2})\b)"
    rf"|\bkönnte(?:n|st|t)?\b[^.!?]{{0,120}}?\b{_HARM}\b"
    rf"|\b{LIKELY}\b|\b(?:wird|werden)\b[^.!?,;:]{{0,60}}?{WOHL}|{_FEARED}|{_OPEN}"
    rf"|{_WOULD}|{_TO_BE_SEEN}",
    re.IGNORECASE,
)
_HEDGE = re.compile(
    rf"\b{_MAY}\b|\b{LIKELY}\b|\b(?:mutmaßlich|eventuell|vielleicht|voraussichtlich)\b"
    rf"|\b(?:wird|werden|ist|sind|hat|haben)\b[^.!?,;:]{{0,60}}?{WOHL}|{_FEARED}|{_OPEN}",
    re.IGNORECASE,
)
# Angaben and the like, of whoever gives them: "nach ihren Angaben", "seiner Meinung nach".
VIEW = (
    r"(?:angaben?|ansicht|einschätzung|worten|auffassung|meinung|aussagen?|darstellung|auskunft"
    r"|informationen|überzeugung|schätzung(?:en)?|prognosen?)"
)
_WHOSE = r"(?:(?:ihre[nr]|seine[nr]|deren|dessen|eigene[nr]|übereinstimmenden) ){0,2}"
_SAID = re.compile(
    r"\b(?:laut(?! (?:de[mrs] )?(?:artikel|text|beitrag|meldung))|zufolge|heißt es|hieß es"
    rf"|(?:nach|laut) {_WHOSE}{VIEW}|{_WHOSE}{VIEW} nach|sicht|mitgeteilt|angekündigt"
    r"|davon aus|(?:sag|warn|beton|erklär"
    r"|fürcht|befürcht|kritisier|mein|bericht|forder|erwart|rechn|vermut|glaub|verweis|schätz|hoff"
    r"|klag|argumentier|mahn|antwort|äußer|schreib|sprech|seh)(?:t|te|et|ete|n|en|ten|eten)|sieht"
    r"|teilt(?:e|en)? [^.!?]{0,60}mit|spricht|sprach|sah|hält|hielt|schrieb|findet|fand)\b"
    r"|[“”«], so\b|(?-i:\bso [A-ZÄÖÜ])",
    re.IGNORECASE,
)
# The verb of a guess is none of speech: "Eltern könnten klagen".
_OWN_VERB = re.compile(rf"(\b{_MAY}\b[^.!?,;:]{{0,120}}?) \w+(?=[.!?,;:]|$)", re.IGNORECASE)


def _argument_mood(case: Case) -> Findings:
    for argument in case.answer.argumentationskette:
        if found := _CONJECTURE.search(argument):
            yield f"{found.group()} in {excerpt(argument)}"


def _speculation(case: Case) -> Findings:
    for name, sentence in _guessing(case, _SPECULATION, _OWN_GUESS):
        found = _SPECULATION.search(sentence)
        said = _SAID.search(_OWN_VERB.sub(r"\1", sentence))
        if not found and (name == "reasoning" or said):
            continue
        found = found or _OWN_GUESS.search(sentence)
        if found and case.weighed.bearing(sentence) is Bearing.NONE:
            yield f"{name} {excerpt(sentence[found.start() :])}"


def _hedge(case: Case) -> Findings:
    for name, sentence in _guessing(case, _HEDGE):
        found = _HEDGE.search(sentence)
        if found and name != "reasoning" and case.weighed.bearing(sentence) is not Bearing.SAME:
            yield f"{name} {excerpt(sentence[found.start() : found.start() + 60])}"


def _guessing(case: Case, *patterns: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    """Yield the sentences, each with its field, of the texts in which a pattern is found."""
    fields = {"summary": case.summary, "detailed_analysis": case.analysis}
    texts = (*case.prose, ("reasoning", case.answer.reasoning))
    for name, text in texts:
        if any(pattern.search(text) for pattern in patterns):
            yield from ((name, sentence) for sentence in fields.get(name, case.reasoning))


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
