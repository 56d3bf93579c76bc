"""Codes of users beside those of items, and TokenRec's tokenizer in the common store."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from recbole_genrec.errors import ArtefactError, DataError
from recbole_genrec.settings.parsing import read_yaml
from recbole_genrec.settings.property_files import properties_folder
from recbole_genrec.tokenizer import ItemCodes, fit_or_load
from recbole_genrec.tokenizer.entity_codes import (
    SIDES,
    EntityCodes,
    EntityContent,
)
from recbole_genrec.tokenizer.entity_mq import EntityMQTokenizer
from recbole_genrec.tokenizer.mq_quantiser import MQQuantiser

SMALL = {
    "codebook_sizes": [8, 8],
    "hidden_sizes": [16],
    "code_dim": 6,
    "tokenizer_epochs": 4,
    "tokenizer_batch_size": 16,
    "device": "cpu",
    "show_progress": False,
}


def settings() -> dict:
    return read_yaml(properties_folder() / "tokenizer" / "mq.yaml") | SMALL


def names(kind: str, n: int) -> list[str]:
    return ["[PAD]", *(f"{kind}{number}" for number in range(n))]


def content(n_items: int = 30, n_users: int = 20) -> EntityContent:
    generator = torch.Generator().manual_seed(2)
    items = torch.randn(n_items + 1, 5, generator=generator)
    users = torch.randn(n_users + 1, 5, generator=generator)
    items[0] = users[0] = users[7] = 0
    return EntityContent(names("i", n_items), names("u", n_users), items, users)


def codes_of(rows: list[list[int]], kind: str, sizes=(3, 4)) -> ItemCodes:
    return ItemCodes.build(torch.tensor(rows), sizes, names(kind, len(rows)), "none")


def same(a: EntityCodes, b: EntityCodes) -> bool:
    return all(torch.equal(a.side(name).codes, b.side(name).codes) for name in SIDES)


# --- the codes ------------------------------------------------------------------------------------


def test_codes_survive_the_disk_and_follow_the_ids(tmp_path):
    codes = EntityCodes(codes_of([[0, 1], [2, 3]], "i"), codes_of([[1, 1], [1, 2], [0, 0]], "u"))
    codes.save(tmp_path / "codes")
    loaded = EntityCodes.load(tmp_path / "codes")
    assert same(loaded, codes) and not loaded.shared
    assert loaded.users.tokens == codes.users.tokens and loaded.stats() == codes.stats()
    turned = loaded.aligned(["[PAD]", "i1", "i0"], ["[PAD]", "u2", "u0", "u1"])
    assert turned.items.codes.tolist() == [[0, 0], [2, 3], [0, 1]]
    assert turned.users.codes.tolist() == [[0, 0], [0, 0], [1, 1], [1, 2]]
    with pytest.raises(ArtefactError, match="belong to other items"):
        loaded.aligned(["[PAD]", "i1", "i0"], names("u", 2))
    report = loaded.report()
    assert "Codes of 2 items" in report and "Codes of 3 users" in report
    (tmp_path / "codes" / "users" / "meta.json").write_text("{}")
    with pytest.raises(ArtefactError):
        EntityCodes.load(tmp_path / "codes")


def test_shared_codes_are_of_one_entity_each(tmp_path):
    items = codes_of([[0, 1], [2, 3]], "i")
    shared = EntityCodes(items, codes_of([[1, 1], [1, 2]], "u"), shared=True)
    shared.save(tmp_path / "codes")
    assert EntityCodes.load(tmp_path / "codes").shared
    with pytest.raises(ArtefactError, match="item 'i1' and user 'u0' have the same codes"):
        EntityCodes(items, codes_of([[2, 3], [1, 2]], "u"), shared=True)
    with pytest.raises(ArtefactError, match=r"the sizes are \[5, 4\] and \[3, 4\]"):
        EntityCodes(items, codes_of([[1, 1]], "u", sizes=(5, 4)), shared=True)
    assert EntityCodes(items, codes_of([[2, 3]], "u")).warnings() == []


# --- the order of the rows ------------------------------------------------------------------------


def renumbered(data: EntityContent) -> EntityContent:
    """The same items and users with other numbers."""
    generator = torch.Generator().manual_seed(5)
    items, users = (
        [0, *(1 + torch.randperm(len(data.tokens(side)) - 1, generator=generator)).tolist()]
        for side in SIDES
    )
    return EntityContent(
        [data.items[row] for row in items],
        [data.users[row] for row in users],
        data.item_vectors[items],
        data.user_vectors[users],
    )


def test_the_numbering_changes_nobodys_codes_and_no_key():
    data = content(200, 120)
    other = renumbered(data)
    values = {**settings(), "codebook_sizes": [16, 16], "tokenizer_epochs": 20}
    first = EntityMQTokenizer(values, 3).fit(data)
    second = EntityMQTokenizer(values, 3).fit(other)
    assert second.items.tokens == other.items != data.items and second.users.tokens == other.users
    assert same(second.aligned(data.items, data.users), first)
    assert other.fingerprint == data.fingerprint

    swapped = replace(data, items=[data.items[0], *reversed(data.items[1:])])
    assert swapped.fingerprint != data.fingerprint, "vectors belong to other items"
    bare = EntityContent(data.items, data.users)
    assert bare.by_raw_id().item_vectors is None
    assert renumbered(data).by_raw_id().users == sorted(data.users)


# --- the tokenizer in the store -------------------------------------------------------------------


def test_fitted_once_and_loaded_again(tmp_path, monkeypatch):
    data, log = content().by_raw_id(), []
    first = EntityMQTokenizer(settings(), 3)
    codes = fit_or_load(first, data, tmp_path, 3, log.append)
    assert "being fitted to 30 items and 20 users" in log[0]
    for number, side in enumerate(SIDES):
        alone = MQQuantiser(settings(), 3 + number, side)
        assert torch.equal(
            alone.fit(data.vectors(side), log.append)[1:], codes.side(side).codes[1:]
        )
    (folder,) = [path for path in tmp_path.iterdir() if not path.name.startswith(".")]
    assert folder.name.startswith("mq-entities-")

    monkeypatch.setattr(EntityMQTokenizer, "fit", lambda *_: pytest.fail("fitted again"))
    second = EntityMQTokenizer(settings(), 3)
    assert same(fit_or_load(second, data, tmp_path, 3, log.append), codes)
    for side in SIDES:
        vectors = data.vectors(side)
        assert torch.equal(second.quantisers[side].assign(vectors)[1:], codes.side(side).codes[1:])
        assert second.quantisers[side].quality == first.quantisers[side].quality


@pytest.mark.parametrize("change", ["items", "users", "item_vectors", "seed", "settings"])
def test_everything_that_counts_is_part_of_the_key(tmp_path, change):
    data, seed, values = content(), 3, settings()
    fit_or_load(EntityMQTokenizer(values, seed), data, tmp_path, seed, lambda _: None)
    if change == "seed":
        seed = 4
    elif change == "settings":
        values["tokenizer_epochs"] = 5
    elif change == "item_vectors":
        data = replace(data, item_vectors=data.item_vectors * 1.5)
    else:
        data = replace(data, **{change: [*data.tokens(change)[:-1], "other"]})
    fit_or_load(EntityMQTokenizer(values, seed), data, tmp_path, seed, lambda _: None)
    assert len(list(tmp_path.glob("mq-entities-*"))) == 2


def test_missing_inputs_are_named():
    with pytest.raises(DataError, match="vectors of the items, and got none"):
        EntityMQTokenizer(settings(), 3).fit(EntityContent(["[PAD]", "a"], ["[PAD]", "b"]))
    with pytest.raises(DataError, match="needs training interactions"):
        content().interactions_fingerprint  # noqa: B018
