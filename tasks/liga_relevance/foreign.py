"""Telling a short German sentence from one in another language, by its words.

A language model is blind below some sixty characters, where three names make any language of a
text. Words are not: a sentence is taken for English if two words of it are (function words, and
the words that English answers to this task are made of), if these are at least half of those that
are not names, and if no word of it is surely German. English names and terms are written with
capitals ("Save the Children", "Housing First", "Social Media"), English words in an English
sentence are not.
"""

import re

from tasks.liga_relevance.proper_names import PLACES
from tasks.liga_relevance.words import FUNCTION_WORDS, word_set

# Shared with other languages, so they prove nothing.
_ALSO_FOREIGN = word_set(
    """
    in an am war hat so die man also will warum des er
    """
)
GERMAN_ONLY = FUNCTION_WORDS - _ALSO_FOREIGN

# None of them is a German word in small letters.
_ENGLISH = word_set(
    """
    the of and is are was were be been being has have had having do does did not no nor this that
    these those there their they them then than it its he she his her him we our us you your i my
    me to for from with without by at on into onto over under between among against about after
    before during while because since until although though if when where which who whom whose why
    how what or but both either neither only just even still yet already also too very more most
    less least much many some any every each few all none other another such own same can cannot
    could would should must may might shall out up down off again further once here

    article articles news report reports story text summary analysis information details available
    relevant irrelevant relevance related relates relating regarding concerning concerns concern
    topic topics issue issues subject content context mention mentions mentioned describes
    described discusses covers focuses affects affected affect impact impacts important significant
    clear direct directly indirect connection link reference social society welfare policy policies
    political politics government state federal local regional national public private community
    communities organisation organisations organization organizations association associations
    institution institutions facility facilities service services provider providers support
    supports supported supporting help helps helped helping need needs needed require requires
    required care caring carers caregivers daycare childcare kindergarten nursery school schools
    education educational training child children kid kids youth young people person persons man
    men woman women family families parent parents mother mothers father fathers elderly older
    senior seniors disabled disability disabilities refugee refugees migrant migrants migration
    asylum homeless homelessness poor poverty housing rent rents health healthcare hospital
    hospitals nursing nurse nurses patient patients doctor doctors illness addiction debt violence
    abuse crime police court law laws bill legal rights right worker workers work works working
    staff employee employees employer employers job jobs wage wages pay paid pays salary salaries
    strike union unions money funding funds fund funded cost costs cut cuts cutting budget budgets
    tax taxes million billion percent year years month months week weeks day days time times today
    yesterday tomorrow increase increases increased increasing rise rises rising reduce reduces
    reduced reduction decrease loss lose loses losing lost close closes closed closing closure open
    opens opened opening new old high higher low lower big small large long short good bad better
    worse best first last next lack lacks lacking shortage missing threat threaten threatens
    threatened threatening demand demands demanded demanding call calls called calling warn warns
    warned warning says said saying say announces announced announce plans planned planning wants
    want wanted makes make made making takes take took taken gives give gave given gets get got
    goes go went comes come came sees see saw shows show showed shown leads lead led leaves leave
    left remains remain stays stay becomes become became provides provide provided providing
    offers offer offered offering receives receive received uses use used using pushes suffers
    suffer suffered faces face facing loses struggle struggles improve improves improved essential
    urgent urgently immediately reliable sufficient adequate affordable access available equal
    sport sports football soccer match game games team teams player players win wins won event
    events culture cultural music concert festival weather accident fire traffic economy economic
    business company companies market city cities town towns country world war peace side aspect
    a deserve deserves protect protects protected protection inclusion equality justice dignity
    freedom opportunity opportunities chance chances future life lives living live home homes
    quality
    strengthen strengthens ensure ensures matters matter stop stops start starts
    aspects nothing something everything nobody everyone someone action act acts required
    """
)
# German too, in small letters or as the first word of a sentence.
_NEITHER = word_set(
    """
    relevant irrelevant human go so in an am was die war man also all team sport service job event
    festival
    festivals konzert person most text rights right best last gave act
    """
)
_OF_GERMAN = re.compile(
    r".*[äöüß].*|.{15,}|ge[a-z]{3,}(?:t|te[nrsm]?|en)|(?:ver|zer|ent|er|be)[a-z]{3,}(?:t|en)"
    r"|[a-z]{2,}(?:en|ern|eln)|.{2,}(?:ung|ungen|heit|heiten|keit|keiten|schaft|schaften"
    r"|lich|liche[nrsm]?|isch|ische[nrsm]?|ige[nrsm]?|iert|ierte[nrsm]?|zig)"
)
# Nouns, which German would write with a capital, and adjectives.
_OF_ENGLISH = re.compile(
    r".{3,}(?:ity|ities|ness|tions?|ments?|ous|ful|less|ship|ively)|.{2,}[^fghr]ing"
)
# What looks like it and is English.
_ENGLISH_ENDINGS = word_set(
    """
    been even seen teen keen green queen screen between often open opens happen listen children
    women men ten seven eleven given taken driven written broken spoken chosen frozen fallen eaten
    hidden forgotten gotten stolen beaten risen garden burden golden wooden citizen kitchen chicken
    heaven oven raven siren token omen linen dozen sudden barren modern western eastern northern
    southern pattern concern govern intern return kindergarten strengthen weaken threaten worsen
    widen shorten lengthen lessen fasten hasten when then tighten frighten brighten sharpen ridden
    get gets getting general generally generation generations gender genuine gentle german germany
    best belt bent bert debt bet benefit permit edit verdict enlightenment entertainment
    environment employment entitlement enforcement engagement entrant equipment establishment
    empowerment investment improvement information organisation vert convert expert desert
    erupt exert revert content event percent different government independent important
    significant assessment unemployment responsibility responsibilities discrimination
    """
)
# Verbs in the third person that German headlines are made of; English has none of them.
_GERMAN_VERBS = word_set(
    """
    hilft gibt sucht startet fehlt bleibt steht geht macht spart droht bittet warnt fordert klagt
    plant baut zahlt kommt sagt lobt mahnt sieht nimmt trifft wirkt zieht liegt kostet braucht
    endet feiert ehrt wirbt rettet kauft testet bringt hat tagt tritt trat kam ging blieb stand
    setzt stellt spricht schafft lebt leitet leistet sinkt steigt wächst sammelt schult spielt
    siegt nutzt zeigt reicht lockt nennt kennt rechnet pflegt ruft hofft streikt protestiert
    sei seien wäre mehr weniger gut neu alt krank arm sehr etwa offen ohne sozial sozialen
    """
)
# Function words that are none of German's. Two of one language are enough where nothing is German
# and no word has the capital of a noun or a name ("Café de la Paix").
_FUNCTION_WORDS = {
    "fr": word_set(
        """
        le la les de et est sont une pour dans avec contre sur par qui que aux cette ces leur leurs
        ne pas nous vous ils elle elles été ont à où ou au son ses mais comme après sans
        """
    ),
    "nl": word_set(
        """
        de het een van zijn niet voor tegen naar met ook deze wordt aan bij uit hun maar heeft
        hebben te op omdat moet moeten kunnen zij wij door geen nog meer
        """
    ),
    "es": word_set(
        """
        el la los las de y por para con una que más está están su sus contra no como pero en se al
        """
    ),
    "it": word_set(
        """
        il lo la gli le dei della delle di che con una sono non ai alla alle nel nella contro
        anche più perché ha hanno è e del
        """
    ),
}
_GERMAN_ALONE = GERMAN_ONLY - word_set("es da du um mehr den auf als so")
_LEAST_OF_NEIGHBOURS = 4
_LOANS = re.compile(
    r"\b(?:de (?:facto|jure|luxe)|en (?:bloc|detail|passant|masse|vogue|gros)|peu à peu|à la"
    r"(?: carte)?|vis[ -]à[ -]vis|tête[ -]à[ -]tête|non plus ultra|al (?:dente|fresco)|con brio)\b",
    re.IGNORECASE,
)
_GERMAN_LETTERS = re.compile("[äöüß]")  # in the others for a rare diaeresis only
_PLACES = {place.casefold() for place in PLACES} | word_set("hessen bremen gießen europa")
_LEAST_ENGLISH = 2
_LEAST_FOREIGN = 3
_LEAST_SMALL = 2  # else it may be a row of names
_TOKEN = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")


def _looks_german(word: str) -> bool:
    """Return whether a word in small letters is surely no English one but may be German."""
    if word in _ENGLISH or word in _ENGLISH_ENDINGS or word in _PLACES:
        return False
    listed = word in GERMAN_ONLY or word in _GERMAN_VERBS
    return listed or _OF_GERMAN.fullmatch(word) is not None


def is_english(sentence: str) -> bool:
    """Return whether a sentence of two words or more is English by its words."""
    tokens: list[str] = _TOKEN.findall(sentence)
    english = others = names = 0
    for place, token in enumerate(tokens):
        word = token.casefold().partition("'")[0].partition("’")[0]
        if _looks_german(word):
            return False
        if word in _NEITHER:
            continue
        small = token[0].islower()
        if (word in _ENGLISH and (place == 0 or small)) or (small and _OF_ENGLISH.fullmatch(word)):
            english += 1
        elif small:
            others += 1
        elif place > 0:
            names += 1
    if len(tokens) > 1 and english and not others and not names:
        return True  # "Not relevant.": nothing in it is anything else
    return english >= _LEAST_ENGLISH and english >= others


def is_of_neighbours(sentence: str) -> bool:
    """Return whether a sentence of four words or more is surely French, Dutch, Spanish or Italian.

    Without a noun in capitals and a German function word it is not German.
    """
    tokens: list[str] = _TOKEN.findall(_LOANS.sub(" ", sentence))
    if len(tokens) < _LEAST_OF_NEIGHBOURS or _GERMAN_LETTERS.search(sentence.lower()):
        return False
    words = {token.casefold() for token in tokens}
    if words & _GERMAN_ALONE or any(word in _GERMAN_VERBS for word in words):
        return False
    names = sum(token[0].isupper() for token in tokens[1:])
    small = {token.casefold() for n, token in enumerate(tokens) if n == 0 or token[0].islower()}
    known = max(len(small & listed) for listed in _FUNCTION_WORDS.values())
    return known >= 2 + names


def may_be_foreign(sentence: str) -> bool:
    """Return whether a sentence of three words or more has small ones, and no German one."""
    tokens: list[str] = _TOKEN.findall(sentence)
    if len(tokens) < _LEAST_FOREIGN or any(_looks_german(token.casefold()) for token in tokens):
        return False
    return sum(token[0].islower() for token in tokens) >= _LEAST_SMALL
