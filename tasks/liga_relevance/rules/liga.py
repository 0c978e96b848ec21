"""The rule on what the Liga might or should do: only the article may say so.

"Die Liga fordert, dass das Land helfen sollte" is a report; "Die Liga sollte helfen" is not. It is
one where the article says the same about the Liga: with any guess for a guess, so that "droht mit
Klage" bears out "könnte klagen"; with a demand for a demand.
"""

import re

from tasks.liga_relevance.rules.case import Case, Findings, Rule, excerpt
from tasks.liga_relevance.rules.speculation import LIKELY, VIEW, WOHL

_ADVERB = rf"(?:{LIKELY}|sicherlich|{WOHL})"
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
_GOOD = (
    r"(?:sinnvoll|ratsam|angebracht|angezeigt|geboten|wünschenswert|empfehlenswert|naheliegend"
    r"|gut beraten)"
)
_WORTH = rf"(?:{_GOOD}|denkbar|vorstellbar)"
_ADVERBS = r"(?:[a-zäöüß]{1,20} ){0,3}?"
_REACTION = (
    r"(?:stellungnahme|positionierung|äußerung|reaktion|beteiligung|begleitung|beobachtung|prüfung"
    r"|befassung|einschätzung|intervention|initiative|einmischung|engagement|vorgehen|auftreten)"
)
_OF_LIGA = rf"(?:der|durch die|seitens der) {_WHO}"
_LIGA_ADVICE = re.compile(
    rf"(?P<who>\b{_WHO}\b){_NEAR}?\b{_ADVERB}\b"
    rf"|\b{_ADVERB}\b{_NEAR}?(?P<who2>\b{_WHO}\b)"
    rf"|\b(?:{_WORTH} (?:wäre|erscheint)|(?:denkbar|vorstellbar) (?:ist|bleibt))\b{_NEAR}?"
    rf"(?P<who3>\b{_WHO}\b)"
    rf"|(?P<who4>\b{_WHO}\b){_NEAR}?\b(?:wäre|erscheint)\b{_NEAR}?\b{_WORTH}\b"
    rf"|\b(?:wäre|erscheint)\b{_NEAR}?(?P<who5>\b{_WHO}\b){_NEAR}?\b{_WORTH}\b"
    rf"|\bes (?:empfiehlt|empföhle) sich[^.!?;:]{{0,60}}?\b{_WHO}\b"
    rf"|\bfür (?:die|den|das) {_WHO}\b{_NEAR}?\b(?:empfiehlt|empfehlen|empföhle) sich\b"
    rf"|\b(?:empfiehlt|empfehlen) sich\b{_NEAR}?\bfür (?:die|den|das) {_WHO}\b"
    # "Der Vorschlag der Liga ist sinnvoll" praises it
    rf"|\b{_REACTION} {_OF_LIGA}(?: (?:in )?hessen)? (?:ist|sind|bleibt) {_ADVERBS}{_GOOD}\b"
    rf"|\b{_GOOD} (?:ist|sind|bleibt)\b{_NEAR}?\b{_REACTION} {_OF_LIGA}\b"
    rf"|\b(?:der|den) {_WHO}(?: (?:in )?hessen)? (?:wird|werden|ist|sei) {_ADVERBS}"
    r"(?:empfohlen|geraten|nahegelegt|zu (?:raten|empfehlen))\b"
    rf"|(?P<who7>\b{_WHO}\b)(?: (?:in )?hessen)? (?:tut|tun|täten?) {_ADVERBS}gut daran\b",
    re.IGNORECASE,
)
# What the Liga is said to be about to do, or able to, in the indicative.
_ACT = (
    r"(?:äußern|positionieren|einbringen|engagieren|einmischen|befassen|beschäftigen"
    r"|begleiten|beobachten|verfolgen|reagieren|handeln|(?:stellung|position) (?:nehmen|beziehen)"
    r"|ansetzen|anknüpfen|aufgreifen|ableiten|beitragen|mitwirken|einwirken|nutzen|unterstützen)"
)
_LIGA_WILL_ACT = re.compile(
    rf"(?P<who>\b{_WHO}\b)(?: (?:in )?hessen)? (?:wird|werden|kann|können)\b{_NEAR}?\b{_ACT}\b"
    rf"|\b(?:wird|werden|kann|können) (?:sich )?(?:die|der|das) (?P<who2>{_WHO}\b){_NEAR}?"
    rf"\b{_ACT}\b",
    re.IGNORECASE,
)
_WILL_TOLD = re.compile(
    r"\b(?:wird|werd|will|woll|soll|kann|koenn|moecht|plan|kuendig)|angekuend|bereit"
)
# Demands on the Liga that only its own statement, or somebody in the article, can make.
_CHECK = (
    r"(?:prüfen|klären|beobachten|bewerten|analysieren|untersuchen|diskutieren|erörtern|beachten"
    r"|berücksichtigen)"
)
_TO_CHECK = (
    rf"(?:\b(?:(?:ist|sind|bleibt|bleiben|hat|haben)\b|gilt es,?)[^.!?,;:]{{0,60}}?\bzu {_CHECK}"
    rf"|zu {_CHECK} (?:ist|sind|bleibt|bleiben))"
)
_HERE = (
    r"(?:(?:hier|da|darum|daher|deshalb|deswegen|dazu|nun|jetzt|also|somit|damit|zudem|auch"
    r"|folglich|dringend|schnell|sofort|bald) )"
)
_CALLED = r"(?:gefordert|gefragt|am zuge?|aufgerufen|aufgefordert|in der (?:pflicht|verantwortung))"
_LIGA_MUST_ACT = re.compile(
    rf"\bhandlungsbedarf (?:für|bei|auf seiten|seitens) (?:die |der )?{_WHO}\b"
    rf"|\b(?:für|bei) (?:die|der) {_WHO}\b{_NEAR}?\bhandlungsbedarf\b"
    rf"|(?P<who>\b{_WHO}\b)(?: (?:in )?hessen)? (?:muss|müssen)\b"
    # "Das Land muss die Liga fördern" is about the Land
    rf"|(?:^|[.!?;:] |\b{_HERE}{{1,2}})(?:muss|müssen) (?:sich )?{_HERE}{{0,2}}"
    rf"(?:die|der|das) (?P<who2>{_WHO}\b)"
    rf"|(?P<who3>\b{_WHO}\b)(?: (?:in )?hessen)? (?:ist|sind) {_HERE}{{0,2}}{_CALLED}\b"
    rf"|\b(?:ist|sind) {_HERE}?(?:die|der|das) (?P<who6>{_WHO}\b) {_HERE}{{0,2}}{_CALLED}\b"
    rf"|(?P<who4>\b{_WHO}\b)[^.!?;:]{{0,100}}?\b{_TO_CHECK}\b"
    rf"|\b{_TO_CHECK}\b[^.!?;:]{{0,100}}?(?P<who5>\b{_WHO}\b)",
    re.IGNORECASE,
)
_WHO_GROUPS = tuple(f"who{number}" for number in ("", *range(2, 8)))
# Where the Liga is no more than the source of what is said, or the one it is said to.
_SOURCE = re.compile(
    rf"(?:laut|gemäß|zufolge|sicht|{VIEW}|an|bei|mit|gegenüber|gegen)"
    r"(?: (?:der|die|den|dem|des))?(?: [a-zäöüß]{1,20}n)? $",
    re.IGNORECASE,
)
_LIGA_TOLD = re.compile(r"\bliga|wohlfa|verbaend|mitgliedsv|arbeitskr|\bak ?[1-5]|\bqag")
_SAYS_GUESS = re.compile(
    rf"\b(?:{_GUESS}|{_ADVERB}|denkbar|vorstellbar|möglich|anzunehmen|vermuten|erwarten)\b"
    r"|\bnicht aus",
    re.IGNORECASE,
)
# Demands in an answer, and in an article, folded, that bear them out; the last fits any advice.
_MUST_TOLD = (
    r"\b(?:soll|muess|muss|forder|gefor|gefrag|brauch|pruef|klaer|noetig|notwend)"
    r"|auffor|aufgefor|aufruf|aufgeruf|appell|pflicht|verantwort|zwing|gezwung"
    r"|handlungsbed"
)
_ADVICE_TOLD = (
    r"handlungsbed|gut daran|gerat|sinnvoll|ratsam|angebracht|geboten|wuensch|empf[eo]hl|beraten"
)
_DEMANDS = tuple(
    (re.compile(said, re.IGNORECASE), re.compile(told))
    for said, told in (
        (r"\b(?:sollt|müsst|würd)e", r"\b(?:soll|muess|muss|wuerd|forder)|auffor|aufgefor"),
        (rf"\b(?:muss|müssen|{_CALLED}|zu {_CHECK})\b", _MUST_TOLD),
        ("", _ADVICE_TOLD),
    )
)


def _liga_speculation(case: Case) -> Findings:
    for name, text in case.claims:
        patterns = [_LIGA_SPECULATION]
        if name != "reasoning":
            patterns.append(_LIGA_ADVICE)
        if name in ("summary", "detailed_analysis"):
            patterns.extend((_LIGA_MUST_ACT, _LIGA_WILL_ACT))
        found = next((m for p in patterns for m in p.finditer(text) if _of_liga(case, m)), None)
        if found:
            yield f"{name} {excerpt(found.group())}"


def _of_liga(case: Case, found: re.Match[str]) -> bool:
    """Return whether a match is a guess about the Liga that the article does not make itself."""
    groups = found.groupdict()
    who = next((group for group in _WHO_GROUPS if groups.get(group)), None)
    if who and _SOURCE.search(found.string[max(0, found.start(who) - 50) : found.start(who)]):
        return False
    sentence = _sentence_of(case, found)
    if _SAYS_GUESS.search(found.group()):
        return not case.weighed.says(sentence, _LIGA_TOLD)
    demand = next(told for said, told in _DEMANDS if said.search(found.group()))
    if found.re is _LIGA_WILL_ACT:
        demand = _WILL_TOLD
    told_so = found.re in (_LIGA_MUST_ACT, _LIGA_WILL_ACT) and case.weighed.tells(sentence)
    return not told_so and not case.weighed.says(sentence, _LIGA_TOLD, demand)


def _sentence_of(case: Case, found: re.Match[str]) -> str:
    every = (*case.summary, *case.analysis, *case.reasoning, *case.arguments)
    return next((sentence for sentence in every if found.group() in sentence), found.group())


LIGA_SPECULATION = Rule(
    "liga-speculation",
    "error",
    "Keine Vermutung, kein Rat und keine Forderung, was die Liga tun dürfte, könnte oder sollte",
    _liga_speculation,
)
