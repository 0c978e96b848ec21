"""Surnames that end like a German noun: Hartmann, Althaus, Lambrecht.

Behind a first name they are told from nouns ("weil Anna Wohngeld bekommt") by a list, or by an
ending of nouns that never go without an article, where what stands before the ending is not the
first part of a common compound ("Krankenhaus", "Fachmann").
"""

import re

from tasks.liga_relevance.first_names import FIRST_NAMES
from tasks.liga_relevance.proper_names import PLACES
from tasks.liga_relevance.words import word_set

_LISTED = word_set(
    """
    albrecht brecht lambrecht ruprecht rupprecht jung hartung hornung lenz benz renz lanz kranz
    schanz schilling schelling schmeling sperling kiesling kießling kling wessling sander zander
    bender binder linder brander pfänder richter kaplan clement landwehr
    """
)
_ENDING = re.compile(r"(?P<first>.{2,9})(?P<ending>mann|meister|hof|haus|heim|land)")
# First parts of common nouns, by ending.
_OF_NOUNS = {
    "mann": word_set(
        """
        fach ehe kamera geschäfts feuerwehr vertrauens ob lands staats weihnachts schnee stroh
        hinter vorder neben lebe ersatz wach gefolgs gewährs schutz sports kontakt rettungs steuer
        """
    ),
    "meister": word_set(
        """
        bürger haus welt europa landes vize brand schul handwerks polizei rekord kapell schützen
        bade zucht forst bau werk
        """
    ),
    "hof": word_set(
        """
        bahn fried bauern innen hinter schul bus gerichts rechnungs reiter pausen bau wertstoff
        betriebs gast straßen güter
        """
    ),
    "haus": word_set(
        """
        kranken rat frauen männer kinder alten pflege senioren gast kauf wohn eltern hoch auto
        pfarr gemeinde jugend familien vereins kultur schul treib gewächs opern reihen einzel
        nachbar gottes bürger mutter schau forst
        """
    ),
    "heim": word_set(
        """
        kinder alten pflege senioren jugend tier wohn schüler lehrlings studenten eigen mutter
        """
    ),
    "land": word_set(
        """
        aus in bundes heimat partner nachbar deutsch russ eng griechen ir finn est nieder schott
        thai herkunfts mutter vater flach um hinter bau acker saar grün is
        """
    ),
}
_DETERMINER = re.compile(
    r"\b(?:d(?:er|ie|as|em|en|es)|ein(?:e[mnrs]?)?|i[mn]|[ab]m|vom|zu[mr]|beim) $", re.IGNORECASE
)


def is_surname(word: str) -> bool:
    """Return whether a word with the ending of a noun is sooner a surname, behind a first name."""
    lowered = word.lower()
    if lowered in _LISTED or lowered in FIRST_NAMES:
        return True
    compound = _ENDING.fullmatch(lowered)
    if compound is None or word in PLACES:
        return False
    return compound.group("first") not in _OF_NOUNS[compound.group("ending")]


def may_name_a_house(word: str) -> bool:
    """Return whether a word can be the last of a building's name: "das Peter Kirchhof"."""
    return word.lower().endswith(("hof", "haus", "heim", "land"))


def follows_determiner(text: str, position: int) -> bool:
    """Return whether an article stands right before `position`: people have none."""
    return _DETERMINER.search(text, max(0, position - 8), position) is not None
