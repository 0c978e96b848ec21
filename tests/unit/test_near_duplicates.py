"""Shingles, MinHash bands and groups, each against the plain way of saying the same."""

from __future__ import annotations

import random
from itertools import combinations

import numpy as np
import pytest
from datasketch import MinHash
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import files
from contracts.stages import SPLIT
from images.labeler.groups import Groups, near_duplicates
from images.labeler.leakage import pairs_across, remaining
from images.labeler.minhash import MISSED, bands_for, signatures
from images.labeler.shingles import ShingleSets, shingles, words

SHINGLES = files.ROOT / "images/labeler/shingles.py"
# Few words, so that texts meet in all degrees; words that differ in case and form only; no words.
WORDS = st.sampled_from(
    ["Haus", "haus", "Größe", "GRÖSSE", "um", "am", "im", "ab", "zu", "…", "🙂"]
)
TEXTS = st.lists(st.lists(WORDS, max_size=12).map(" ".join), max_size=12)
THRESHOLDS = st.sampled_from([0.2, 0.3, 0.5, 0.7, 0.9, 1.0])


def jaccard(one: str, other: str) -> float:
    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b) if a | b else 0.0


def brute_groups(texts: list[str], threshold: float) -> list[list[int]]:
    """Connect what is similar, one pair after the other."""
    group = list(range(len(texts)))
    for i, j in combinations(range(len(texts)), 2):
        if jaccard(texts[i], texts[j]) >= threshold:
            old, new = group[j], group[i]
            group = [new if each == old else each for each in group]
    return sorted([i for i, at in enumerate(group) if at == number] for number in set(group))


@given(TEXTS)
def test_numbered_shingles_say_what_plain_sets_say(texts: list[str]) -> None:
    sets = ShingleSets(texts)
    assert sets.sizes.tolist() == [len(shingles(text)) for text in texts]
    pairs = np.array(list(combinations(range(len(texts)), 2)), np.int64).reshape(-1, 2)
    found = sets.similarities(pairs[:, 0], pairs[:, 1])
    assert found.tolist() == [jaccard(texts[i], texts[j]) for i, j in pairs]


@given(TEXTS, TEXTS)
def test_packed_texts_are_compared_as_the_texts_are(texts: list[str], gone: list[str]) -> None:
    """Though they were packed among other texts."""
    before = ShingleSets(gone)
    packed = [before.packed(text) for text in range(len(gone))]
    sets, plain = ShingleSets(texts, packed), ShingleSets([*texts, *gone])
    assert sets.sizes.tolist() == plain.sizes.tolist()
    pairs = np.array(list(combinations(range(len(plain)), 2)), np.int64).reshape(-1, 2)
    both = [each.similarities(pairs[:, 0], pairs[:, 1]).tolist() for each in (sets, plain)]
    assert both[0] == both[1]


def test_packed_shingles_stay_what_they_are() -> None:
    """The frozen test set holds them from earlier versions."""
    packed = ShingleSets(["Das Land kürzt Mittel", "Land das kürzt", "Zwei", ""])
    assert [packed.packed(text).hex() for text in range(4)] == [
        "71e032e64300f541103aa75172740f4b",
        "6ff49337085a6a0c",
        "de2d1190d894bb92",
        "",
    ]


def test_shingles_ignore_case_punctuation_and_unicode_forms() -> None:
    assert shingles("Größe, u\u0308ber Alles!") == shingles("grösse ÜBER alles")
    assert shingles("Zwei Wörter") == {("zwei", "wörter")}
    assert shingles("Zwei Wörter") != shingles("Zwei Wörter mehr")
    assert shingles(" 🙂 ") == shingles("🙂") != shingles("…")
    assert shingles(" \n ") == frozenset()


PLAIN = "Die Beratungsstelle für Kinder- und Jugendhilfe im Bund-Länder-Programm & anderswo"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("Beratungsstelle", "Beratungs\u00adstelle"),
        ("Beratungsstelle", "Beratungs\u200bstelle"),
        ("Beratungsstelle", "Beratungs\u200dstelle"),
        ("Beratungsstelle", "Beratungs\u2060stelle"),
        ("Die", "\ufeffDie"),
        ("Beratungsstelle", "Beratungs&shy;stelle"),
        ("Beratungsstelle", "Beratungs&#173;stelle"),
        ("Beratungsstelle für", "Beratungsstelle&nbsp;f&uuml;r"),
        ("&", "&amp;"),
        ("Beratungsstelle", "Beratungs-\nstelle"),
        ("Beratungsstelle", "Beratungs- \r\n  stelle"),
        ("Beratungsstelle", "Beratungs\u2011\nstelle"),
        ("Beratungsstelle", "Beratungs\u00ad\nstelle"),
        ("Kinder- und", "Kinder-\nund"),
        ("Bund-Länder", "Bund-\nLänder"),
        ("Bund-Länder", "Bund\u2011Länder"),
    ],
)
def test_words_are_the_same_however_a_page_sets_them(ours: str, theirs: str) -> None:
    assert ours in PLAIN
    assert words(PLAIN.replace(ours, theirs)) == words(PLAIN)


def test_words_that_differ_stay_different() -> None:
    assert words("Kinder\nund Eltern") == ["kinder", "und", "eltern"]
    assert words("2024-\n2025, Punkt -\nstrich") == ["2024", "2025", "punkt", "strich"]
    assert words("Müller&Söhne, A&B") == ["müller", "söhne", "a", "b"]
    assert words("\u200b") == []


def test_other_words_are_another_split() -> None:
    """The digest of its code is part of what a finished split is reused by."""
    assert any(SHINGLES.is_relative_to(files.ROOT / name) for name in SPLIT.code)


@given(TEXTS)
def test_signatures_are_those_of_the_library(texts: list[str]) -> None:
    sets = ShingleSets(texts)
    found = signatures(sets, 16)
    for text in np.flatnonzero(sets.sizes):
        plain = MinHash(num_perm=16, seed=1, hashfunc=int, scheme="affine32")
        start, end = sets.matrix.indptr[text : text + 2]
        plain.update_batch(sets.matrix.indices[start:end].tolist())
        assert found[text].tolist() == plain.hashvalues.tolist()


def test_signatures_of_many_and_of_long_texts_are_cut_at_the_right_places(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = random.Random(5)  # noqa: S311
    texts = [" ".join(source.choices("abcdefghij", k=source.randint(0, 40))) for _ in range(60)]
    sets = ShingleSets(texts)
    whole = signatures(sets, 8)
    for at_once in (1, 7, 50):
        monkeypatch.setattr("images.labeler.minhash._SHINGLES_AT_ONCE", at_once)
        assert (signatures(sets, 8) == whole).all()


@pytest.mark.parametrize("threshold", [0.05, 0.2, 0.5, 0.69, 0.7, 0.8, 0.9, 0.99, 1.0])
def test_bands_miss_practically_nothing_at_the_threshold(threshold: float) -> None:
    bands = bands_for(threshold)
    assert bands.count >= 2
    assert bands.missed(threshold) <= MISSED
    assert bands.missed(min(1.0, threshold + 0.1)) <= bands.missed(threshold)


def test_bands_meet_as_often_as_the_formula_says() -> None:
    """Few short bands, so that misses are many enough to be counted."""
    source = random.Random(9)  # noqa: S311
    pairs = []
    for number in range(400):
        words = [f"w{number}x{i}" for i in range(102)]
        other = [*words[:51], *(f"v{number}x{i}" for i in range(51))]
        pairs += [" ".join(words), " ".join(other)]
    source.shuffle(pairs)
    sets = ShingleSets(pairs)
    by_first = {text.split()[0]: [] for text in pairs}  # type: ignore[var-annotated]
    for position, text in enumerate(pairs):
        by_first[text.split()[0]].append(position)
    left, right = (np.array(side) for side in zip(*by_first.values(), strict=True))
    similarity = float(sets.similarities(left, right)[0])
    assert similarity == pytest.approx(1 / 3, abs=0.02)
    found = signatures(sets, 12)
    same = (found[left] == found[right]).reshape(400, 6, 2)  # six bands of two rows
    met = same.all(axis=2).any(axis=1).mean()
    assert met == pytest.approx(1 - (1 - similarity**2) ** 6, abs=0.08)


@settings(max_examples=200, deadline=None)
@given(TEXTS, THRESHOLDS)
def test_groups_are_those_of_comparing_all_pairs(texts: list[str], threshold: float) -> None:
    assert near_duplicates(ShingleSets(texts), threshold).members() == brute_groups(
        texts, threshold
    )


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.data(), THRESHOLDS)
def test_the_check_finds_every_pair_across(
    texts: list[str], data: st.DataObject, threshold: float
) -> None:
    sides = data.draw(st.lists(st.sampled_from("abc"), min_size=len(texts), max_size=len(texts)))
    sets = ShingleSets(texts)
    found = pairs_across(sets, sides, threshold)
    brute = {
        (i, j): jaccard(texts[i], texts[j])
        for i, j in combinations(range(len(texts)), 2)
        if sides[i] != sides[j] and jaccard(texts[i], texts[j]) >= threshold
    }
    pairs = zip(found.left.tolist(), found.right.tolist(), strict=True)
    ordered = [tuple(sorted(pair)) for pair in pairs]
    assert len(ordered) == len(set(ordered))
    assert dict(zip(ordered, found.similarity.tolist(), strict=True)) == brute
    closest = found.closest()
    assert (closest[0] if closest else None) == max(brute.values(), default=None)


def test_the_check_is_the_same_in_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    source = random.Random(4)  # noqa: S311
    texts = [" ".join(source.choices("abcd", k=12)) for _ in range(80)]
    sides = source.choices(["train", "test"], k=80)
    sets = ShingleSets(texts)
    whole = pairs_across(sets, sides, 0.3)
    monkeypatch.setattr("images.labeler.leakage._MEETINGS_AT_ONCE", 5)
    blocks = pairs_across(sets, sides, 0.3)
    assert len(whole) > 20
    for one, other in ((whole.left, blocks.left), (whole.right, blocks.right)):
        assert one.tolist() == other.tolist()


def test_what_remains_is_the_maximum_below_the_threshold() -> None:
    texts = ["a b c d e f g h", "a b c d e f x y", "q r s t u v w", "a b c d k l m n"]
    found = remaining(ShingleSets(texts), ["train", "test", "train", "test"], 0.7)
    assert found["closest"] == (0.5, 0, 1)
    nothing = remaining(ShingleSets(["a b c", "d e f"]), ["train", "test"], 0.7)
    assert nothing == {"looked_from": 0.3, "closest": None}


def test_groups_are_connected_through_a_member_between() -> None:
    groups = Groups(5)
    groups.join(np.array([0, 2]), np.array([2, 3]))
    assert groups.members() == [[0, 2, 3], [1], [4]]
    groups.join(np.array([3]), np.array([4]))
    assert groups.members() == [[0, 2, 3, 4], [1]]


def test_a_bucket_of_unlike_texts_and_one_of_copies() -> None:
    base = [f"w{i}" for i in range(60)]
    copies = [" ".join([*base[:-1], f"end{n}"]) for n in range(300)]
    others = [" ".join([*base[:30], *(f"o{n}x{i}" for i in range(30))]) for n in range(50)]
    members = near_duplicates(ShingleSets([*copies, *others]), 0.7).members()
    assert members[0] == list(range(300))
    assert len(members) == 51
