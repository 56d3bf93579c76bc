"""LCRec's loss, search and learning; as a generator of LETTER; LoRA.

Prompts and tasks: ``test_lcrec_prompts.py``.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from lcrec import FAMILIES, LLAMA, PROMPTS, ByHand, batch_of, cases_of, maker, shown, write_data
from toy import TINY_LLAMA, TINY_OF, toy_model

from recbole_genrec.backbone import load_causal_lm
from recbole_genrec.cli import main
from recbole_genrec.config import GenRecConfig
from recbole_genrec.decoding import path_scores
from recbole_genrec.errors import BackboneError, ConfigError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.stages import metrics_of_test
from recbole_genrec.experiments.trained import load_data_and_model
from recbole_genrec.model.lcrec.cases import HistoryCase, TargetsCase
from recbole_genrec.model.lcrec.templates import pieces_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def make(folder, tmp_path_factory):
    return maker(folder, tmp_path_factory.mktemp("cache"))


# --- loss -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_targets_that_share_their_history_learn_as_separate_samples_do(make, family):
    """Loss and gradients of a row with many targets are those of one sample for each target."""
    model, _, loaders = make(backbone_config=FAMILIES[family], tasks=["seqrec"])
    history, length, target, _ = batch_of(model, loaders[0])
    history, length, target = history[:5], length[:5], target[:5]
    following, wanted = model.next_items(history, length, target)
    templates, case = (
        model.instructions.templates.tasks["seqrec"],
        TargetsCase(target, history, length, following, wanted),
    )
    longer = replace(templates[2], closing=templates[2].closing.repeat(2))
    drawn = [(templates[0], torch.tensor([0, 3])), (longer, torch.tensor([4, 1, 2]))]
    together = model.responses.loss(
        [
            model.responses.read_tree(
                [(template, case.pick(rows, rows.device)) for template, rows in drawn]
            )
        ]
    )
    together.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    samples = []
    for template, rows in drawn:
        row, slot = wanted[rows].nonzero().unbind(1)
        case = HistoryCase(following[rows][row, slot], history[rows][row], slot + 1)
        samples.append((template, case))
    apart = model.responses.loss(model.responses.read(samples))
    apart.backward()
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)
    for name, p in model.named_parameters():
        torch.testing.assert_close(gradients[name], p.grad, atol=2e-5, rtol=1e-3, msg=name)


def test_stores_tokenizer_gives_it_codes(make):
    model, _, loaders = make(tokenizer="store", tokenizer_epochs=1, tasks=["seqrec"])
    assert model.tokenizer.name == "store" and model.item_codes.n_learned == 2
    assert torch.isfinite(model.calculate_loss(next(iter(loaders[0]))))


def test_a_shared_history_that_is_too_long_drops_the_same_items_and_their_targets(make):
    model, *_ = make(tasks=["seqrec"])
    template = model.instructions.templates.tasks["seqrec"][0]
    history, length = torch.tensor([[5, 9, 3, 7]]), torch.tensor([4])
    prompt, response = ByHand(model).sequence("seqrec", 0, 8, [3, 7])
    model.instructions.limit = len(prompt) + len(response)
    following, wanted = model.next_items(history, length, torch.tensor([8]))
    together = model.responses.read_tree(
        [(template, TargetsCase(torch.tensor([8]), history, length, following, wanted))]
    )
    expected = [(7, [3]), (8, [3, 7])]
    assert together.labels.tolist() == [
        token
        for item, before in expected
        for token in ByHand(model).sequence("seqrec", 0, item, before)[1]
    ]
    cases = [
        HistoryCase(torch.tensor([item]), torch.tensor([before]), torch.tensor([len(before)]))
        for item, before in expected
    ]
    alone = torch.cat([model.responses.read([(template, case)])[0].states for case in cases])
    torch.testing.assert_close(together.states, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("vocabulary", ["full", "sid", "trie"])
def test_the_loss_is_the_mean_over_all_response_tokens(make, vocabulary):
    model, _, loaders = make(
        backbone_config=FAMILIES["untied"],
        sid_loss_vocab=vocabulary,
        temperature=0.7,
        score_type="renormalised",
    )
    hand, total, count = ByHand(model), 0.0, 0
    head, end = model.backbone.lm.lm_head.weight, model.instructions.templates.end
    read = []
    for task, case in cases_of(model, loaders).items():
        template = model.instructions.templates.tasks[task][0]
        read += model.responses.read([(template, case)])
        for row, item in enumerate(case.item.tolist()):
            history = shown(case, row)
            prompt, response = hand.sequence(
                task, 0, item, history, None if case.person is None else int(case.person[row])
            )
            ids = torch.tensor([prompt + response])
            states = model.backbone.lm.model(
                inputs_embeds=model.text_and_codes.embed(ids)
            ).last_hidden_state[0, len(prompt) - 1 : -1]
            logits = (
                torch.cat([states @ head.T, states @ model.vocabulary.classifier.T], dim=-1) / 0.7
            )
            if vocabulary == "sid" and template.answer == "index":
                others = torch.arange(logits.shape[1])
                logits[:, (others < model.text_and_codes.n_text) & (others != end)] = -torch.inf
            if vocabulary == "trie" and template.answer == "index":
                every_item = [[*hand.codes(other), end] for other in range(1, model.n_items)]
                for place in range(len(response)):
                    siblings = {
                        tokens[place] for tokens in every_item if tokens[:place] == response[:place]
                    }
                    is_closed = torch.ones(logits.shape[1], dtype=torch.bool)
                    is_closed[sorted(siblings)] = False
                    logits[place, is_closed] = -torch.inf
            total = total - logits.log_softmax(-1)[torch.arange(len(response)), response].sum()
            count += len(response)
    torch.testing.assert_close(model.responses.loss(read), total / count, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", ["tied", "untied"])
def test_new_rows_start_near_the_mean_of_known_words_and_every_parameter_learns(
    make, family, tmp_path
):
    lm, tokenizer = load_causal_lm("scratch", FAMILIES[family], list(pieces_of(PROMPTS)), 400)
    lm.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    model, _, loaders = make(backbone=str(tmp_path / "lm"))
    inputs, outputs = (
        model.backbone.text_table.weight,
        model.backbone.lm.get_output_embeddings().weight,
    )
    assert (
        (model.vocabulary.classifier is model.vocabulary.embedding)
        == (inputs is outputs)
        == (family == "tied")
    )
    for table, rows in (
        (model.vocabulary.embedding, inputs),
        (model.vocabulary.classifier, outputs),
    ):
        noise = (table - rows.mean(0)) / rows.std(0)
        assert noise.std().item() == pytest.approx(0.02, rel=0.1) and noise.abs().max() < 0.1
    scratch, *_ = make(backbone_config=FAMILIES[family])
    assert scratch.vocabulary.embedding.std().item() == pytest.approx(0.2, rel=0.05), (
        "random among random words"
    )
    model.loss(*batch_of(model, loaders[0])).backward()
    assert not [
        name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()
    ]


# --- search ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "changes",
    [
        {"score_type": "joint"},
        {"score_type": "joint", "sid_loss_vocab": "sid"},
        {"score_type": "level"},
    ],
)
@torch.no_grad()
def test_scores_of_returned_items_equal_plain_passes_over_prompt_and_codes(make, family, changes):
    model, _, loaders = make(
        backbone_config=FAMILIES[family], infer_temperature=0.9, tasks=["seqrec"], **changes
    )
    hand, end = ByHand(model), model.instructions.templates.end
    history, length, *_ = batch_of(model, (batch[0] for batch in loaders[2]))
    history, length = history[:4], length[:4]
    result = model.search(history, length, k=10)
    head = model.backbone.lm.get_output_embeddings().weight
    for row in range(4):
        prompt, _ = hand.sequence("seqrec", 0, 1, history[row, : length[row]].tolist())
        for item, score in zip(
            result.items[row].tolist(), result.scores[row].tolist(), strict=True
        ):
            codes = hand.codes(item)
            states = model.backbone.lm.base_model(
                inputs_embeds=model.text_and_codes.embed(torch.tensor([prompt + codes]))
            ).last_hidden_state
            states = states[0, len(prompt) - 1 : -1]
            logits = (
                torch.cat([states @ head.T, states @ model.vocabulary.classifier.T], dim=-1) / 0.9
            )
            others, expected = torch.arange(logits.shape[1]), 0.0
            for level, code in enumerate(codes):
                first = model.text_and_codes.n_text + model.vocabulary.first[level]
                allowed = (others >= first) & (others < first + model.level_sizes[level])
                if changes["score_type"] == "joint":
                    allowed = (
                        (others >= model.text_and_codes.n_text)
                        | (others == end)
                        | (model.config["sid_loss_vocab"] == "full")
                    )
                expected += float(
                    logits[level].masked_fill(~allowed, -torch.inf).log_softmax(-1)[code]
                )
            assert score == pytest.approx(expected, abs=1e-4)


def test_training_and_search_see_the_same_probabilities(make):
    model, *_ = make(
        score_type="joint",
        temperature=0.7,
        infer_temperature="match",
        tasks=["seqrec"],
        train_rows="all",
    )
    history, length, target = (
        torch.tensor([[5, 9], [3, 4]]),
        torch.tensor([2, 2]),
        torch.tensor([7, 8]),
    )
    template = model.instructions.templates.tasks["seqrec"][0]
    (response,) = model.responses.read([(template, HistoryCase(target, history, length))])
    labels = response.labels
    codes = labels != model.instructions.templates.end
    log_probs = (
        (model.responses.logits(response.states, False) / 0.7)
        .log_softmax(-1)[codes, labels[codes]]
        .view(2, 3)
        .sum(1)
    )
    scores = path_scores(
        model.item_logits(history, length), model.trie, target.unsqueeze(1), score_type="joint"
    )
    torch.testing.assert_close(scores.squeeze(1), log_probs, atol=1e-5, rtol=0)


def test_a_refresh_sees_the_probabilities_of_the_training(make):
    """The first block of an item's own prompt, in the temperature of the loss."""
    (plain, *_), (sharp, *_) = make(), make(temperature=0.5)
    items = torch.tensor([3, 4])
    expected = (2 * plain.item_decoder(items).start()).log_softmax(-1)
    torch.testing.assert_close(sharp.item_decoder(items).start(), expected, atol=1e-5, rtol=0)


def test_the_trie_returns_items_only_and_the_level_grammar_counts_what_is_none(make):
    model, config, loaders = make(score_type="level")
    history, length, *_ = batch_of(model, (batch[0] for batch in loaders[2]))
    result = model.search(history, length)
    assert (result.items > 0).all() and model.search_log.shares()["invalid_beams"] == 0
    config["constraint"] = "level"
    model.reset_search_log()
    result = model.search(history, length)
    share = model.search_log.shares()["invalid_beams"]
    assert 0 < share < 1 and (result.items == 0).any()
    assert model.report()["search"]["invalid_beams"] == share


def test_several_templates_are_tested_one_by_one(make, folder, tmp_path):
    settings = {
        **TINY_OF["LCRec"],
        "data_path": str(folder),
        "cache_dir": str(tmp_path),
        "epochs": 1,
        "tasks": ["seqrec"],
    }
    result = run_recbole_genrec("LCRec", "toy", config_dict={**settings, "test_prompt_ids": "all"})
    each = result["test_variants"]
    assert list(each) == ["prompt 0", "prompt 1", "prompt 2"]
    for metric, mean in result["test_result"].items():
        assert mean == pytest.approx(sum(values[metric] for values in each.values()) / 3)
    model, *_ = make(test_prompt_ids=[2, 1])
    seen = [
        (name, model.item_logits(torch.tensor([[5, 9]]), torch.tensor([2])).root)
        for name in model.test_variants()
    ]
    assert [name for name, _ in seen] == ["prompt 2", "prompt 1"] and not torch.allclose(
        seen[0][1], seen[1][1]
    )
    with pytest.raises(ConfigError, match="seqrec has templates 0 to 2"):
        make(test_prompt_ids=[7])


def test_a_test_that_fails_leaves_the_first_template(make):
    model, config, _ = make(test_prompt_ids=[0, 2])

    def evaluate(*_, **__):
        if model.prompt == 2:
            raise MemoryError
        return {"recall@10": 0.5}

    trainer = SimpleNamespace(model=model, config=config, evaluate=evaluate)
    with pytest.raises(MemoryError) as failure:  # whoever holds the error holds its frames
        metrics_of_test(trainer, None, load_best_model=False)
    assert model.prompt == 0, failure


# --- what it learns -------------------------------------------------------------------------------


def test_it_learns_a_rule_and_can_say_what_an_item_is(tmp_path, capsys):
    """50 users walk a ring: Recall@1 on their training windows is 1.

    Titles come back from the codes alone, also on the command line.
    """
    rows = [f"u{user}\ti{(user + step) % 10}\t{step}" for user in range(50) for step in range(7)]
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "toy.inter").write_text(
        "\n".join(["user_id:token\titem_id:token\ttimestamp:float", *rows]) + "\n"
    )
    words = ["red", "green", "blue", "dry", "cold", "sweet", "dark", "light", "soft", "old"]
    items = [f"i{n}\t{word} thing\tb" for n, word in enumerate(words)]
    (tmp_path / "toy" / "toy.item").write_text(
        "\n".join(["item_id:token\ttitle:token_seq\tbrand:token", *items]) + "\n"
    )
    (tmp_path / "short.yaml").write_text(
        "header: Task.\nresponse: 'Answer:'\nseparator: ;\ntasks:\n  seqrec:\n"
        "    - {ask: 'After {history}', answer: '{index}'}\n"
        "  index2item:\n    - {ask: 'Name {index}', answer: '{title}'}\n"
    )
    settings = {
        "codebook_sizes": [4, 4],
        "tasks": ["seqrec", "index2item"],
        "task_weights": {"index2item": 12.0},
    }
    settings |= {
        "prompt_file": str(tmp_path / "short.yaml"),
        "backbone_config": {**TINY_LLAMA, "initializer_range": 0.1},
    }
    torch.manual_seed(0)
    model, _, (train, *_) = toy_model(
        tmp_path, "LCRec", cache_dir=str(tmp_path), train_batch_size=50, **settings
    )
    optimiser = torch.optim.AdamW(model.parameter_groups(), lr=5e-3)
    for batch in [batch for _ in range(120) for batch in train]:
        optimiser.zero_grad()
        model.calculate_loss(batch).backward()
        optimiser.step()
    model.eval()
    for batch in train:
        history, length = model._history(batch)
        assert torch.equal(model.search(history, length, k=1).items[:, 0], batch["item_id"])
    model.save("ring.pth")
    told = model.inspect_items([f"i{n}" for n in range(10)])
    assert (
        [row["generated"] for row in told]
        == [row["text"] for row in told]
        == [f"{word} thing" for word in words]
    )
    capsys.readouterr()
    assert main(["inspect", "--checkpoint=ring.pth", "--item=i3, i7"]) == 0
    assert capsys.readouterr().out.count("generated: dry thing") == 1
    assert main(["inspect", "--checkpoint=ring.pth", "--item=nothing"]) == 2


# --- LETTER and tuning ----------------------------------------------------------------------------


def test_it_is_a_generator_of_tiger_and_letter(folder):
    settings = {
        "data_path": str(folder),
        "gpu_id": "",
        "item_text_fields": ["title"],
        "generator": "lcrec",
    }
    letter = GenRecConfig("LETTER", "toy", config_dict={**settings, "LETTER.temperature": 0.7})
    assert (letter["model"], letter["tokenizer"], letter["tasks"], letter["temperature"]) == (
        "LCRec",
        "letter",
        ["seqrec"],
        0.7,
    )
    tiger = GenRecConfig("TIGER", "toy", config_dict=settings)
    assert (tiger["model"], tiger["tokenizer"], len(tiger["tasks"])) == ("LCRec", "rkmeans", 6)
    paper = GenRecConfig("LETTER", "toy", config_dict={**settings, "preset": "paper"})
    assert (paper["tuning"], paper["learning_rate"], paper["tokenizer"], paper["constraint"]) == (
        "lora",
        1e-4,
        "letter",
        "level",
    )


def test_letters_codes_train_and_recommend(folder, tmp_path):
    settings = {
        **TINY_OF["LCRec"],
        "data_path": str(folder),
        "cache_dir": str(tmp_path),
        "generator": "lcrec",
        "temperature": 0.7,
    }
    settings |= {"tokenizer_epochs": 2, "cf_dim": 8, "code_dim": 8, "cf_epochs": 1}
    result = run_recbole_genrec("LETTER", "toy", config_dict=settings)
    assert result["model"] == "LCRec" and result["config"]["tokenizer"] == "letter"
    _, model, *_ = load_data_and_model(result["checkpoint"])
    assert model.mixture.tasks == ["seqrec"] and len(model.recommend(["i1", "i2"], k=5)) == 5


def test_lora_trains_adapter_and_code_rows_and_reloads_from_the_checkpoint(folder, tmp_path):
    lm, tokenizer = load_causal_lm("scratch", LLAMA, ["red soap no 1", *pieces_of(PROMPTS)], 400)
    lm.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    settings = {
        **TINY_OF["LCRec"],
        "data_path": str(folder),
        "cache_dir": str(tmp_path),
        "backbone": str(tmp_path / "lm"),
        "tuning": "lora",
    }
    result = run_recbole_genrec(
        "LCRec", "toy", config_dict={**settings, "lora_rank": 2, "epochs": 1}
    )
    _, model, _, train, _, test = load_data_and_model(result["checkpoint"])
    scores = model.full_sort_predict(next(iter(test))[0])
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {
        name
        for name, _ in model.named_parameters()
        if "lora_" in name or name.startswith("vocabulary.")
    }
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimiser = torch.optim.AdamW(model.parameter_groups(), lr=1e-2)
    model.loss(*batch_of(model, train)).backward()
    optimiser.step()
    assert {
        name for name, p in model.named_parameters() if not torch.equal(p, before[name])
    } == trained
    again = load_data_and_model(result["checkpoint"])[1]
    assert torch.equal(again.full_sort_predict(next(iter(test))[0]), scores)
    lm.get_input_embeddings().weight.data.add_(1)
    lm.save_pretrained(tmp_path / "lm")
    with pytest.raises(BackboneError, match="another base"):
        load_data_and_model(result["checkpoint"])


def test_new_items_get_codes_and_titles(make):
    model, *_ = make(beam_width=64)
    model.add_items(["title: sweet cream no 77, brand: brand1", "new thing"], ["n77", "n78"])
    template = model.instructions.templates.tasks["fusionseqrec"][3]
    case = HistoryCase(torch.tensor([42]), torch.tensor([[5, 41]]), torch.tensor([2]))
    ids, _, lengths = model.instructions.sequences(template, case)
    assert "sweet cream no 77" in model.text_tokenizer.decode(
        ids[0, : lengths[0]][ids[0, : lengths[0]] < model.text_and_codes.n_text]
    )
    assert {
        row["item"] for row in model.recommend(["i1", "n77"], k=3, candidates=["n78", "i3", "i4"])
    } == {"n78", "i3", "i4"}
