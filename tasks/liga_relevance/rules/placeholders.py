"""The rule on placeholders: texts that stand in for one that is missing.

A text that is nothing but such words or sentences ("N/A", "Derzeit liegen keine weiteren
Informationen vor.") always is one. Among other sentences one counts as filler unless it may report
what the article says, that is unless the thing it calls missing is named there: "Eine Begründung
ist nicht vorhanden" can be news.
"""

import re
from collections.abc import Iterator

from tasks.liga_relevance.rules.case import Case, Findings, Rule, excerpt

_PART = (
    r"(?:(?:(?:pro|kontra|contra|gegen)-?|haupt|neben)?argument|grund|these|aspekt|begründung"
    r"|schlagwort|schlüsselwort|stichwort|satz|punkt|beispiel|tag|keyword)"
)
# Whole texts that say nothing.
_EMPTY_WORDS = re.compile(
    r"(?:n/?a|k\.? ?a\.?|n\.? ?n\.?|n\.? ?v\.?|o\.? ?a\.?|null|none|nan|undefined|leer|unbekannt"
    r"|unklar|string|platzhalter|placeholder|(?:dummy|blind|muster|test|beispiel)(?:[- ]?text)?"
    r"|keine?r?(?: angaben?| inhalte?| text| daten| argumente?| schlagworte?)?"
    r"|ohne (?:angaben?|inhalt|text)|nicht (?:verfügbar|vorhanden|angegeben|zutreffend|bekannt)"
    r"|entfällt|todo|to do|tbd|tba|fixme|xx+|text|d?ito|ditto|foo|bar|asdf|(?:bla ?){1,5}"
    r"|(?:der )?(?:text|inhalt|analyse|zusammenfassung|rest)? ?folgt(?: in kürze| noch| später)?"
    r"|(?:noch )?(?:in (?:arbeit|bearbeitung|vorbereitung)|offen|zu ergänzen|ausstehend)"
    r"|(?:s\.|siehe|wie) ?(?:o\.|u\.|oben|unten)|coming soon|to be (?:done|added|determined)"
    rf"|{_PART}(?: (?:nr\.?|nummer))?(?: ?#?[\dx]| (?:[a-z]|eins|zwei|drei|vier|fünf|sechs))?"
    rf"|(?:(?:der|die|das|eine?|mein) )?"
    rf"(?:erst|zweit|dritt|viert|fünft|sechst|nächst|letzt|weiter)e[rsn]? {_PART}"
    r"|(?:erst|zweit|dritt|viert)ens"
    r"|summary|detailed[_ ]analysis|argumentationskette|reasoning|tags"
    r"|[-–—.?_*]+|\[?[-–.…]+\]?|[\[<{]{1,2}[^\[\]<>{}]{0,80}[\]>}]{1,2})[.!:]?"
)
# A tag of one word like these can be a subject.
_SUBJECTS = re.compile(
    r"text|test|offen|unklar|unbekannt|leer|tag|argument|these|begründung|beispiel|in arbeit"
)
_META = (
    r"(?:kurz|detail|text)?(?:zusammenfassung|analyse|begründung|inhaltsangabe|bewertung|text"
    r"|einordnung|einschätzung|auswertung|argumentation|argument|schlagwort|schlagwörter)(?:en?|s)?"
)
_FACTS = (
    r"(?:hintergrund|detail|zusatz)?(?:information|info|angabe|detail|einzelheit|erkenntnis|daten"
    r"|hinweis|fakt|inhalt)(?:n|en|s|e|se)?"
)
_REPORT = r"(?:artikel|text|beitrag|meldung|bericht|post|nachricht|quelle)s?"
_ADJECTIVES = r"(?:\w{2,20}(?:e|en|er|es) ){0,2}"
_ADVERBS = (
    r"(?:(?:derzeit|aktuell|bislang|bisher|momentan|zurzeit|zur zeit|gegenwärtig|noch|leider|hier"
    r"|dazu|hierzu|darüber hinaus|sonst|ansonsten|jedoch|aber|zum jetzigen zeitpunkt|im moment"
    r"|an dieser stelle|weiter|automatische?) ?){0,2}"
)
_ABOUT = (
    r"(?:(?:zu|zum|zur|über|für|in|im|aus|mit|auf)? ?(?:diese[mnrs]?|de[mnr]|das|die|eine[rnm]?)? ?"
    r"(?:artikel|text|beitrag|thema|meldung|bericht|quelle|inhalt|seite|zusammenfassung|analyse"
    r"|bewertung|einschätzung)\w{0,3} ?)?"
    r"(?:(?:aufgrund|wegen|mangels|ohne|anhand|auf basis|auf grundlage) (?:\w{1,30} ){1,5})?"
)
_STATE = (
    r"(?:verfügbar|vorhanden|möglich|bekannt|erforderlich|notwendig|nötig|enthalten|gegeben|vor"
    r"|zu entnehmen|ersichtlich|vorliegend|zur verfügung(?: gestellt)?|angegeben|genannt|erwähnt"
    r"|(?:erstellt|gefunden|erzeugt|ermittelt|abgeleitet|generiert|durchgeführt|vorgenommen)"
    r"(?: werden)?)"
)
_ARTICLE = r"(?:eine|einen|die|der|das|ein) "
_IS = (
    r"(?:ist|sind|war|waren|wird|werden|wurde|wurden|konnte|konnten|kann|können|gibt|liegt|liegen|lag"
    r"|lagen|steht|stehen|gibt es|gab es|existieren|existiert)"
)
_NOUN = rf"(?P<noun>{_META}|{_FACTS})"
# Keine detaillierte Analyse verfügbar. Keine weiteren Angaben.
_NONE = rf"keine? {_ADJECTIVES}{_NOUN} ?{_ABOUT}{_ADVERBS}{_STATE}?"
# Derzeit liegen keine weiteren Informationen vor. Zu diesem Artikel gibt es keine Analyse.
_THERE_IS_NONE = rf"{_ADVERBS}{_ABOUT}(?:es )?{_IS} {_ADVERBS}{_ABOUT}{_NONE}"
# Eine ausführliche Bewertung ist derzeit nicht möglich. Weitere Details sind nicht bekannt.
_IS_NOT = (
    rf"(?:{_ARTICLE})?{_ADJECTIVES}{_NOUN} ?{_ABOUT}(?:{_IS} )?{_ADVERBS}{_ABOUT}nicht {_STATE}"
)
# Derzeit ist eine Bewertung nicht möglich.
_NOT_IS = (
    rf"{_ADVERBS}{_ABOUT}{_IS} {_ADVERBS}(?:{_ARTICLE})?{_ADJECTIVES}{_NOUN} ?{_ABOUT}{_ADVERBS}"
    rf"nicht {_STATE}"
)
# Die Analyse wird nachgereicht. Wird ergänzt.
_FOLLOWS = (
    rf"(?:(?:{_ARTICLE})?{_ADJECTIVES}{_NOUN} )?(?:wird|werden|folgen|folgt) ?{_ADVERBS}"
    r"(?:in kürze ?|später ?|demnächst ?|zeitnah ?)?"
    r"(?:nachgereicht|nachgeliefert|nachgetragen|ergänzt|ausgefüllt)?"
)
# Siehe Zusammenfassung. Wie oben beschrieben.
_SEE = (
    r"(?:siehe|vgl\.?|vergleiche|wie) (?:auch |bereits )?(?:in der |im )?"
    r"(?:oben|unten|artikel|summary|zusammenfassung|analyse|detailed_analysis|reasoning|link"
    r"|originalartikel|titel)(?: \w{1,20}){0,2}"
)
_HERE_STANDS = (
    rf"hier (?:steht|folgt|kommt|stehen|entsteht) (?:{_ARTICLE}|ihre? |deine? )?{_NOUN}"
    r"(?: \w{1,20}){0,4}"
)
# Nähere Informationen fehlen.
_LACKS = (
    r"(?:weitere|nähere|genauere|zusätzliche|detaillierte|ausführliche|konkretere) "
    rf"{_NOUN} ?{_ABOUT}{_ADVERBS}(?:fehlen|fehlt)(?: {_ADVERBS})?"
)
# Hier Begründung einfügen. Bitte noch den Text ergänzen.
_TO_FILL_IN = (
    rf"(?:(?:bitte|hier|noch|nun|kurz|selbst|{_ARTICLE.strip()}|de[nmr]|ihre?n?|deine?n?) ){{0,4}}"
    rf"(?:(?:{_META}|text|inhalt|{_FACTS}) )?(?:(?:bitte|hier|noch|selbst) ){{0,2}}"
    r"(?:(?:ein|nach)(?:zu)?(?:fügen|setzen|tragen)|ergänzen|ausfüllen|formulieren|schreiben)"
)
_ENGLISH = (
    r"no (?:\w{1,20} )?(?:summary|analysis|information|details?|data|text|content)(?: (?:is|was))?"
    r"(?: (?:available|provided|given|found|possible))?|not (?:available|applicable|provided|given)"
)
# Whole sentences, in small letters and without marks around.
_EMPTY_PATTERNS = (_NONE, _THERE_IS_NONE, _IS_NOT, _NOT_IS, _FOLLOWS, _SEE, _HERE_STANDS, _LACKS)
_EMPTY_SENTENCES = tuple(
    re.compile(pattern) for pattern in (*_EMPTY_PATTERNS, _TO_FILL_IN, _ENGLISH)
)
_MISSING = re.compile(
    r"\b(?:kein|nicht|siehe|vgl|wie|wird|werden|folg|hier|no|not|fehl|behandel|themati|befass"
    r"|beschäftig|handel|geht es|es geht|offen)"
    r"|(?:füg|setz|trag|ergänz|füll|schreib|formulier)en\b",
    re.IGNORECASE,
)
# The article's own words about itself: filler in a summary, a reason in the reasoning.
_ARTICLE_LACKS = re.compile(
    r"(?:der|dieser|die|das|dem|im) (?:\w{1,20} )?(?:artikel|text|beitrag|meldung|bericht|post) "
    r"(?:enthält|nennt|liefert|bietet|gibt|macht|umfasst|sind|werden|lassen sich) "
    rf"{_ADVERBS}keine? {_ADJECTIVES}(?:{_FACTS}) ?{_ABOUT}"
    r"(?:enthalten|genannt|gemacht|her|preis|an|zu entnehmen|entnehmen)?"
    # Weitere Einzelheiten nennt der Artikel nicht.
    rf"|(?:mehr|weitere|nähere|genauere|genaue|zusätzliche|konkrete|andere) (?:{_FACTS}) "
    rf"(?:nennt|macht|enthält|liefert|bietet|gibt|lässt) (?:der|die|das|diese[rs]?) {_REPORT} "
    rf"{_ADVERBS}(?:nicht(?: (?:her|preis|an))?|offen)"
    rf"|(?:weitere|nähere|genauere|genaue|zusätzliche|konkrete) (?:{_FACTS}) gehen aus "
    rf"(?:de[mr]|diese[mr]) {_REPORT} nicht hervor"
    # Mehr ist dem Text nicht zu entnehmen. Mehr gibt der Artikel nicht her.
    r"|(?=.*\bnicht\b)(?:mehr|weiteres|näheres) (?:dazu )?"
    r"(?:ist|lässt sich|geht|steht|sagt|nennt|gibt) (?:nicht )?(?:(?:aus|in) )?"
    rf"(?:de[mr]|die|im|diese[mr]) {_REPORT}(?: hier)?(?: nicht)?"
    r"(?: (?:zu )?entnehmen| hervor| her)?"
    # Der Artikel behandelt ein wichtiges Thema.
    rf"|(?:(?:der|die|dieser|diese|dieses|das) {_REPORT} (?:behandelt|thematisiert|beleuchtet"
    r"|(?:befasst|beschäftigt) sich mit|handelt von)|(?:in|im) (?:(?:dem|der|diesem|dieser) )?"
    rf"{_REPORT} geht es um|es geht(?: hier)? um) (?:eine?[mnr]?|mehrere|verschiedene|viele) "
    r"(?:\w{2,20} ){0,3}(?:thema|themen|fragen?|problem|probleme|problemen|aspekten?)"
)
# Whole texts: "Kurze Zusammenfassung des Inhalts", "Begründung hier einfügen". As a tag such a word
# is a subject.
_HEADING = re.compile(
    rf"(?:(?:eine?|die|kurze?|ausführliche|detaillierte|neutrale) ){{0,2}}(?:{_META}|text|inhalt)"
    rf"(?: (?:des|der|dieses|dieser|zum|zur|vom) (?:{_REPORT}|inhalts?|themas?))?"
    r"(?: (?:bitte )?hier| bitte)?(?: (?:einfügen|einsetzen|eintragen|ergänzen))?[.!:]?"
)
# Ein Artikel über Kitas in Fulda. Without a verb, so in the reasoning alone it is a reason.
_TITLE = re.compile(
    r"(?:(?:Ein|Eine|Der|Die|Dieser|Diese) )?(?:[a-zäöüß]{2,20} )?(?:Artikel|Text|Bericht|Beitrag"
    r"|Meldung|Nachricht|Post|Zusammenfassung|Analyse) (?:über|zu|zum|zur|aus|von|vom) "
    r"(?:(?:(?:der|die|das|den|dem|des|einer?|einem|in|im|an|am|aus|für|bei|mit|von|und) ){0,3}"
    r"[A-ZÄÖÜ][\w-]{1,40},? ?){1,6}\.?"
)
# What gives a failed analysis away wherever it stands.
_ANYWHERE = re.compile(
    r"\blorem ipsum|\bdolor sit amet|\bals (?:ki|sprachmodell)\b|\bals künstliche intelligenz\b"
    rf"|\bfehler bei der {_META}|\[(?:{_META}|name|ort|datum|zahl|betrag|titel|quelle)\]"
    r"|\b(?:text|inhalt|zahl|name|betrag)e? (?:hier )?(?:einfügen|einsetzen|ergänzen)\b"
    rf"|\b(?:{_META}) (?:bitte )?hier (?:einfügen|einsetzen|ergänzen|eintragen)\b"
    rf"|\bautomatische {_META} (?:ist |war )?nicht {_STATE}"
    # what the prompts say of the fields
    r"|\bneutrale fakten(?:: wer| in 4)|\bwas über die summary hinausgeht\b"
    r"|\bfakten, zahlen, wörtliche zitate, folgen\b|\bzahlen, wörtliche zitate mit sprecher\b"
    r"|\bargumente(?:n für eine|, die so in einer) stellungnahme\b"
    r"|\bwelches merkmal macht die meldung\b|\bwarum die meldung relevant ist oder nicht\b"
)
_MARKERS = re.compile(r"\b(?:TODO|FIXME|TBD|TBA|XXX?|xxx)\b")
_AROUND = " \t\"'„“”»«()[]*#-–—.!:;…"


def _placeholder(case: Case) -> Findings:
    for name, text in case.texts:
        lowered = text.strip().casefold()
        whole = _EMPTY_WORDS.fullmatch(lowered[:100])
        subject = name == "tags" and _SUBJECTS.fullmatch(lowered)
        heading = name != "tags" and _HEADING.fullmatch(lowered)
        title = name in ("summary", "detailed_analysis") and _TITLE.fullmatch(text.strip())
        if (whole and not subject) or heading or title or _ANYWHERE.search(lowered):
            yield f"{name} {excerpt(text)}"
        elif marker := next((m for m in _MARKERS.findall(text) if m not in case.shown), ""):
            yield f"{name} enthält {marker}"
    yield from _sentences(case)


def _sentences(case: Case) -> Findings:
    """Find empty sentences: in a text of nothing else, or as filler in one."""
    for name, found in (
        ("summary", case.summary),
        ("detailed_analysis", case.analysis),
        ("reasoning", case.reasoning),
        *(("argumentationskette", [sentence]) for sentence in case.arguments),
    ):
        empty = list(_empty(found, reasoning=name == "reasoning"))
        for sentence, noun in empty:
            filler = name != "reasoning" and not (noun and case.vocabulary.has(noun))
            if len(empty) == len(found) or filler:
                yield f"{name} {excerpt(sentence)}"


def _empty(found: list[str], *, reasoning: bool) -> Iterator[tuple[str, str]]:
    """Yield the empty ones of the sentences, each with the noun of what it calls missing."""
    for sentence in found:
        if not _MISSING.search(sentence):
            continue
        plain = " ".join(sentence.casefold().strip(_AROUND).replace(",", " ").split())
        for pattern in _EMPTY_SENTENCES:
            if match := pattern.fullmatch(plain):
                yield sentence, match.groupdict().get("noun") or ""
                break
        else:
            if not reasoning and _ARTICLE_LACKS.fullmatch(plain):
                yield sentence, ""


PLACEHOLDER = Rule(
    "placeholder", "error", "Platzhalter statt Inhalt; schreibe den wirklichen Text", _placeholder
)
