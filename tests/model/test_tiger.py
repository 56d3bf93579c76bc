"""TIGER and LETTER: input sequences, ranking-guided loss, learning a rule, refused settings."""

from __future__ import annotations

import pytest
import torch
from golden.loading_t5 import arrays
from toy import toy_config, toy_model, write_dataset

from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.loaders import create_dataset, make_loaders
from recbole_genrec.decoding import path_scores, ranking_guided_loss
from recbole_genrec.errors import BackboneError, ConfigError
from recbole_genrec.model.tiger import TIGER


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


def test_ranking_guided_loss_against_the_published_numbers():
    golden = arrays("letter_ranking_loss")
    for number, tau in enumerate(golden["taus"].tolist()):
        logits = golden["logits"].clone().requires_grad_()
        loss = ranking_guided_loss(logits, golden["labels"], tau)
        loss.backward()
        torch.testing.assert_close(loss.detach(), golden[f"tau{number}/loss"], atol=1e-10, rtol=0)
        torch.testing.assert_close(logits.grad, golden[f"tau{number}/grad"], atol=1e-10, rtol=0)


def test_temperature_one_is_the_plain_loss_bit_for_bit():
    torch.manual_seed(0)
    logits, labels = torch.randn(7, 3, 11), torch.randint(0, 11, (7, 3))
    plain = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    assert torch.equal(ranking_guided_loss(logits, labels, 1.0), plain)


def test_source_is_user_codes_and_end(folder):
    model, *_ = toy_model(folder, "TIGER", n_user_tokens=7, use_eos=True)
    history, length, user = (
        torch.tensor([[5, 9, 0], [3, 0, 0]]),
        torch.tensor([2, 1]),
        torch.tensor([8, 3]),
    )
    tokens, mask = model.source(history, length, user)
    flat = model.vocabulary.tokens(model.codes)
    first = [
        model.vocabulary.n_outputs + 1,
        *flat[5].tolist(),
        *flat[9].tolist(),
        model.vocabulary.eos,
    ]
    second = [model.vocabulary.n_outputs + 3, *flat[3].tolist(), model.vocabulary.eos]
    assert tokens[0][mask[0]].tolist() == first and tokens[1][mask[1]].tolist() == second
    assert tokens[:, 1:][mask[:, 1:]].max() < model.vocabulary.n_outputs, (
        "user tokens stand in front only"
    )
    assert model.source(history, length)[0].shape[1] == tokens.shape[1] - 1, (
        "an unknown user has no token"
    )


def test_a_stranger_has_the_same_list_in_every_way(folder):
    model, *_ = toy_model(folder, "TIGER", n_user_tokens=7)
    for value in model.parameters():
        torch.nn.init.normal_(value, std=0.3)
    histories = {"stranger": ["i3", "i8", "i20"], "u1": ["i3", "i8", "i20"]}
    table = model.recommend_all(histories, k=5, exclude_seen=True)
    lists = dict(list(table.groupby("user_id")))
    for name, user in (("stranger", None), ("u1", "u1")):
        one = model.recommend(histories[name], k=5, user=user, exclude_seen=True)
        assert [row["item"] for row in one] == lists[name]["item_id"].tolist()
        scores = [row["score"] for row in one]
        assert scores == pytest.approx(lists[name]["score"].tolist(), abs=1e-5)
    assert lists["stranger"]["score"].tolist() != pytest.approx(
        lists["u1"]["score"].tolist(), abs=1e-5
    )


def test_a_user_who_came_after_the_training_has_no_token(folder, tmp_path):
    model, *_ = toy_model(folder, "TIGER", n_user_tokens=7)
    later = write_dataset(tmp_path)
    rows = "".join(f"late\ti{item}\t{item}\n" for item in range(3, 12))
    with (later / "toy" / "toy.inter").open("a") as stream:
        stream.write(rows)
    config = toy_config(later, "TIGER", n_user_tokens=7)
    dataset = make_loaders(config, create_dataset(config), True)[0]._dataset
    history, length = torch.tensor([[1, 2, 3]] * 3), torch.tensor([3, 3, 3])

    loaded = TIGER.from_checkpoint(config, dataset, model.checkpoint())
    late, known = map(loaded.user_tokens.index, ("late", "u5"))
    tokens, mask = loaded.source(history, length, torch.tensor([late, known, 0]))
    n = 3 * model.codes.shape[1]
    assert mask.sum(1).tolist() == [n, n + 1, n]
    assert torch.equal(tokens[0], tokens[2]) and tokens[0].max() < loaded.vocabulary.n_outputs
    before = model.source(history[:1], length[:1], torch.tensor([model.user_tokens.index("u5")]))
    assert tokens[1][0] == before[0][0, 0]

    going_on = TIGER.from_checkpoint(config, dataset, model.checkpoint(), begins=True)
    numbers = going_on.user_numbers
    assert numbers[late] == len(model.user_tokens) and numbers[0] == 0
    assert numbers[known] == loaded.user_numbers[known]
    tokens, mask = going_on.source(history, length, torch.tensor([late, known, 0]))
    assert mask.sum(1).tolist() == [n + 1, n + 1, n]


def test_the_same_temperature_in_training_and_search(folder):
    model, config, loaders = toy_model(
        folder,
        "LETTER",
        temperature=0.7,
        infer_temperature="match",
        score_type="joint",
        use_eos=False,
    )
    assert model.settings.search_temperature == 0.7
    history, length = torch.tensor([[5, 9], [3, 4]]), torch.tensor([2, 2])
    target = torch.tensor([7, 8])
    loss = model.loss(history, length, target)
    with torch.no_grad():
        total = path_scores(
            model.item_logits(history, length), model.trie, target.unsqueeze(1), score_type="joint"
        ).squeeze(1)
    torch.testing.assert_close(
        -total.mean() / model.codes.shape[1], loss.detach(), atol=1e-5, rtol=0
    )


def test_a_deterministic_rule_is_learned(tmp_path):
    """Users walk along a ring of items: the next item is a function of the last."""
    folder = tmp_path / "data" / "toy"
    folder.mkdir(parents=True)
    rows = [f"u{user}\ti{(user + step) % 20}\t{step}" for user in range(50) for step in range(8)]
    (folder / "toy.inter").write_text(
        "\n".join(["user_id:token\titem_id:token\ttimestamp:float", *rows]) + "\n"
    )
    items = [f"i{item}\tthing number {item} of colour {item % 5}" for item in range(20)]
    (folder / "toy.item").write_text("\n".join(["item_id:token\ttitle:token_seq", *items]) + "\n")
    model, _, loaders = toy_model(tmp_path / "data", "TIGER", item_text_fields=["title"])
    rows = loaders[0]._dataset.inter_feat
    history, length, target = rows["item_id_list"][:, :5], rows["item_length"], rows["item_id"]
    optimiser = torch.optim.Adam(model.parameters(), lr=0.005)
    for _ in range(150):
        optimiser.zero_grad()
        model.loss(history, length, target).backward()
        optimiser.step()
    best = model.search(history, length).items[:, 0]
    assert len(rows) == 250 and torch.equal(best, target)


def test_unseen_values_of_the_extra_token_start_at_the_mean_of_the_seen(folder):
    model, *_ = toy_model(folder, "TIGER", dedup_spare=3)
    level = model.item_codes.n_learned
    codes = torch.arange(model.level_sizes[level])
    seen = torch.bincount(model.codes[1:, level], minlength=len(codes)) > 0
    before = model.vocabulary.embed_code(codes, level)
    model.add_items(["title: a new thing"])
    after = model.vocabulary.embed_code(codes, level)
    assert torch.equal(after[seen], before[seen])
    expected = before[seen].mean(0).expand(int((~seen).sum()), -1)
    torch.testing.assert_close(after[~seen], expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score_eos": True}, "score_eos: True needs use_eos"),
        ({"tokenizer": "store"}, "tokenizer: store"),
        ({"tokenizer": "rkmean"}, "Did you mean rkmeans"),
        ({"infer_temperature": "mach"}, "infer_temperature"),
        ({"temperature": 0}, "temperature"),
        ({"alpha": 0.1}, "Unknown key 'alpha'"),
        ({"backbone_config": {"model_type": "opt"}}, "T5 family"),
    ],
)
def test_settings_that_cannot_work(folder, changes, message):
    with pytest.raises(ValueError, match=message):
        toy_model(folder, "TIGER", **changes)


def test_published_settings_are_one_switch(folder):
    for model, size in (("TIGER", 3), ("LETTER", 4)):
        config = GenRecConfig(
            model, "toy", config_dict={"preset": "paper", "data_path": str(folder), "gpu_id": ""}
        )
        assert config["backbone_config"]["d_ff"] == 1024 and config["tokenizer_epochs"] == 20000
        assert len(config["codebook_sizes"]) == size and config["score_type"] == "joint"
    with pytest.raises(ConfigError, match="preset"):
        toy_config(folder, "TimelineRec", preset="paper")


@pytest.mark.slow
def test_a_compiled_search_finds_the_same(folder):
    """In training nothing changes; in the search rounding may."""
    plain, config, (_, _, test) = toy_model(folder, "TIGER")
    compiled, *_ = toy_model(folder, "TIGER", compile_search=True)
    compiled.load_state_dict(plain.state_dict())
    batch = next(iter(test))[0]
    plain.eval(), compiled.eval()
    torch.testing.assert_close(
        compiled.full_sort_predict(batch), plain.full_sort_predict(batch), atol=1e-5, rtol=1e-5
    )
    torch.manual_seed(0)
    expected = plain.train().loss(
        batch[plain.ITEM_SEQ], batch[plain.ITEM_SEQ_LEN], batch[plain.ITEM_ID]
    )
    torch.manual_seed(0)
    assert torch.equal(
        compiled.train().loss(
            batch[plain.ITEM_SEQ], batch[plain.ITEM_SEQ_LEN], batch[plain.ITEM_ID]
        ),
        expected,
    )


def test_a_missing_compiler_is_named(folder, monkeypatch):
    def compiled(function, **_):
        raise RuntimeError("no g++ here")

    monkeypatch.setattr(torch, "compile", compiled)
    with pytest.raises(
        BackboneError, match=r"compile_search: True needs a compiler .*no g\+\+ here"
    ):
        toy_model(folder, "TIGER", compile_search=True)
