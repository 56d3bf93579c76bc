"""LCRec: prompts and labels by hand, what each task sees, the loss, the search, texts generated from codes."""

from __future__ import annotations

import copy
import json
import logging

import pytest
import torch
from toy import TINY_LLAMA, TINY_OF, toy_config, toy_model, write_dataset

from recbole_genrec.backbone import load_causal_lm
from recbole_genrec.cli import main
from recbole_genrec.config import GenRecConfig
from recbole_genrec.decoding import path_scores
from recbole_genrec.errors import ArtefactError, BackboneError, ConfigError, DataError
from recbole_genrec.files import properties_folder
from recbole_genrec.model.instructions import Case
from recbole_genrec.model.templates import FORMS, Templates, check_prompts, pieces_of
from recbole_genrec.parsing import read_yaml
from recbole_genrec.quick_start import load_data_and_model, run_recbole_genrec

PROMPTS = read_yaml(properties_folder() / "prompts" / "lcrec.yaml")
OPT = {"model_type": "opt", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 64, "dropout": 0.0}
OPT |= {"word_embed_proj_dim": 16, "do_layer_norm_before": False, "max_position_embeddings": 512, "init_std": 0.2}
LLAMA = {**TINY_LLAMA, "initializer_range": 0.2}
FAMILIES = {
    "untied": {**LLAMA, "tie_word_embeddings": False},
    "tied": {**LLAMA, "tie_word_embeddings": True},
    "qwen3": {**LLAMA, "model_type": "qwen3", "head_dim": 16, "tie_word_embeddings": True},
    "opt-projected": OPT,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    target = write_dataset(tmp_path_factory.mktemp("data"))
    texts = {f"u{n}": {"preference": f"likes kind {n}", "query": f"something for {n}"} for n in range(0, 60, 2)}
    (target / "users.json").write_text(json.dumps({**texts, "nobody": {"preference": "x", "query": "y"}}))
    return target


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def make(folder, cache):
    def made(**changes):
        torch.manual_seed(0)
        return toy_model(folder, "LCRec", **{"cache_dir": cache, "user_text_file": str(folder / "users.json"), **changes})

    return made


def batch_of(model, loader):
    batch = next(iter(loader))
    history, length = model._history(batch)
    return history, length, batch["item_id"], batch["user_id"]


class ByHand:
    """Prompts and responses of a model as Python lists, one row at a time, from texts and the code table alone."""

    def __init__(self, model):
        self.model, self.tokenizer = model, model.text_tokenizer

    def words(self, text):
        return self.tokenizer(text.rstrip(), add_special_tokens=False)["input_ids"]

    def limited(self, text):
        return self.tokenizer(" " + text, add_special_tokens=False)["input_ids"][: self.model.config["text_max_len"]]

    def codes(self, item):
        sizes, row = self.model.level_sizes, self.model.codes[item].tolist()
        return [self.model.n_text + sum(sizes[:level]) + code for level, code in enumerate(row)]

    def listed(self, parts):
        separator = self.words(PROMPTS["separator"])
        return [token for number, part in enumerate(parts) for token in (separator if number else []) + part]

    def slot(self, name, item, history, person):
        content = self.model.content
        if name == "index":
            return self.codes(item)
        if name == "history":
            return self.listed([self.codes(one) for one in history])
        if name == "titles":
            return self.listed([self.limited(content.titles[one]) for one in history])
        if name in ("title", "text"):
            return self.limited(content.titles[item] if name == "title" else content.text[item])
        return self.limited(self.model.mixture.people[name][person])

    def sequence(self, task, number, item, history=(), person=None):
        """``(prompt ids, response ids)``."""
        entry = PROMPTS["tasks"][task][number]
        prompt, rest = self.words(PROMPTS["header"]), entry["ask"]
        while "{" in rest:
            text, _, rest = rest.partition("{")
            name, _, rest = rest.partition("}")
            prompt += self.words(text) + self.slot(name, item, history, person)
        prompt += self.words(rest) + self.words(PROMPTS["response"])
        return prompt, [*self.slot(entry["answer"].strip("{}"), item, history, person), self.tokenizer.eos_token_id]


def cases_of(model, loaders):
    """One case with rows of different length for each task."""
    history, length, target, user = batch_of(model, loaders[0])
    rows = length.argsort(descending=True)[[0, 3, -1]]
    sequential = Case(target[rows], history[rows], length[rows], user=user[rows])
    described = Case(torch.tensor([3, 17, 40]))
    people = model.mixture.people["case"].pick(torch.tensor([0, 9, 4]), torch.device("cpu"))
    known = {"item2index": described, "index2item": described, "itemsearch": people, "preferenceobtain": people}
    return {task: known.get(task, sequential) for task in FORMS}


# --- templates and prompts --------------------------------------------------------------------------------------------------------------


def test_our_prompts_have_three_templates_for_each_of_the_six_tasks():
    check_prompts(PROMPTS)
    assert list(PROMPTS["tasks"]) == list(FORMS)
    assert all(len(entries) >= 3 for entries in PROMPTS["tasks"].values())
    answers = {entry["answer"] for entry in PROMPTS["tasks"]["fusionseqrec"]}
    assert {"{index}", "{title}"} <= answers, "both directions"


def test_prompts_and_labels_of_every_template_by_hand(make):
    model, _, loaders = make(text_max_len=5)
    hand = ByHand(model)
    for task, case in cases_of(model, loaders).items():
        for number, template in enumerate(model.instructions.templates.tasks[task]):
            ids, labels, lengths = model.instructions.sequences(template, case)
            for row, item in enumerate(case.item.tolist()):
                history = [] if case.history is None else case.history[row, : case.length[row]].tolist()
                person = None if case.person is None else int(case.person[row])
                prompt, response = hand.sequence(task, number, item, history, person)
                assert ids[row, : lengths[row]].tolist() == prompt + response
                assert labels[row].tolist() == [-100] * len(prompt) + response + [-100] * (ids.shape[1] - lengths[row])
            if template.answer == "index":
                prompts, lengths = model.instructions.prompts(template, case, len(model.level_sizes) + 1)
                assert prompts[0, : lengths[0]].tolist() == ids[0][labels[0] == -100][: lengths[0]].tolist()


def test_padding_ids_change_nothing(make):
    model, _, loaders = make()
    case = cases_of(model, loaders)["fusionseqrec"]
    template = model.instructions.templates.tasks["fusionseqrec"][0]
    loss = model.token_loss(model.read([(template, case)]))
    noise = torch.where(torch.arange(case.history.shape[1]) < case.length.unsqueeze(1), case.history, 7)
    again = model.token_loss(model.read([(template, Case(case.item, noise, case.length))]))
    assert torch.equal(loss, again)


def test_every_code_is_one_token_and_decodes_to_itself(make):
    model, *_ = make()
    ids = model._code_ids(torch.arange(1, model.n_items))
    first = torch.tensor([model.n_text + offset for offset in model.vocabulary.offsets])
    assert torch.equal(ids - first, model.codes[1:])
    every = torch.cat([torch.arange(size) + offset for size, offset in zip(model.level_sizes, model.vocabulary.offsets, strict=True)])
    assert every.tolist() == list(range(len(model.vocabulary.embedding))), "all codes of all levels, each its own id"
    assert [model.code_words(item) for item in (1, 2)] == [
        "".join(f"<{letter}_{code}>" for letter, code in zip("abc", model.codes[item].tolist(), strict=False)) for item in (1, 2)
    ]


def test_a_swapped_code_table_changes_the_next_prompt(make):
    model, *_ = make()
    template, case = model.instructions.templates.tasks["seqrec"][0], Case(torch.tensor([5]), torch.tensor([[3, 9]]), torch.tensor([2]))
    before, _ = model.instructions.prompts(template, case, 4)
    model.codes[[3, 9]] = model.codes[[9, 3]]
    after, _ = model.instructions.prompts(template, case, 4)
    swapped, _ = model.instructions.prompts(template, Case(case.item, torch.tensor([[9, 3]]), case.length), 4)
    assert not torch.equal(before, after) and torch.equal(before, swapped)


@pytest.mark.parametrize("slot", ["history", "titles"])
def test_a_long_history_loses_its_oldest_items_whole(make, slot):
    model, *_ = make()
    hand, history = ByHand(model), [5, 9, 3, 7, 1, 2]
    task, number = ("seqrec", 0) if slot == "history" else ("fusionseqrec", 3)
    template, case = model.instructions.templates.tasks[task][number], Case(torch.tensor([8]), torch.tensor([history]), torch.tensor([6]))
    for kept in range(1, 7):
        prompt, response = hand.sequence(task, number, 8, history[-kept:])
        for spare in (0, 1):
            model.instructions.limit = len(prompt) + len(response) + spare
            ids, _, lengths = model.instructions.sequences(template, case)
            assert ids[0, : lengths[0]].tolist() == prompt + response


def test_a_prompt_that_cannot_fit_names_the_user_and_the_remedy(make):
    model, *_ = make(max_length=30)
    history, length = torch.tensor([[5, 9, 3]]), torch.tensor([3])
    with pytest.raises(
        BackboneError, match=r"user 'u\d+' and its response need \d+ tokens even with a single item .* 30 fit.*Raise max_length"
    ):
        model.item_logits(history, length, user=torch.tensor([4]))
    with pytest.raises(BackboneError, match="about the item with id 5"):
        model.read([(model.instructions.templates.tasks["item2index"][1], Case(torch.tensor([5])))])
    short, *_ = make(backbone_config={**TINY_LLAMA, "max_position_embeddings": 40})
    assert short.instructions.limit == 40


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("header"), "needs 'header'"),
        (lambda c: c["tasks"].update(sekrec=[]), "templates of 'sekrec'; the tasks are seqrec"),
        (lambda c: c["tasks"].update(seqrec=[]), "a list of templates for seqrec"),
        (lambda c: c["tasks"]["seqrec"].append({"ask": "x {titles}", "answer": "{index}"}), r"Template 3 of seqrec asks with \{titles\}"),
        (lambda c: c["tasks"]["seqrec"].append({"ask": "x", "answer": "{index}"}), "asks with no slot"),
        (lambda c: c["tasks"]["index2item"].append({"ask": "{index}", "answer": "{index}"}), "index2item asks with {index} answered by"),
        (lambda c: c["tasks"]["fusionseqrec"].append({"ask": "{history}", "answer": "{index}"}), "Template 6 of fusionseqrec"),
        (lambda c: c["tasks"]["seqrec"].append("words"), "must be {ask"),
    ],
)
def test_a_wrong_prompt_file_is_an_error(change, message):
    content = copy.deepcopy(PROMPTS)
    change(content)
    with pytest.raises(ConfigError, match=message):
        check_prompts(content)


def test_own_prompts_are_read_and_travel_with_the_checkpoint(make, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "header: Shop.\nresponse: 'Answer:'\nseparator: ;\ntasks:\n  seqrec:\n    - {ask: 'After {history} comes', answer: '{index}'}\n"
    )
    model, *_ = make(prompt_file=str(path), tasks=["seqrec"])
    assert list(pieces_of(model.prompt_texts)) == ["Shop.", "Answer:", ";", "After", " comes"]
    assert model.other_parameter()["lcrec"]["prompts"] == read_yaml(path)


# --- tasks ------------------------------------------------------------------------------------------------------------------------------


def test_tasks_without_their_texts_switch_themselves_off(folder, cache, caplog, tmp_path):
    caplog.set_level(logging.INFO)
    model, *_ = toy_model(folder, "LCRec", cache_dir=cache)
    assert model.mixture.tasks == ["seqrec", "item2index", "index2item", "fusionseqrec"]
    assert "itemsearch is off: there are no user texts (user_text_file: ~)" in caplog.text
    write_dataset(tmp_path)
    (tmp_path / "toy" / "toy.item").unlink()
    bare = {"item_text_fields": None, "tokenizer": "random", "cache_dir": str(tmp_path)}
    model, _, loaders = toy_model(tmp_path, "LCRec", **bare, user_text_file=str(tmp_path / "missing.json"))
    assert model.mixture.tasks == ["seqrec"] and "Tasks: seqrec\n" in caplog.text + "\n"
    assert "index2item is off: there is no item text" in caplog.text and "missing.json" in caplog.text
    model.calculate_loss(next(iter(loaders[0]))).backward()
    with pytest.raises(ConfigError, match="trained without index2item"):
        model.inspect_items(["i1"])


def test_samples_are_drawn_in_their_natural_proportions(make):
    model, _, loaders = make(task_weights={"index2item": 3.0, "fusionseqrec": 0.5})
    mixture, rows = model.mixture, loaders[0]._dataset.inter_feat
    targets, drawn, seen = int(rows["item_length"].sum()), dict.fromkeys(FORMS, 0), set()
    for batch in [batch for _ in range(30) for batch in loaders[0]]:
        history, length = model._history(batch)
        for task, case in mixture.draw(
            Case(batch["item_id"], history, length, user=batch["user_id"]), *model.next_items(history, length, batch["item_id"])
        ):
            drawn[task] += len(case.item)
            seen.update(case.item.tolist() if task == "item2index" else [])
    expected = {"item2index": 40, "index2item": 120, "fusionseqrec": 0.5 * targets, "itemsearch": 30, "preferenceobtain": 30}
    for task, number in expected.items():
        assert drawn[task] / 30 == pytest.approx(number, rel=0.1)
    assert seen == set(range(1, 41))


def test_draws_leave_the_random_stream_of_the_host_alone_and_follow_the_epoch(make):
    model, _, loaders = make()
    history, length, target, user = batch_of(model, loaders[0])
    state = torch.get_rng_state()
    model.on_epoch_start(3)
    first = model.loss(history, length, target, user)
    assert torch.equal(torch.get_rng_state(), state)
    second = model.loss(history, length, target, user)
    model.on_epoch_start(3)
    assert torch.equal(model.loss(history, length, target, user), first) and not torch.equal(second, first)


@pytest.mark.parametrize("rows", ["all", "windows"])
def test_no_held_out_item_is_ever_an_answer(make, folder, rows):
    """Next items of a user in training batches, of all tasks, are training items of that user; so are the items of the histories."""
    model, _, loaders = make(train_rows=rows, MAX_ITEM_LIST_LENGTH=20)
    log = {}
    for line in (folder / "toy" / "toy.inter").read_text().splitlines()[1:]:
        user, item, _ = line.split("\t")
        log.setdefault(user, []).append(item)
    names, items = loaders[0]._dataset.field2id_token["user_id"], model.item_tokens
    seen = {task: set() for task in FORMS}
    model.mixture.per_target = dict.fromkeys(model.mixture.per_target, 1.0)
    for batch in loaders[0]:
        history, length = model._history(batch)
        following, wanted = model.next_items(history, length, batch["item_id"])
        sequential = Case(batch["item_id"], history, length, user=batch["user_id"])
        places = wanted.nonzero()
        tree = Case(following[wanted], history[places[:, 0]], places[:, 1] + 1, user=batch["user_id"][places[:, 0]])
        for task, case in [("seqrec", tree), *model.mixture.draw(sequential, following, wanted)]:
            if case.user is not None:
                rows_of_case = zip(case.user.tolist(), case.history.tolist(), case.length.tolist(), case.item.tolist(), strict=True)
                seen[task] |= {(names[u], *(items[i] for i in h[:n]), items[t]) for u, h, n, t in rows_of_case}
    for task in ("seqrec", "fusionseqrec", "itemsearch", "preferenceobtain"):
        assert seen[task]
        for user, *sequence in seen[task]:
            train = log[user][:-2]
            assert any(train[start : start + len(sequence)] == sequence for start in range(len(train))), task
    every = {(user, *own[: end + 1]) for user, own in log.items() for end in range(1, len(own) - 2)}
    assert seen["seqrec"] == every, "and every training item but the first is one"
    for user, *sequence in seen["preferenceobtain"]:
        assert sequence == log[user][:-2][-len(sequence) :], "the longest training row: history without the last three of the data"


def test_new_items_take_part_only_when_asked(folder, tmp_path):
    write_dataset(tmp_path)
    with (tmp_path / "toy" / "toy.inter").open("a") as stream:
        stream.write("u0\tcold\t99\n")  # the last item of a user: never in training
    with (tmp_path / "toy" / "toy.item").open("a") as stream:
        stream.write("cold\tnew soap\tbrand9\n")
    for asked, count in ((False, 40), (True, 41)):
        model, *_ = toy_model(tmp_path, "LCRec", cache_dir=str(tmp_path), align_new_items=asked)
        assert len(model.mixture.items) == count


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ["item2index"]}, "seqrec, the task that recommends, must be there"),
        ({"tasks": ["seqrec", "itemsearsh"]}, "tasks names 'itemsearsh'"),
        ({"task_weights": {"seqrek": 1}}, "task_weights names 'seqrek'"),
        ({"task_weights": {"seqrec": 0}}, "weight above 0"),
        ({"task_weights": {"item2index": "much"}}, "weights are numbers"),
        ({"test_prompt_ids": 3}, "test_prompt_ids is 3; it must be a list"),
        ({"test_prompt_ids": "all", "save_ranks": True}, "save_ranks stores one rank a user"),
    ],
)
def test_settings_that_cannot_work(folder, changes, message):
    with pytest.raises(ConfigError, match=message):
        toy_config(folder, "LCRec", **changes)


def test_user_texts_that_cannot_be_read(make, tmp_path):
    path = tmp_path / "users.json"
    for content, message in (("{", "cannot be read as JSON"), ("[]", "one object"), ('{"u1": {"query": "x"}}', "user 'u1' needs"),
                             ('{"zz": {"query": "x", "preference": "y"}}', "names no user")):  # fmt: skip
        path.write_text(content)
        with pytest.raises(DataError, match=message):
            make(user_text_file=str(path))


def test_a_tokenizer_without_an_end_token_is_an_error(make):
    tokenizer = copy.deepcopy(make()[0].text_tokenizer)
    tokenizer.eos_token = None
    with pytest.raises(BackboneError, match="no end token"):
        Templates(PROMPTS, tokenizer)
    tokenizer.eos_token = tokenizer.bos_token = "<sep>"
    piece = Templates(PROMPTS, tokenizer).tasks["seqrec"][0].pieces[0]
    assert piece[0] == tokenizer.bos_token_id, "models with a start token get it"


# --- loss -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_targets_that_share_their_history_learn_as_separate_samples_do(make, family):
    """Loss and gradients of a row with many targets are those of one sample for each target."""
    model, _, loaders = make(backbone_config=FAMILIES[family], tasks=["seqrec"])
    history, length, target, _ = batch_of(model, loaders[0])
    history, length, target = history[:5], length[:5], target[:5]
    following, wanted = model.next_items(history, length, target)
    template, case = model.instructions.templates.tasks["seqrec"][0], Case(target, history, length)
    together = model.token_loss([model.read_tree(template, case, following, wanted)])
    together.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    row, slot = wanted.nonzero().unbind(1)
    apart = model.token_loss(model.read([(template, Case(following[row, slot], history[row], slot + 1))]))
    apart.backward()
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)
    for name, p in model.named_parameters():
        torch.testing.assert_close(gradients[name], p.grad, atol=2e-5, rtol=1e-3, msg=name)


def test_a_shared_history_that_is_too_long_drops_the_same_items_and_their_targets(make):
    model, *_ = make(tasks=["seqrec"])
    template = model.instructions.templates.tasks["seqrec"][0]
    history, length = torch.tensor([[5, 9, 3, 7]]), torch.tensor([4])
    prompt, response = ByHand(model).sequence("seqrec", 0, 8, [3, 7])
    model.instructions.limit = len(prompt) + len(response)
    following, wanted = model.next_items(history, length, torch.tensor([8]))
    states, labels, _ = model.read_tree(template, Case(torch.tensor([8]), history, length), following, wanted)
    expected = [(7, [3]), (8, [3, 7])]
    assert labels.tolist() == [token for item, shown in expected for token in ByHand(model).sequence("seqrec", 0, item, shown)[1]]
    cases = [Case(torch.tensor([item]), torch.tensor([shown]), torch.tensor([len(shown)])) for item, shown in expected]
    alone = torch.cat([model.read([(template, case)])[0][0] for case in cases])
    torch.testing.assert_close(states, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("vocabulary", ["full", "sid"])
def test_the_loss_is_the_mean_over_all_response_tokens(make, vocabulary):
    model, _, loaders = make(backbone_config=FAMILIES["untied"], sid_loss_vocab=vocabulary, temperature=0.7)
    hand, total, count = ByHand(model), 0.0, 0
    head, end = model.backbone.lm.lm_head.weight, model.instructions.templates.end
    read = []
    for task, case in cases_of(model, loaders).items():
        template = model.instructions.templates.tasks[task][0]
        read += model.read([(template, case)])
        for row, item in enumerate(case.item.tolist()):
            history = [] if case.history is None else case.history[row, : case.length[row]].tolist()
            prompt, response = hand.sequence(task, 0, item, history, None if case.person is None else int(case.person[row]))
            ids = torch.tensor([prompt + response])
            states = model.backbone.lm.model(inputs_embeds=model._embed(ids)).last_hidden_state[0, len(prompt) - 1 : -1]
            logits = torch.cat([states @ head.T, states @ model.vocabulary.classifier.T], dim=-1) / 0.7
            if vocabulary == "sid" and template.answer == "index":
                others = torch.arange(logits.shape[1])
                logits[:, (others < model.n_text) & (others != end)] = -torch.inf
            total = total - logits.log_softmax(-1)[torch.arange(len(response)), response].sum()
            count += len(response)
    torch.testing.assert_close(model.token_loss(read), total / count, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", ["tied", "untied"])
def test_new_rows_start_near_the_mean_of_known_words_and_every_parameter_learns(make, family, tmp_path):
    lm, tokenizer = load_causal_lm("scratch", FAMILIES[family], list(pieces_of(PROMPTS)), 400)
    lm.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    model, _, loaders = make(backbone=str(tmp_path / "lm"))
    inputs, outputs = model.backbone.text_table.weight, model.backbone.lm.get_output_embeddings().weight
    assert (model.vocabulary.classifier is model.vocabulary.embedding) == (inputs is outputs) == (family == "tied")
    for table, rows in ((model.vocabulary.embedding, inputs), (model.vocabulary.classifier, outputs)):
        noise = (table - rows.mean(0)) / rows.std(0)
        assert noise.std().item() == pytest.approx(0.02, rel=0.1) and noise.abs().max() < 0.1
    scratch, *_ = make(backbone_config=FAMILIES[family])
    assert scratch.vocabulary.embedding.std().item() == pytest.approx(0.2, rel=0.05), "random among random words"
    model.loss(*batch_of(model, loaders[0])).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()]


# --- search -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("changes", [{"score_type": "joint"}, {"score_type": "joint", "sid_loss_vocab": "sid"}, {"score_type": "level"}])
@torch.no_grad()
def test_scores_of_returned_items_equal_plain_passes_over_prompt_and_codes(make, family, changes):
    model, _, loaders = make(backbone_config=FAMILIES[family], infer_temperature=0.9, tasks=["seqrec"], **changes)
    hand, end = ByHand(model), model.instructions.templates.end
    history, length, *_ = batch_of(model, (batch[0] for batch in loaders[2]))
    history, length = history[:4], length[:4]
    result = model.search(history, length, k=10)
    head = model.backbone.lm.get_output_embeddings().weight
    for row in range(4):
        prompt, _ = hand.sequence("seqrec", 0, 1, history[row, : length[row]].tolist())
        for item, score in zip(result.items[row].tolist(), result.scores[row].tolist(), strict=True):
            codes = hand.codes(item)
            states = model.backbone.lm.base_model(inputs_embeds=model._embed(torch.tensor([prompt + codes]))).last_hidden_state
            states = states[0, len(prompt) - 1 : -1]
            logits = torch.cat([states @ head.T, states @ model.vocabulary.classifier.T], dim=-1) / 0.9
            others, expected = torch.arange(logits.shape[1]), 0.0
            for level, code in enumerate(codes):
                first = model.n_text + model.vocabulary.offsets[level]
                allowed = (others >= first) & (others < first + model.level_sizes[level])
                if changes["score_type"] == "joint":
                    allowed = (others >= model.n_text) | (others == end) | (model.config["sid_loss_vocab"] == "full")
                expected += float(logits[level].masked_fill(~allowed, -torch.inf).log_softmax(-1)[code])
            assert score == pytest.approx(expected, abs=1e-4)


def test_training_and_search_see_the_same_probabilities(make):
    model, *_ = make(score_type="joint", temperature=0.7, infer_temperature="match", tasks=["seqrec"], train_rows="all")
    history, length, target = torch.tensor([[5, 9], [3, 4]]), torch.tensor([2, 2]), torch.tensor([7, 8])
    (states, labels, _), levels = model.read([(model.instructions.templates.tasks["seqrec"][0], Case(target, history, length))])[0], 3
    codes = labels != model.instructions.templates.end
    log_probs = (model.outputs(states, False) / 0.7).log_softmax(-1)[codes, labels[codes]].view(2, levels).sum(1)
    scores = path_scores(model.item_logits(history, length), model.trie, target.unsqueeze(1), score_type="joint")
    torch.testing.assert_close(scores.squeeze(1), log_probs, atol=1e-5, rtol=0)


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


def test_several_templates_are_tested_one_by_one(make, folder, cache, tmp_path):
    settings = {**TINY_OF["LCRec"], "data_path": str(folder), "cache_dir": cache, "epochs": 1, "tasks": ["seqrec"]}
    result = run_recbole_genrec("LCRec", "toy", config_dict={**settings, "test_prompt_ids": "all"})
    each = result["test_variants"]
    assert list(each) == ["prompt 0", "prompt 1", "prompt 2"]
    for metric, mean in result["test_result"].items():
        assert mean == pytest.approx(sum(values[metric] for values in each.values()) / 3)
    model, *_ = make(test_prompt_ids=[2, 1])
    seen = [(name, model.item_logits(torch.tensor([[5, 9]]), torch.tensor([2])).root) for name in model.test_variants()]
    assert [name for name, _ in seen] == ["prompt 2", "prompt 1"] and not torch.allclose(seen[0][1], seen[1][1])
    with pytest.raises(ConfigError, match="seqrec has templates 0 to 2"):
        make(test_prompt_ids=[7])


# --- what it learns ---------------------------------------------------------------------------------------------------------------------


def test_it_learns_a_rule_and_can_say_what_an_item_is(tmp_path, capsys):
    """50 users walk a ring: Recall@1 on their training windows is 1; titles come back from the codes alone, also on the command line."""
    rows = [f"u{user}\ti{(user + step) % 10}\t{step}" for user in range(50) for step in range(7)]
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "toy.inter").write_text("\n".join(["user_id:token\titem_id:token\ttimestamp:float", *rows]) + "\n")
    words = ["red", "green", "blue", "dry", "cold", "sweet", "dark", "light", "soft", "old"]
    items = [f"i{n}\t{word} thing\tb" for n, word in enumerate(words)]
    (tmp_path / "toy" / "toy.item").write_text("\n".join(["item_id:token\ttitle:token_seq\tbrand:token", *items]) + "\n")
    (tmp_path / "short.yaml").write_text(
        "header: Task.\nresponse: 'Answer:'\nseparator: ;\ntasks:\n  seqrec:\n    - {ask: 'After {history}', answer: '{index}'}\n"
        "  index2item:\n    - {ask: 'Name {index}', answer: '{title}'}\n"
    )
    settings = {"codebook_sizes": [4, 4], "tasks": ["seqrec", "index2item"], "task_weights": {"index2item": 12.0}}
    settings |= {"prompt_file": str(tmp_path / "short.yaml"), "backbone_config": {**TINY_LLAMA, "initializer_range": 0.1}}
    torch.manual_seed(0)
    model, _, (train, *_) = toy_model(tmp_path, "LCRec", cache_dir=str(tmp_path), train_batch_size=50, **settings)
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
    assert [row["generated"] for row in told] == [row["text"] for row in told] == [f"{word} thing" for word in words]
    capsys.readouterr()
    assert main(["inspect", "--checkpoint=ring.pth", "--item=i3, i7"]) == 0
    assert capsys.readouterr().out.count("generated: dry thing") == 1
    assert main(["inspect", "--checkpoint=ring.pth", "--item=nothing"]) == 2


# --- LETTER and tuning ------------------------------------------------------------------------------------------------------------------


def test_it_is_a_generator_of_tiger_and_letter(folder):
    settings = {"data_path": str(folder), "gpu_id": "", "item_text_fields": ["title"], "generator": "lcrec"}
    letter = GenRecConfig("LETTER", "toy", config_dict={**settings, "LETTER.temperature": 0.7})
    assert (letter["model"], letter["tokenizer"], letter["tasks"], letter["temperature"]) == ("LCRec", "letter", ["seqrec"], 0.7)
    tiger = GenRecConfig("TIGER", "toy", config_dict=settings)
    assert (tiger["model"], tiger["tokenizer"], len(tiger["tasks"])) == ("LCRec", "rkmeans", 6)
    paper = GenRecConfig("LETTER", "toy", config_dict={**settings, "preset": "paper"})
    assert (paper["tuning"], paper["learning_rate"], paper["tokenizer"], paper["constraint"]) == ("lora", 1e-4, "letter", "level")


def test_letters_codes_train_and_recommend(folder, tmp_path):
    settings = {**TINY_OF["LCRec"], "data_path": str(folder), "cache_dir": str(tmp_path), "generator": "lcrec", "temperature": 0.7}
    settings |= {"tokenizer_epochs": 2, "cf_dim": 8, "code_dim": 8, "cf_epochs": 1}
    result = run_recbole_genrec("LETTER", "toy", config_dict=settings)
    assert result["model"] == "LCRec" and result["config"]["tokenizer"] == "letter"
    _, model, *_ = load_data_and_model(result["checkpoint"])
    assert model.mixture.tasks == ["seqrec"] and len(model.recommend(["i1", "i2"], k=5)) == 5


def test_lora_trains_adapter_and_code_rows_and_reloads_from_the_checkpoint(folder, cache, tmp_path):
    lm, tokenizer = load_causal_lm("scratch", LLAMA, ["red soap no 1", *pieces_of(PROMPTS)], 400)
    lm.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    settings = {**TINY_OF["LCRec"], "data_path": str(folder), "cache_dir": cache, "backbone": str(tmp_path / "lm"), "tuning": "lora"}
    result = run_recbole_genrec("LCRec", "toy", config_dict={**settings, "lora_rank": 2, "epochs": 1})
    _, model, _, train, _, test = load_data_and_model(result["checkpoint"])
    scores = model.full_sort_predict(next(iter(test))[0])
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if "lora_" in name or name.startswith("vocabulary.")}
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimiser = torch.optim.AdamW(model.parameter_groups(), lr=1e-2)
    model.loss(*batch_of(model, train)).backward()
    optimiser.step()
    assert {name for name, p in model.named_parameters() if not torch.equal(p, before[name])} == trained
    again = load_data_and_model(result["checkpoint"])[1]
    assert torch.equal(again.full_sort_predict(next(iter(test))[0]), scores)
    lm.get_input_embeddings().weight.data.add_(1)
    lm.save_pretrained(tmp_path / "lm")
    with pytest.raises(ArtefactError, match="other weights"):
        load_data_and_model(result["checkpoint"])


def test_new_items_get_codes_and_titles(make):
    model, *_ = make(beam_width=64)
    model.add_items(["title: sweet cream no 77, brand: brand1", "new thing"], ["n77", "n78"])
    template = model.instructions.templates.tasks["fusionseqrec"][3]
    case = Case(torch.tensor([42]), torch.tensor([[5, 41]]), torch.tensor([2]))
    ids, _, lengths = model.instructions.sequences(template, case)
    assert "sweet cream no 77" in model.text_tokenizer.decode(ids[0, : lengths[0]][ids[0, : lengths[0]] < model.n_text])
    assert {row["item"] for row in model.recommend(["i1", "n77"], k=3, candidates=["n78", "i3", "i4"])} == {"n78", "i3", "i4"}
