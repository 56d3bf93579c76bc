"""k-core against a naive reference, and clean text."""

import numpy as np
import pytest

from recbole_genrec.data.preparation.cleaning import (
    clean_categories,
    clean_price,
    clean_text,
    k_core,
)


def naive_core(pairs, k):
    """Reference: remove one weak interaction at a time."""
    pairs = list(pairs)
    while True:
        for index, (user, item) in enumerate(pairs):
            if sum(u == user for u, _ in pairs) < k or sum(i == item for _, i in pairs) < k:
                del pairs[index]
                break
        else:
            return pairs


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("k", [0, 2, 3])
def test_k_core_equals_the_naive_reference(seed, k):
    rng = np.random.default_rng(seed)
    users, items = rng.integers(0, 14, 60), rng.integers(0, 18, 60)
    mask = k_core(users, items, k)
    kept = sorted(zip(users[mask], items[mask], strict=True))
    assert kept == sorted(naive_core(zip(users, items, strict=True), k))
    if k:
        assert all(
            np.bincount(codes)[codes].min(initial=k) >= k for codes in (users[mask], items[mask])
        )


def test_k_core_unravels_a_chain_completely():
    users = np.repeat(np.arange(50), 2)
    items = np.minimum(users + np.tile([0, 1], 50), 49)
    items[-1] = 50  # the last item is weak; removing it weakens the next user, and so on
    assert not k_core(users, items, 2).any()


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Tom &amp;amp; Jerry&#39;s\t\x00Box\r\n", "Tom & Jerry's Box"),
        ('12" <b>ruler</b>  <br/>x', "12 ruler x"),
        ("1 < 2 and 3 > 2 <3", "1 < 2 and 3 > 2 <3"),
        ("a\u2028b\u0085c\ufeff", "a b c"),
    ],
)
def test_clean_text(raw, clean):
    assert clean_text(raw) == clean


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("'Hair Care', 'Beauty', \"Women's\"", "Hair_Care Beauty Women's"),
        ("{'Hair Care', 'Beauty'}", "Hair_Care Beauty"),
        (
            "[['Beauty', 'Hair Care'], ['Beauty', 'Bath &amp; Body']]",
            "Beauty Hair_Care Bath_&_Body",
        ),
        ([["Beauty", "Hair Care"], ["Beauty"]], "Beauty Hair_Care"),
        (["Music", "Guitar Strings", "</span></span>", "junk"], "Music Guitar_Strings"),
        ("Animation Children's Comedy", "Animation Children's Comedy"),
        ("Beauty Hair_Care", "Beauty Hair_Care"),
        ("'Hair Care', 'Bro", "Hair_Care Bro"),
        ("[", ""),
        ("__import__('os').system('x')", "__import__('os').system('x')"),
        ("[__import__('os')]", "__import__os"),
        ("", ""),
        ([], ""),
    ],
)
def test_clean_categories(raw, clean):
    assert clean_categories(raw) == clean


def test_clean_price():
    assert [
        clean_price(value) for value in ("12.5", "$1,204.99", "$3 - $9.50", ".a-box{color:red}", "")
    ] == [
        "12.5",
        "$1,204.99",
        "$3 - $9.50",
        "",
        "",
    ]
