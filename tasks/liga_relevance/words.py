"""German words that the label rules know: those of the language, not of the news."""

import re
import unicodedata


def word_set(text: str) -> frozenset[str]:
    """Return the words of `text`, which white space divides: a list that can be read."""
    return frozenset(text.split())


# Words that open or join sentences and are never names or nouns. Capitalised after a full stop
# they are the surest sign of a new sentence.
FUNCTION_WORDS = word_set(
    """
    der die das dem den des ein eine einen einem einer eines kein keine keinen keinem keiner
    dieser diese dieses diesen diesem jeder jede jedes jeden jedem jene jener jenes manche viele
    vielen wenige einige etliche mehrere alle allen aller beide beiden solche andere anderen ich
    du er sie es wir ihr man mich dich sich uns euch ihn ihm ihnen mein meine sein seine seinen
    seiner seinem ihre ihren ihrem ihrer unser unsere unseren unserer wer was wem wen wessen
    welche welcher welches und oder aber denn doch sondern sowie auch nur noch nicht nie schon
    sehr so wie als wenn weil dass ob obwohl während bevor nachdem sobald solange damit falls da
    in im an am auf aus bei beim bis durch für gegen hinter mit nach neben ohne seit trotz über
    um unter von vom vor wegen zu zum zur zwischen ab laut gemäß statt anstatt binnen innerhalb
    außerhalb dank entlang gegenüber hier dort dann danach dabei dafür dagegen daher dahinter
    damals daneben daran darauf daraus darin darüber darum darunter davon davor dazu deshalb
    deswegen trotzdem dennoch jedoch zudem außerdem ferner zugleich zuvor zuletzt zunächst
    zuerst schließlich inzwischen mittlerweile bereits bisher bislang heute morgen gestern jetzt
    nun bald später früher künftig derzeit aktuell damit somit also etwa rund knapp fast mehr
    weniger allein allerdings insgesamt besonders vor allem ebenso ebenfalls gleichzeitig
    stattdessen vielmehr zwar indes hingegen wo wann warum wieso woher wohin worauf wofür
    wodurch ist sind war waren wird werden wurde wurden hat haben hatte hatten kann können
    konnte muss müssen musste soll sollen sollte will wollen wollte darf dürfen durfte mag
    betroffen möglich nötig geplant
    """
)

MONTHS = {
    "januar": 1,
    "jänner": 1,
    "februar": 2,
    "märz": 3,
    "april": 4,
    "mai": 5,
    "juni": 6,
    "juli": 7,
    "august": 8,
    "september": 9,
    "oktober": 10,
    "november": 11,
    "dezember": 12,
}
SHORT_MONTHS = "jan|feb|mär|apr|jun|jul|aug|sept?|okt|nov|dez"
"""Their abbreviations as a pattern, without the dot."""
WEEKDAYS = word_set(
    """
    montag dienstag mittwoch donnerstag freitag samstag sonnabend sonntag
    """
)

_WORD = re.compile(r"\w+")
# At the end of a line: "Arbeiter-\nwohlfahrt", but not "Kinder-\nund Jugendhilfe".
_BROKEN_WORD = re.compile(
    r"(?<=[^\W\d_])[-\u2010][^\S\n]*\n[^\S\n]*"
    r"(?!(?:und|oder|sowie|bis|bzw|beziehungsweise)\b)(?=[a-zäöüß])"
)
_BROKEN_COMPOUND = re.compile(r"(?<=[^\W\d_]-)[^\S\n]*\n[^\S\n]*(?=[A-ZÄÖÜ])")
_SPACE = re.compile(r"(?<!\s)(?:[^\S ]\s*| \s+)")  # but a single blank
_ACCENTS = re.compile("[\u0300-\u036f]")  # combining marks
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "ı": "i", "ø": "o", "ł": "l"})


def words_of(text: str) -> list[str]:
    """Return the words of `text` in order, in small letters: letters, digits and nothing else."""
    return _WORD.findall(unfolded(text).casefold())


def unfolded(text: str) -> str:
    """Return `text` composed (NFC) and without the characters that only allow a line break."""
    return unicodedata.normalize("NFC", text).replace("\u00ad", "").replace("\u200b", "")


def flowing(text: str) -> str:
    """Return `text` without its line breaks, but for empty lines: they may be those of a page.

    Words that a hyphen divides at the end of a line are whole, and other white space is a blank.
    Between two digits it stays: there it groups thousands, or divides the cells of a table.
    """
    if "\n" in text:
        text = _BROKEN_COMPOUND.sub("", _BROKEN_WORD.sub("", text.replace("\r\n", "\n")))
    return _SPACE.sub(_blank, text)


def _blank(space: re.Match[str]) -> str:
    around = (
        space.string[space.start() - 1 : space.start()],
        space.string[space.end() : space.end() + 1],
    )
    if space.group().count("\n") > 1 or all(sign.isdecimal() for sign in around):
        return space.group()
    return " "


def folded(word: str) -> str:
    """Return a word so that its spellings agree: Müller and Mueller, Yıldız and Yildiz."""
    plain = unicodedata.normalize("NFC", word).lower().translate(_UMLAUTS)
    if plain.isascii():
        return plain
    return _ACCENTS.sub("", unicodedata.normalize("NFD", plain))
