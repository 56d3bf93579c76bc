"""TokenRec's parts alone: the published head and loss, and prompts against strings put together
by hand.
"""

from __future__ import annotations

import pytest
import torch
import yaml
from golden.loading_tokenrec import head_from_golden, load_golden

from recbole_genrec.backbone.text_vocabulary import split_words
from recbole_genrec.errors import ConfigError
from recbole_genrec.model.tokenrec.model import cosine_loss, cosine_scores
from recbole_genrec.model.tokenrec.prompt import END, PAD, Prompts
from recbole_genrec.settings.property_files import properties_folder

TEXTS = yaml.safe_load((properties_folder() / "prompts" / "tokenrec.yaml").read_text())
ITEM_SIZES, USER_SIZES = (5, 7, 6), (4, 3, 8)


def make_prompts(source_len=200, dec_len=20):
    return Prompts(TEXTS, split_words, ITEM_SIZES, USER_SIZES, source_len, dec_len)


# --- head and loss --------------------------------------------------------------------------------


def test_head_and_loss_against_the_published_numbers():
    golden = load_golden("tokenrec_head")
    head = head_from_golden(golden).eval()
    hidden = golden["hidden"].clone().requires_grad_()
    projected = head(hidden)
    layers = {"inner": "l1", "outer": "l2"}
    table = golden["item_table"]
    loss = cosine_loss(projected, table[golden["target"]], table[golden["negative"]])
    loss.backward()
    torch.testing.assert_close(projected.detach(), golden["projected"], atol=1e-9, rtol=0)
    torch.testing.assert_close(loss.detach(), golden["loss"], atol=1e-9, rtol=0)
    torch.testing.assert_close(hidden.grad, golden["grad_hidden"], atol=1e-9, rtol=0)
    for name, value in head.named_parameters():
        layer, kind = name.split(".")
        torch.testing.assert_close(
            value.grad, golden[f"grad:{layers[layer]}.{kind}"], atol=1e-9, rtol=0
        )


def test_scores_against_the_published_numbers():
    """The published program gives items of the history the score 0; ours keep their cosine, or
    get -inf.
    """
    golden = load_golden("tokenrec_head")
    found = cosine_scores(golden["projected"], golden["item_table"])
    users, slots = torch.nonzero(golden["history"] >= 0, as_tuple=True)
    found[users, golden["history"][users, slots]] = 0
    torch.testing.assert_close(found, golden["scores"], atol=1e-9, rtol=0)
    for row, ranking in zip(found, golden["ranking"], strict=True):
        nonzero = ranking[row[ranking] != 0]
        ours = row.argsort(descending=True)
        assert torch.equal(ours[row[ours] != 0], nonzero)


@pytest.mark.parametrize("gamma", [0.0, 0.1, -0.3])
def test_loss_is_the_cosine_embedding_loss_of_all_pairs(gamma):
    torch.manual_seed(0)
    projected, positive, negative = torch.randn(3, 9, 8, dtype=torch.float64).unbind()
    pairs = (
        torch.cat([projected, projected]),
        torch.cat([positive, negative]),
        torch.cat([torch.ones(9), -torch.ones(9)]),
    )
    expected = torch.nn.CosineEmbeddingLoss(margin=gamma)(*pairs)
    torch.testing.assert_close(
        cosine_loss(projected, positive, negative, gamma), expected, atol=1e-12, rtol=0
    )


# --- prompts --------------------------------------------------------------------------------------


def slow_prompt(prompts, template: str, user, items, source_len):
    """Token ids by string replacement, one piece at a time; as many of the last items as fit."""
    ids = {word: number + 2 for number, word in enumerate(prompts.words)}
    base = 2 + len(prompts.words)
    for side, sizes in (("item", ITEM_SIZES), ("user", USER_SIZES)):
        for book, size in enumerate(sizes):
            ids |= {f"{side}{book}x{code}": base + code for code in range(size)}
            base += size

    def named(side, codes):
        return " ".join(
            [TEXTS[f"{side}_marker"], *(f"{side}{book}x{code}" for book, code in enumerate(codes))]
        )

    for first in range(len(items) + 1):
        text = template.replace("{user}", f" {named('user', user)} ")
        text = text.replace(
            "{items}", " ".join(["", *(named("item", item) for item in items[first:]), ""])
        )
        row = [ids[word] for word in split_words(text)] + [END]
        if len(row) <= source_len:
            return row
    raise AssertionError("no room")


def random_rows(generator, count=50, slots=9):
    length = torch.randint(1, slots + 1, (count,), generator=generator)
    draw = [
        torch.stack([torch.randint(size, shape, generator=generator) for size in sizes], -1)
        for sizes, shape in ((USER_SIZES, (count,)), (ITEM_SIZES, (count, slots)))
    ]
    templates = torch.arange(count) % len([*TEXTS["seen"], TEXTS["unseen"], *TEXTS["user_only"]])
    return length, *draw, templates


@pytest.mark.parametrize("source_len", [200, 43])
def test_prompts_equal_strings_put_together_by_hand(source_len):
    prompts = make_prompts(source_len)
    length, users, items, template = random_rows(torch.Generator().manual_seed(0))
    ids, mask = prompts.source(
        template, users, items, prompts.shown(template, length, items.shape[1])
    )
    texts = [*TEXTS["seen"], TEXTS["unseen"], *TEXTS["user_only"]]
    cut = 0
    for row in range(len(length)):
        shown = items[row, : length[row]].tolist()
        expected = slow_prompt(
            prompts, texts[template[row]], users[row].tolist(), shown, source_len
        )
        assert ids[row][mask[row]].tolist() == expected
        assert ids[row][~mask[row]].eq(PAD).all() and not mask[row, int(mask[row].sum()) :].any()
        cut += len(expected) < len(
            slow_prompt(prompts, texts[template[row]], users[row].tolist(), shown, 10**6)
        )
    assert ids.shape[1] == int(mask.sum(1).max()) <= source_len and (cut > 10) == (source_len == 43)


def test_every_side_book_and_code_has_its_own_token():
    prompts = make_prompts()
    tokens = [
        int(first) + code
        for first, size in zip(prompts.first_item, ITEM_SIZES, strict=True)
        for code in range(size)
    ]
    tokens += [
        int(first) + code
        for first, size in zip(prompts.first_user, USER_SIZES, strict=True)
        for code in range(size)
    ]
    words = range(2, 2 + len(prompts.words))
    assert sorted([PAD, END, *words, *tokens]) == list(range(prompts.n_tokens))


def test_the_decoder_reads_one_sentence():
    prompts = make_prompts(dec_len=11)
    words = [prompts.words[token - 2] for token in prompts.decoder_ids.tolist()[1:9]]
    assert words == ["the", "history", "shows", "what", "the", "user", "may", "like"]
    assert prompts.decoder_ids[[0, 9, 10]].tolist() == [PAD, END, PAD]
    assert make_prompts(dec_len=3).decoder_ids.tolist() == prompts.decoder_ids[:3].tolist()


def test_a_source_without_room_for_an_item_is_refused():
    with pytest.raises(ConfigError, match="source_len 20 leaves no room"):
        make_prompts(source_len=20)


def test_ten_trained_templates_and_another():
    prompts = make_prompts()
    assert len(prompts.seen) == 10 and prompts.unseen not in prompts.seen
    assert set(split_words(TEXTS["unseen"])) <= {
        word for text in TEXTS["seen"] for word in split_words(text)
    }, "it only puts them anew"
    assert not set(prompts.user_only) & {*prompts.seen, prompts.unseen}
    assert len({*TEXTS["seen"], TEXTS["unseen"], *TEXTS["user_only"]}) == 11 + len(
        TEXTS["user_only"]
    )
    with pytest.raises(ConfigError, match="must hold {user} once"):
        Prompts(
            {**TEXTS, "unseen": "{items} of {user}"}, split_words, ITEM_SIZES, USER_SIZES, 200, 20
        )
