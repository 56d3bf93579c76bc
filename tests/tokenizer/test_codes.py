"""ItemCodes and the store of finished results."""

import errno
import math
from collections import Counter
from dataclasses import dataclass, replace

import filelock
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import normalized_mutual_info_score

from recbole_genrec.errors import ArtefactError, ConfigError
from recbole_genrec.settings.declaration import key
from recbole_genrec.settings.tokenizer_keys import TokenizerSettings
from recbole_genrec.storage.artefacts import load_artefact, read_json, save_artefact
from recbole_genrec.tokenizer import make_tokenizer
from recbole_genrec.tokenizer.base import ItemTokenizer, NewItems
from recbole_genrec.tokenizer.codes import ItemCodes
from recbole_genrec.tokenizer.fitting import fit_or_load
from recbole_genrec.tokenizer.random_tokenizer import RandomTokenizer

TOKENS = ["[PAD]", "a", "b", "c"]


def small(**changes):
    learned = torch.tensor([[0, 1], [2, 3], [0, 1]])
    return replace(ItemCodes.build(learned, (3, 4), TOKENS, "extra_token", spare=2), **changes)


def test_build_adds_padding_and_keeps_the_statistics_before_repair():
    codes = small()
    assert codes.codes.tolist() == [[0, 0, 0], [0, 1, 0], [2, 3, 0], [0, 1, 1]]
    assert codes.sizes == (3, 4, 4) and codes.tokens == TOKENS and codes.policy == ["extra_token"]
    assert (codes.n_items, codes.n_levels, codes.n_learned) == (4, 3, 2)
    assert codes.stats_before["largest_group"] == 2 and codes.stats_before[
        "collision_rate"
    ] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"codes": torch.zeros(4, 3)},
            r"expected int64 \[items \+ padding, 3 levels\], got torch.float32 \[4, 3\]",
        ),
        ({"codes": torch.zeros(4, 2, dtype=torch.long)}, r"3 levels\], got torch.int64 \[4, 2\]"),
        (
            {"codes": torch.zeros(1, 3, dtype=torch.long), "tokens": ["[PAD]"]},
            r"got torch.int64 \[1, 3\]",
        ),
        ({"tokens": TOKENS[:3]}, "4 rows need as many different item ids.*got 3 ids"),
        ({"tokens": ["[PAD]", "a", "b", "a"]}, "different item ids"),
        ({"tokens": ["x", "a", "b", "c"]}, r"first of them '\[PAD\]'"),
        (
            {"codes": torch.tensor([[0, 1, 0], [0, 1, 0], [2, 3, 0], [0, 1, 1]])},
            r"row 0 is the padding item.*\[0, 1, 0\]",
        ),
        (
            {"codes": torch.tensor([[0, 0, 0], [0, 1, 0], [2, 4, 0], [0, 1, 1]])},
            "item 'b' has code 4 at level 1, whose size is 4",
        ),
        (
            {"codes": torch.tensor([[0, 0, 0], [0, 1, 0], [2, 3, 0], [-1, 1, 1]])},
            "item 'c' has code -1 at level 0",
        ),
        (
            {"codes": torch.tensor([[0, 0, 0], [0, 1, 0], [2, 3, 0], [0, 1, 0]])},
            r"items \['a', 'c'\] have the same codes \[0, 1, 0\]",
        ),
    ],
)
def test_bad_codes_are_refused(changes, message):
    with pytest.raises(ArtefactError, match=message):
        small(**changes)


def test_equal_codes_are_fine_where_the_policy_allows_them():
    codes = ItemCodes.build(torch.tensor([[0, 1], [2, 3], [0, 1]]), (3, 4), TOKENS, "none")
    assert codes.stats()["unique_ids"] == 2
    with pytest.raises(ConfigError, match="did you mean 'none'"):
        replace(codes, policy=["nona"])


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 60), st.lists(st.integers(1, 6), min_size=1, max_size=3), st.integers(0, 10**6)
)
def test_statistics_against_counting_and_scikit_learn(n, sizes, seed):
    rng = np.random.default_rng(seed)
    learned = np.stack([rng.integers(size, size=n) for size in sizes], axis=1)
    stats = ItemCodes.build(
        torch.from_numpy(learned), sizes, ["[PAD]", *map(str, range(n))], "none"
    ).stats()
    for column, size, level in zip(learned.T, sizes, stats["levels"], strict=True):
        shares = [count / n for count in Counter(column.tolist()).values()]
        entropy = -sum(share * math.log(share) for share in shares)
        assert (level["size"], level["used"]) == (size, len(shares))
        assert level["entropy"] == pytest.approx(entropy, abs=1e-9)
        assert level["perplexity"] == pytest.approx(math.exp(entropy), rel=1e-6)
    for a in range(len(sizes)):
        for b in range(len(sizes)):
            if a != b and (stats["levels"][a]["used"] > 1 or stats["levels"][b]["used"] > 1):
                assert stats["nmi"][a][b] == pytest.approx(
                    normalized_mutual_info_score(learned[:, a], learned[:, b]), abs=1e-6
                )
    assert stats["unique_ids"] == len(set(map(tuple, learned.tolist())))


def test_report_and_collapse_warning():
    n = 400
    learned = torch.stack([torch.arange(n) % 100, torch.zeros(n, dtype=torch.long)], dim=1)
    codes = ItemCodes.build(learned, (100, 256), ["[PAD]", *map(str, range(n))], "extra_token")
    (warning,) = codes.warnings()
    assert warning.startswith(
        "LEVEL 1 OF THE CODES COLLAPSED: perplexity 1.0 of 256 codes (1 used by 400 items)"
    )
    assert "codebook_sizes" in warning
    lines = codes.report().splitlines()
    assert lines[0] == "Codes of 400 items, 3 levels, collision: extra_token"
    assert lines[1].strip() == (
        "unique ids 400; before repair 100, 100.00% of the items collide, largest group 4; "
        "collision rate as published 75.00%"
    )
    assert lines[3].split() == ["0", "100", "100", "4.605", "100.0", "100.0%"]
    assert lines[4].split() == ["1", "256", "1", "0.000", "1.0", "0.4%", "0.00"]
    assert lines[5].split()[0] == "2+"
    assert small().warnings() == []


def test_save_and_load(tmp_path):
    codes = small()
    codes.save(tmp_path)
    loaded = ItemCodes.load(tmp_path)
    assert torch.equal(loaded.codes, codes.codes)
    for name in ("sizes", "tokens", "stats_before", "policy"):
        assert getattr(loaded, name) == getattr(codes, name)
    save_artefact(tmp_path, {"codes": codes.codes}, {"kind": "weights"})
    with pytest.raises(ArtefactError, match="holds 'weights', not item codes"):
        ItemCodes.load(tmp_path)


def test_aligned_follows_raw_ids_and_names_the_differences():
    codes = small()
    other = codes.aligned(["[PAD]", "c", "a", "b"])
    assert other.codes.tolist() == [
        [0, 0, 0],
        [0, 1, 1],
        [0, 1, 0],
        [2, 3, 0],
    ] and other.tokens == ["[PAD]", "c", "a", "b"]
    with pytest.raises(
        ArtefactError,
        match=r"5 items of the data have no codes \(such as 'd', 'e', 'f'\), 1 items with "
        r"codes .* 'b'\)",
    ):
        codes.aligned(["[PAD]", "a", "c", "d", "e", "f", "g", "h"])
    with pytest.raises(ArtefactError, match="1 items are named twice"):
        codes.aligned(["[PAD]", "a", "b", "c", "c"])


def test_append():
    codes = small()
    longer = codes.append(torch.tensor([[0, 1, 2]]), ["d"])
    assert (
        longer.tokens == [*TOKENS, "d"]
        and longer.codes[:4].equal(codes.codes)
        and longer.codes[4].tolist() == [0, 1, 2]
    )
    with pytest.raises(ArtefactError, match=r"items \['c', 'd'\] have the same codes"):
        codes.append(torch.tensor([[0, 1, 1]]), ["d"])
    with pytest.raises(ArtefactError, match="different item ids"):
        codes.append(torch.tensor([[1, 1, 1]]), ["a"])


@dataclass
class Content:
    tokens: list
    fingerprint: str = "data"

    @property
    def text(self):
        return ["", *(f"text of {token}" for token in self.tokens[1:])]

    def embeddings(self):
        return torch.zeros(len(self.tokens), 2)


class CountingSettings(TokenizerSettings):
    width: int = key("number of codes", affects="tokenizer")


class CountingTokenizer(ItemTokenizer):
    """Learns one number: how often it was fitted."""

    name = "counting"
    settings_class = CountingSettings

    def __init__(self, width=4, broken=False):
        super().__init__({"width": width}, seed=1)
        self.width, self.broken, self.fits = width, broken, 0

    def fit(self, content):
        self.fits += 1
        learned = torch.arange(len(content.tokens) - 1)[:, None] % self.width
        return ItemCodes.build(learned, (self.width,), content.tokens, "extra_token")

    def encode(self, new):
        return torch.full((len(new), 1), self.fits)

    def save(self, folder):
        if self.broken:
            raise RuntimeError("disk full")
        save_artefact(folder, {"fits": torch.tensor(self.fits)}, {})

    def load(self, folder):
        self.fits = int(load_artefact(folder)[0]["fits"])


def test_a_result_is_fitted_once_and_reused_by_raw_id(tmp_path):
    content, log = Content(["[PAD]", "a", "b", "c", "d", "e"]), []
    first = CountingTokenizer()
    codes = fit_or_load(first, content, tmp_path, 1, log.append)
    assert (
        first.fits == 1
        and "is being fitted to 5 items" in log[0]
        and "fitted, stored in" in log[1]
        and log[2] == codes.report()
    )
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("counting-")
    second = CountingTokenizer()
    again = fit_or_load(
        second, Content(["[PAD]", "e", "d", "c", "b", "a"]), tmp_path, 1, log.append
    )
    assert second.encode(NewItems(["new"])).item() == 1, "loaded, not fitted"
    assert f"reused from {folder}" in log[3]
    assert (
        again.tokens == ["[PAD]", "e", "d", "c", "b", "a"]
        and again.codes[1].tolist() == codes.codes[5].tolist()
    )
    with pytest.raises(
        ArtefactError, match="belong to other items: 1 items of the data have no codes"
    ):
        fit_or_load(
            CountingTokenizer(),
            Content(["[PAD]", "a", "b", "c", "d", "x"]),
            tmp_path,
            1,
            log.append,
        )


def test_settings_seed_and_data_are_part_of_the_key(tmp_path):
    content = Content(TOKENS)
    for tokenizer, data, seed in [
        (CountingTokenizer(), content, 1),
        (CountingTokenizer(width=5), content, 1),
        (CountingTokenizer(), Content(TOKENS, "other text"), 1),
        (CountingTokenizer(), content, 2),
    ]:
        fit_or_load(tokenizer, data, tmp_path, seed, lambda message: None)
        assert tokenizer.fits == 1
    assert len(list(tmp_path.iterdir())) == 4


def test_nothing_half_written_stays_and_damage_is_named(tmp_path):
    with pytest.raises(RuntimeError, match="disk full"):
        fit_or_load(CountingTokenizer(broken=True), Content(TOKENS), tmp_path, 1)
    assert list(tmp_path.iterdir()) == []
    fit_or_load(CountingTokenizer(), Content(TOKENS), tmp_path, 1, lambda message: None)
    (blob,) = tmp_path.glob("*/codes/*.safetensors")
    blob.write_bytes(blob.read_bytes()[:-1])
    # all of the result is made again, not its folder of codes alone
    advice = f"Delete the folder {blob.parent.parent}; it is made again"
    with pytest.raises(ArtefactError, match=f"truncated or was edited.*{advice}"):
        fit_or_load(CountingTokenizer(), Content(TOKENS), tmp_path, 1)


def test_without_locks_the_result_of_the_first_process_stays(tmp_path, monkeypatch):
    def unsupported(*_, **__):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", unsupported)
    notices = []

    class Slow(CountingTokenizer):
        def fit(self, content):
            fit_or_load(CountingTokenizer(), content, tmp_path, 1, lambda message: None)
            return super().fit(content)

    codes = fit_or_load(Slow(), Content(TOKENS), tmp_path, 1, notices.append)
    assert codes.n_items == 4 and len(list(tmp_path.iterdir())) == 1
    assert "file system without locks (No locks available)" in notices[0]


def test_collapse_is_logged_loudly(tmp_path):
    log = []
    fit_or_load(CountingTokenizer(width=100), Content(TOKENS), tmp_path, 1, log.append)
    assert log[-1].startswith("WARNING: LEVEL 0 OF THE CODES COLLAPSED")


def test_random_tokenizer(tmp_path):
    content = Content(["[PAD]", *map(str, range(300))])

    def make(seed):
        return RandomTokenizer(
            {"codebook_sizes": [4, 8], "collision": ["extra_token"], "dedup_spare": 1}, seed
        )

    codes = fit_or_load(make(3), content, tmp_path, 3, lambda message: None)
    assert codes.sizes[:2] == (4, 8) and codes.stats()["unique_ids"] == 300
    assert [level["used"] for level in codes.stats()["levels"][:2]] == [4, 8]
    assert torch.equal(
        fit_or_load(make(3), content, tmp_path, 3, lambda message: None).codes, codes.codes
    )
    assert not torch.equal(make(4).fit(content).codes[:, :2], codes.codes[:, :2])
    assert make(3).encode(["x", "y"]).shape == (2, 2)
    placed, moved = make(3).place(["x", "y"], codes.codes[1:], codes.sizes)
    assert moved == 0 and not (placed[:, None] == codes.codes[None, 1:]).all(-1).any()


@pytest.mark.parametrize(("spare", "policy"), [(0, "extra_token"), (0, "none"), (2, "extra_token")])
def test_random_codes_of_new_items_are_those_of_adding_them_one_by_one(spare, policy):
    content = Content(["[PAD]", *map(str, range(60))])
    values = {"codebook_sizes": [8, 9], "collision": [policy], "dedup_spare": spare}
    tokenizer = RandomTokenizer(values, 3)
    codes = tokenizer.fit(content)
    together, moved = tokenizer.place(NewItems(["x"] * 9), codes.codes[1:], codes.sizes)
    assert moved == 0
    known = codes.codes[1:]
    for _ in range(9):
        known = torch.cat([known, tokenizer.place(NewItems(["x"]), known, codes.sizes)[0]])
    assert torch.equal(known[60:], together)
    assert len(together[:, :2].unique(dim=0)) > 4
    if policy == "extra_token":
        assert len(known.unique(dim=0)) == len(known)


def test_random_codes_end_with_a_message():
    tokenizer = RandomTokenizer(
        {"codebook_sizes": [2, 2], "collision": ["extra_token"], "dedup_spare": 0}, 3
    )
    codes = tokenizer.fit(Content(["[PAD]", *map(str, range(9))]))
    with pytest.raises(ConfigError, match="ids are taken; raise codebook_sizes or the spare"):
        tokenizer.place(NewItems(["x"] * 40), codes.codes[1:], codes.sizes)


def stored_codes(path):
    return make_tokenizer({"tokenizer": str(path)}, seed=0)


def test_stored_codes(tmp_path):
    content = Content(TOKENS)
    small().save(tmp_path / "damaged")
    next((tmp_path / "damaged").glob("*.safetensors")).write_bytes(b"")
    with pytest.raises(ArtefactError, match="Copy the folder again") as error:
        stored_codes(tmp_path / "damaged").fit(content)
    assert "Delete" not in str(error.value)
    small().save(tmp_path / "mine")
    stored = stored_codes(tmp_path / "mine")
    assert stored.fit(Content(["[PAD]", "b", "c", "a"])).codes[1].tolist() == [2, 3, 0]
    fit_or_load(CountingTokenizer(), content, tmp_path / "root", 1, lambda message: None)
    (result,) = (tmp_path / "root").iterdir()
    assert stored_codes(result).fit(content).sizes == (4, 1)
    key = stored.config_key()
    assert key["sha256"] == read_json(tmp_path / "mine" / "meta.json")["sha256"]
    small(policy=["none"]).save(tmp_path / "mine")
    assert stored.config_key() != key, "changed codes are not mistaken for the old ones"
    assert fit_or_load(stored, content, tmp_path / "root", 1, lambda message: None).policy == [
        "none"
    ]
    assert fit_or_load(stored, content, tmp_path / "root", 1, lambda message: None).policy == [
        "none"
    ]
    with pytest.raises(ConfigError, match="cannot encode new items"):
        stored.encode(NewItems(["text"]))
    with pytest.raises(ConfigError, match="neither the name of a tokenizer nor a folder"):
        stored_codes(tmp_path / "rqvea").config_key()
