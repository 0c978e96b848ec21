"""Rules on speculation: what the Liga might do, and what might happen without the article's word.

"Die Liga fordert, dass das Land helfen sollte" is a report; "Die Liga sollte helfen" is not.
"Kosten könnten steigen" is a report where the article itself weighs what may come of the costs
(tasks/liga_relevance/hedges.py): each sentence has to be borne out, not the text as a whole.
"""

import re
from collections.abc import Iterator

from tasks.liga_relevance.hedges import Bearing
from tasks.liga_relevance.rules.case import Case, Findings, Rule, excerpt

_MAY = r"(?:könnt|dürft)e(?:n|t|st)?"
_LIKELY = r"(?:vermutlich|wahrscheinlich|möglicherweise|womöglich|unter umständen)"
# Not "sehr wohl", "sich wohl fühlen", "wohl behütet" or "das Wohl".
_WOHL = r"(?<!sehr )\b(?-i:wohl)\b(?! (?:ge)?fühl| behütet| aufgehoben| versorgt| überlegt)"
_ADVERB = rf"(?:{_LIKELY}|sicherlich|{_WOHL})"
_GUESS = (
    r"(?:(?:dürft|könnt|möcht)e(?:n|t|st)?"
    rf"|(?:wird|werden|will|wollen) (?:\w{{1,20}} ){{0,3}}?(?:{_ADVERB}|voraussichtlich))"
)
_ADVICE = r"(?:(?:müsst|sollt|würd)e(?:n|t|st)?)"
_WHO = (
    r"(?:liga|liga-verbände|mitgliedsverbände|arbeitskreise?|ak ?[1-5]|qag|freien? wohlfahrtspflege"
    r"|wohlfahrtsverbänden?)"
)
# No comma in between: after one another subject can follow, as in "warnt die Liga, könnten Träger".
_NEAR = r"[^.!?,;:]{0,100}"
_LIGA_SPECULATION = re.compile(
    rf"(?P<who>\b{_WHO}\b){_NEAR}?\b{_GUESS}\b"
    rf"|\b{_GUESS}\b{_NEAR}?(?P<who2>\b{_WHO}\b)"
    rf"|(?P<who3>\b{_WHO}\b)(?: (?:in )?hessen)? {_ADVICE}\b"
    rf"|\b{_ADVICE} (?:sich )?(?:die|der|das) (?P<who4>{_WHO}\b)"
    r"|\b(?:es (?:ist|wäre|scheint|erscheint|bleibt) (?:(?!kaum\b|nicht möglich)\w{1,20} ){0,3}"
    r"(?:denkbar|vorstellbar|möglich|wahrscheinlich|anzunehmen|zu (?:vermuten|erwarten)"
    r"|nicht (?:auszuschließen|ausgeschlossen))"
    r"|(?:denkbar|vorstellbar|möglich) (?:ist|wäre|bleibt)(?: auch| zudem)?)"
    rf", dass (?:sich )?(?:auch |sogar )?(?:(?:die|der|das|ein) )?(?P<who5>{_WHO}\b)",
    re.IGNORECASE,
)
# Guesses and advice that a reasoning may hold, which says what there is to do.
_WORTH = (
    r"(?:sinnvoll|ratsam|angebracht|angezeigt|geboten|wünschenswert|empfehlenswert|naheliegend"
    r"|denkbar|vorstellbar|gut beraten)"
)
_LIGA_ADVICE = re.compile(
    rf"(?P<who>\b{_WHO}\b){_NEAR}?\b{_ADVERB}\b"
    rf"|\b{_ADVERB}\b{_NEAR}?(?P<who2>\b{_WHO}\b)"
    rf"|\b(?:{_WORTH} (?:wäre|erscheint)|(?:denkbar|vorstellbar) (?:ist|bleibt))\b{_NEAR}?"
    rf"(?P<who3>\b{_WHO}\b)"
    rf"|(?P<who4>\b{_WHO}\b){_NEAR}?\b(?:wäre|erscheint)\b{_NEAR}?\b{_WORTH}\b"
    rf"|\b(?:wäre|erscheint)\b{_NEAR}?(?P<who5>\b{_WHO}\b){_NEAR}?\b{_WORTH}\b"
    rf"|\bes (?:empfiehlt|empföhle) sich[^.!?;:]{{0,60}}?\b{_WHO}\b",
    re.IGNORECASE,
)
_LIGA_MUST_ACT = re.compile(
    rf"\bhandlungsbedarf (?:für|bei|auf seiten|seitens) (?:die |der )?{_WHO}\b"
    rf"|\b(?:für|bei) (?:die|der) {_WHO}\b{_NEAR}?\bhandlungsbedarf\b",
    re.IGNORECASE,
)
_WHO_GROUPS = ("who", "who2", "who3", "who4", "who5")
# Where the Liga is no more than the source of what is said, or the one it is said to.
_SOURCE = re.compile(
    r"(?:laut|gemäß|zufolge|ansicht|meinung|sicht|angaben?|einschätzung|worten|auffassung|an|bei|mit"
    r"|gegenüber|gegen)"
    r"(?: (?:der|die|den|dem|des))?(?: [a-zäöüß]{1,20}n)? $",
    re.IGNORECASE,
)
_LIGA_TOLD = re.compile(r"\bliga|wohlfa|mitgliedsv|arbeitskr|\bak ?[1-5]|\bqag")
# Modals in an article, folded; for those of an answer, each the same one.
_GUESS_TOLD = (
    r"\bwohl\b|vermut|wahrschein|moeglich|sicher|vorauss|umstaend|denkbar|vorstellb|erwart"
    r"|handlungsbed|sinnvoll|ratsam|angebracht|geboten|wuensch|empfehl|empfohl|gut beraten"
)
_SAME_MODAL = tuple(
    (re.compile(said, re.IGNORECASE), re.compile(told))
    for said, told in (
        (r"\bkönnte", r"\bk(?:oenn|ann)"),
        (r"\bdürfte", r"\bd(?:uerf|arf)"),
        (r"\bmöchte", r"\b(?:moecht|woll|will)"),
        (r"\b(?:sollt|müsst|würd)e", r"\b(?:soll|muess|muss|wuerd|forder)|auffor|aufgefor"),
        ("", _GUESS_TOLD),
    )
)
_CONJECTURE = re.compile(rf"\b{_MAY}\b", re.IGNORECASE)
_EFFECT = (
    r"(?:(?:betroffen|gefährdet|beeinträchtigt|belastet|relevant|interessant|wichtig"
    r"|von (?:bedeutung|interesse)) (?:sein|werden)"
    r"|(?:auswirkung|folge|konsequenz|bedeutung|auswirk|einfluss)\w*\b[^.!?]{0,60}\b(?:haben|sein)"
    r"|sich\b[^.!?]{0,60}\bauswirken|betreffen|nach sich ziehen)"
)
_SPECULATION = re.compile(
    rf"\b{_MAY}\b[^.!?]{{0,120}}?\b{_EFFECT}\b"
    r"|\b(?:ist|bleibt) (?:\w{1,20} ){0,3}(?:zu (?:erwarten|vermuten|befürchten|rechnen)|anzunehmen"
    r"|davon auszugehen)\b"
    r"|\bes (?:ist|wäre|scheint|erscheint|bleibt) (?:(?!kaum\b|nicht denk|nicht vor)\w{1,20} ){0,2}"
    r"(?:denkbar|vorstellbar|nicht auszuschließen|nicht ausgeschlossen), dass\b"
    r"|\b(?:es ist|man kann|lässt sich|lässt) (?:\w{1,20} ){0,3}(?:davon ausgehen|vermuten)\b",
    re.IGNORECASE,
)
# The writer's own guess, unless somebody is said to have made it.
_HARM = (
    r"(?:führen|verschärfen|verschlechtern|verschlimmern|erschweren|verstärken|treffen|belasten"
    r"|gefährden|signalwirkung haben)"
)
_THREATENS = r"\b(?:damit|dadurch|so|nun|jetzt) droh(?:t|en)\b"
_OWN_GUESS = re.compile(
    # "dürfen nicht" in reported speech is no guess
    r"\bdürfte(?:n|t|st)?\b(?![^.!?]{0,80}\b(?:nicht|nie|nur|niemand|niemals|kein\w{0,2})\b)"
    rf"|\bkönnte(?:n|t|st)?\b[^.!?]{{0,120}}?\b{_HARM}\b|\b(?:{_HARM}|{_EFFECT}) könnten?\b"
    rf"|\b{_LIKELY}\b|\b(?:wird|werden)\b[^.!?,;:]{{0,60}}?{_WOHL}"
    rf"|\bes besteht (?:\w{{1,20}} ){{0,2}}gefahr, dass\b|{_THREATENS}",
    re.IGNORECASE,
)
_HEDGE = re.compile(
    rf"\b{_MAY}\b|\b{_LIKELY}\b|\b(?:mutmaßlich|eventuell|vielleicht|voraussichtlich)\b"
    rf"|\b(?:wird|werden|ist|sind|hat|haben)\b[^.!?,;:]{{0,60}}?{_WOHL}"
    rf"|\bbesteht (?:\w{{1,20}} ){{0,2}}gefahr\b|{_THREATENS}",
    re.IGNORECASE,
)
_SAID = re.compile(
    r"\b(?:laut|zufolge|heißt es|hieß es|nach (?:angaben|ansicht|einschätzung|worten|auffassung"
    r"|meinung|aussage|darstellung)|sicht|mitgeteilt|angekündigt|davon aus|(?:sag|warn|beton|erklär"
    r"|fürcht|befürcht|kritisier|mein|bericht|forder|erwart|rechn|vermut|glaub|verweis|schätz|hoff"
    r"|klag|argumentier|mahn|antwort|äußer|schreib|sprech|seh)(?:t|te|et|ete|n|en|ten|eten)|sieht"
    r"|teilt(?:e|en)? [^.!?]{0,60}mit|spricht|sprach|sah|hält|hielt|schrieb|findet|fand)\b"
    r"|[“”«], so\b|(?-i:\bso [A-ZÄÖÜ])",
    re.IGNORECASE,
)


def _liga_speculation(case: Case) -> Findings:
    for name, text in case.claims:
        patterns = [_LIGA_SPECULATION]
        if name != "reasoning":
            patterns.append(_LIGA_ADVICE)
        if name in ("summary", "detailed_analysis"):
            patterns.append(_LIGA_MUST_ACT)
        found = next((m for p in patterns for m in p.finditer(text) if _of_liga(case, m)), None)
        if found:
            yield f"{name} {excerpt(found.group())}"


def _of_liga(case: Case, found: re.Match[str]) -> bool:
    """Return whether a match is a guess about the Liga that the article does not make itself."""
    groups = found.groupdict()
    who = next((group for group in _WHO_GROUPS if groups.get(group)), None)
    if who and _SOURCE.search(found.string[max(0, found.start(who) - 50) : found.start(who)]):
        return False
    modal = next(told for said, told in _SAME_MODAL if said.search(found.group()))
    return not case.weighed.says(_sentence_of(case, found), _LIGA_TOLD, modal)


def _sentence_of(case: Case, found: re.Match[str]) -> str:
    every = (*case.summary, *case.analysis, *case.reasoning, *case.arguments)
    return next((sentence for sentence in every if found.group() in sentence), found.group())


def _argument_mood(case: Case) -> Findings:
    for argument in case.answer.argumentationskette:
        if found := _CONJECTURE.search(argument):
            yield f"{found.group()} in {excerpt(argument)}"


def _speculation(case: Case) -> Findings:
    for name, sentence in _guessing(case, _SPECULATION, _OWN_GUESS):
        found = _SPECULATION.search(sentence)
        if not found and (name == "reasoning" or _SAID.search(sentence)):
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
