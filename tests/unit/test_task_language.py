"""What the label rules know of German: sentences, numbers, dates."""

import pytest

from tasks.liga_relevance.dates import dates_given, dates_in, grounded, without_dates
from tasks.liga_relevance.numbers import numbers_in, ungrounded
from tasks.liga_relevance.sentences import normalised, sentences


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("Ein Satz", 1),
        ("Ein Satz. Noch einer! Und noch einer? Ja.", 4),
        ("Am 30. Juni endet z. B. die Frist für Dr. Müller bzw. A. B. Meier.", 1),
        ("Am 3. März tagt der Ausschuss. Am 4. nicht.", 2),
        ("Das kostet 1.200 Euro, also ca. 3,5 Mio. Euro im Jahr.", 1),
        ("Das kostet 5 Mio. Die Stadt zahlt.", 2),
        ("„Wir sind am Ende.“ Das sagt die Leiterin.", 2),
        ("„Wir sind am Ende“, sagt sie. „Endgültig.“", 2),
        ("„Hilft das?“, fragt sie. „Nein!“ ruft er.", 2),
        ("„Wir gehen. Wir kommen nicht wieder“, sagt sie.", 2),
        ("Überschrift\n\nEin Satz.\nNoch einer.", 3),
        ("Ende. #Pflege #Kita", 2),
        ("Aus … und vorbei. — !", 1),
        ("§ 35 Abs. 2 SGB VIII gilt.", 1),
        ("Es gilt das SGB II. und auch das SGB XII. weiterhin.", 1),
        ("Es gilt das SGB II. Die Kinder warten.", 2),
        ("Wer Geld nach SGB II. bekommt, wartet.", 1),
        ("Heinrich IV. regierte. Danach kam keiner.", 2),
        ("Die 3. Gruppe schließt, der 1. FC spielt im 2. Quartal.", 1),
        ("Es war der 30. Danach kam nichts.", 2),
        ("Das war im Jahr 2026. 3 Kinder kamen.", 2),
        ("Der hess. Landtag tagt gem. Art. 3 und Kap. 4 ggf. erneut.", 1),
        ("Prof. Dr. Dr. h. c. Meier und Dr. med. H. Weber kamen.", 1),
        ("Die Caritas e. V. hilft, d. h. sie zahlt u. a. die Miete.", 1),
        ("Kitas, Schulen usw. Die Stadt zahlt.", 2),
        ("Sie kam am 3.3. nach Fulda und ging am 04.03.2026 um 12.30 Uhr.", 1),
        ("Das war's. Wir gehen.", 2),
        ("Die Kita schließt (leider. Sie war gut). Ende.", 3),
        ("Das Heim schließt. 96 Kinder sind betroffen. 3,5 Stellen fehlen.", 3),
        ("Wer zahlt? 96 Kinder warten! 40 Prozent. 12 gehen.", 4),
        ("„Wir gehen.“ 96 Kinder bleiben.", 2),
        ("2026 fehlen 3 Mio. Euro. 2027 sind es 5 Mio. 2028 sind es 6.", 3),
        ("Das Land gibt 3 Mio. 2027 und 4 Mio. 2028.", 1),
        ("Es gilt das SGB V. 96 Kinder warten. Der Verein e. V. 5 Jahre alt.", 4),
        ("Am 3. 4. 2026 und am 3. 5. kommen ca. 96, z. B. 96 oder rd. 40.", 1),
        ("Der 5. 10-Punkte-Plan nennt Nr. 5, § 5 Abs. 1 Nr. 2, Art. 3 und S. 12.", 1),
        ("Im Sept. 2025 waren es mind. 5, am Mo. 8 Uhr in der Hauptstr. 5 nur 4.", 1),
        ("3. Quartal: Es fehlen 96 Plätze. 1. Quartal: keine.", 2),
    ],
)
def test_sentences(text: str, count: int) -> None:
    assert len(sentences(text)) == count


def test_sentences_lose_nothing() -> None:
    text = "„Wir gehen“, sagt sie. „Endgültig.“ Das war's (leider). Am 3. März ist Schluss."
    assert " ".join(sentences(text)) == text


def test_normalised_sentences_hide_no_repetition() -> None:
    assert normalised("„Kinder  LEIDEN“, sagt sie!") == normalised("kinder leiden sagt sie")


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1.200 Euro", {"1200"}),
        ("1200,50 Euro", {"1200.5"}),
        ("3,0 Prozent", {"3"}),
        ("AK3 und AK 5", set()),
        ("12.30 Uhr", {"12", "30"}),
        ("14.00 Uhr", {"14"}),
        ("1 234", {"1", "234"}),
        ("1\u202f234", {"1234"}),
        ("007", {"7"}),
        ("keine", set()),
    ],
)
def test_numbers(text: str, numbers: set[str]) -> None:
    assert numbers_in(text, words=False) == numbers


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("zwölf Kinder", "12"),
        ("Fünfundzwanzig Kinder", "25"),
        ("dreihundert Eltern", "300"),
        ("zweitausendfünfhundert Euro", "2500"),
        ("dreißig Kinder", "30"),
        ("dreißig Millionen", "30000000"),
        ("5 tſd", "5000"),
        ("im dritten Quartal", "3"),
        ("die siebte Klasse", "7"),
        ("ein dreijähriges Kind", "3"),
        ("zum zwanzigsten Mal", "20"),
        ("2026-03-01", "3"),
        ("30.06.2026", "6"),
        ("1,5 Millionen", "1500000"),
        ("1 250 Beschäftigte", "1250"),
        ("12,500 euros", "12500"),
    ],
)
def test_words_and_dates_ground_numbers(text: str, number: str) -> None:
    assert number in numbers_in(text)


@pytest.mark.parametrize("text", ["Elfriede", "achtsam", "Einer", "Dreieich", "Zweifel"])
def test_what_is_no_number_word(text: str) -> None:
    assert numbers_in(text) == set()


def test_millions_agree_with_digits() -> None:
    assert ungrounded("1,2 Mio. Euro", numbers_in("1.200.000 Euro")) == []
    assert ungrounded("1,2 Mio. Euro", numbers_in("1.300.000 Euro")) == ["1.2 Mio"]
    assert ungrounded("1.200.000 Euro", numbers_in("1,2 Millionen Euro")) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("am 3. März 2026", [(2026, 3, 3)]),
        ("am 03.03.2026", [(2026, 3, 3)]),
        ("am 3.3.26", [(2026, 3, 3)]),
        ("2026-03-03T10:00:00", [(2026, 3, 3)]),
        ("am 3.3. und", [(None, 3, 3)]),
        ("im März", [(None, 3, None)]),
        ("März 2026", [(2026, 3, None)]),
        ("am 3. und 4. März", [(None, 3, 4), (None, 3, 3)]),
        ("am 3. Okt. 2025", [(2025, 10, 3)]),
        ("um 12.30 Uhr", []),
        ("am Montag", []),
        ("im Jahr 2026", []),
        ("Version 3.5. Danach", []),
        ("Jan und Dez kamen", []),
        ("am 45.13.2026", []),
    ],
)
def test_dates(text: str, found: list[tuple[int | None, int, int | None]]) -> None:
    assert [(m.year, m.month, m.day) for m in dates_in(text)] == found


@pytest.mark.parametrize(
    ("said", "article", "published", "is_grounded"),
    [
        ("3. März 2026", "am 03.03.2026", "", True),
        ("3. März 2026", "am 3.3., Datum: 2026-01-01", "2026-01-01", True),
        ("3. März 2026", "am 3. März", "", False),
        ("3. März", "am 3. März 2026", "", True),
        ("im März", "am 3.3.", "", True),
        ("3. März", "im März", "", False),
        ("5. März", "gestern in Fulda", "2026-03-06", True),
        ("5. März", "in Fulda", "2026-03-06", False),
        ("5. Mai", "gestern in Fulda", "2026-03-06", False),
        ("im April", "nächsten Monat", "2026-03-06", True),
        ("1. Januar", "morgen", "2026-12-31", True),
        ("3. März", "on March 3", "", True),
    ],
)
def test_grounded_dates(said: str, article: str, published: str, is_grounded: bool) -> None:
    (mention,) = dates_in(said)
    assert grounded(mention, article, dates_given(article), published) is is_grounded


def test_without_dates_leaves_other_numbers() -> None:
    left = without_dates("Am 3. März 2026 kamen 96 Kinder um 12.30 Uhr.")
    assert numbers_in(left, words=False) == {"96", "12", "30"}
