"""LCRec's prompts, labels and tasks, by hand from texts and the code table alone.

Also what the tasks may see.
"""

from __future__ import annotations

import copy
import logging

import pytest
import torch
from lcrec import PROMPTS, ByHand, batch_of, cases_of, maker, shown, write_data
from toy import TINY_LLAMA, toy_config, toy_model, write_dataset

from recbole_genrec.errors import BackboneError, ConfigError, DataError
from recbole_genrec.model.lcrec.cases import Case, HistoryCase, TargetsCase
from recbole_genrec.model.lcrec.templates import FORMS, Templates, check_prompts, pieces_of
from recbole_genrec.runtime import processes
from recbole_genrec.settings.parsing import read_yaml


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def make(folder, tmp_path_factory):
    return maker(folder, tmp_path_factory.mktemp("cache"))


# --- templates and prompts ------------------------------------------------------------------------


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
                history = shown(case, row)
                person = None if case.person is None else int(case.person[row])
                prompt, response = hand.sequence(task, number, item, history, person)
                assert ids[row, : lengths[row]].tolist() == prompt + response
                assert labels[row].tolist() == [-100] * len(prompt) + response + [-100] * (
                    ids.shape[1] - lengths[row]
                )
            if template.answer == "index":
                prompts, lengths = model.instructions.prompts(
                    template, case, len(model.level_sizes) + 1
                )
                assert (
                    prompts[0, : lengths[0]].tolist()
                    == ids[0][labels[0] == -100][: lengths[0]].tolist()
                )


def test_padding_ids_change_nothing(make):
    model, _, loaders = make()
    case = cases_of(model, loaders)["fusionseqrec"]
    template = model.instructions.templates.tasks["fusionseqrec"][0]
    loss = model.responses.loss(model.responses.read([(template, case)]))
    noise = torch.where(
        torch.arange(case.history.shape[1]) < case.length.unsqueeze(1), case.history, 7
    )
    again = model.responses.loss(
        model.responses.read([(template, HistoryCase(case.item, noise, case.length))])
    )
    assert torch.equal(loss, again)


def test_every_code_is_one_token_and_decodes_to_itself(make):
    model, *_ = make()
    ids = model._code_ids(torch.arange(1, model.n_items))
    first = model.text_and_codes.n_text + torch.tensor(model.vocabulary.first)
    assert torch.equal(ids - first, model.codes[1:])
    every = torch.cat(
        [
            torch.arange(size) + offset
            for size, offset in zip(model.level_sizes, model.vocabulary.first, strict=True)
        ]
    )
    assert every.tolist() == list(range(len(model.vocabulary.embedding))), (
        "all codes of all levels, each its own id"
    )
    own = "".join(
        f"<{letter}_{code}>" for letter, code in zip("abc", model.codes[2].tolist(), strict=False)
    )
    assert model.code_words(2) == own


def test_a_swapped_code_table_changes_the_next_prompt(make):
    model, *_ = make()
    template, case = (
        model.instructions.templates.tasks["seqrec"][0],
        HistoryCase(torch.tensor([5]), torch.tensor([[3, 9]]), torch.tensor([2])),
    )
    before, _ = model.instructions.prompts(template, case, 4)
    model.codes[[3, 9]] = model.codes[[9, 3]]
    after, _ = model.instructions.prompts(template, case, 4)
    swapped, _ = model.instructions.prompts(
        template, HistoryCase(case.item, torch.tensor([[9, 3]]), case.length), 4
    )
    assert not torch.equal(before, after) and torch.equal(before, swapped)


@pytest.mark.parametrize("slot", ["history", "titles"])
def test_a_long_history_loses_its_oldest_items_whole(make, slot):
    model, *_ = make()
    hand, history = ByHand(model), [5, 9, 3, 7, 1, 2]
    task, number = ("seqrec", 0) if slot == "history" else ("fusionseqrec", 3)
    template, case = (
        model.instructions.templates.tasks[task][number],
        HistoryCase(torch.tensor([8]), torch.tensor([history]), torch.tensor([6])),
    )
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
        BackboneError,
        match=r"user 'u\d+' and its response need \d+ tokens even with a single item .* 30 fit.*"
        r"Raise max_length",
    ):
        model.item_logits(history, length, user=torch.tensor([4]))
    with pytest.raises(BackboneError, match="about the item with id 5"):
        model.responses.read(
            [(model.instructions.templates.tasks["item2index"][1], Case(torch.tensor([5])))]
        )
    short, *_ = make(backbone_config={**TINY_LLAMA, "max_position_embeddings": 40})
    assert short.instructions.limit == 40


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("header"), "needs 'header'"),
        (lambda c: c["tasks"].update(sekrec=[]), "templates of 'sekrec'; the tasks are seqrec"),
        (lambda c: c["tasks"].update(seqrec=[]), "a list of templates for seqrec"),
        (
            lambda c: c["tasks"]["seqrec"].append({"ask": "x {titles}", "answer": "{index}"}),
            r"Template 3 of seqrec asks with \{titles\}",
        ),
        (
            lambda c: c["tasks"]["seqrec"].append({"ask": "x", "answer": "{index}"}),
            "asks with no slot",
        ),
        (
            lambda c: c["tasks"]["index2item"].append({"ask": "{index}", "answer": "{index}"}),
            "index2item asks with {index} answered by",
        ),
        (
            lambda c: c["tasks"]["fusionseqrec"].append({"ask": "{history}", "answer": "{index}"}),
            "Template 6 of fusionseqrec",
        ),
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
        "header: Shop.\nresponse: 'Answer:'\nseparator: ;\ntasks:\n  seqrec:\n"
        "    - {ask: 'After {history} comes', answer: '{index}'}\n"
    )
    model, *_ = make(prompt_file=str(path), tasks=["seqrec"])
    assert list(pieces_of(model.prompt_texts)) == ["Shop.", "Answer:", ";", "After", " comes"]
    assert model.other_parameter()["lcrec"]["prompts"] == read_yaml(path)
    with pytest.raises(ConfigError, match="no templates for item2index"):
        make(prompt_file=str(path), tasks=["seqrec", "item2index"])


# --- tasks ----------------------------------------------------------------------------------------


def test_tasks_without_their_texts_switch_themselves_off(folder, caplog, tmp_path):
    caplog.set_level(logging.INFO)
    model, *_ = toy_model(folder, "LCRec", cache_dir=str(tmp_path))
    assert model.mixture.tasks == ["seqrec", "item2index", "index2item", "fusionseqrec"]
    assert "itemsearch is off: there are no user texts (user_text_file: ~)" in caplog.text
    write_dataset(tmp_path)
    (tmp_path / "toy" / "toy.item").unlink()
    bare = {"item_text_fields": None, "tokenizer": "random", "cache_dir": str(tmp_path)}
    model, _, loaders = toy_model(
        tmp_path, "LCRec", **bare, user_text_file=str(tmp_path / "missing.json")
    )
    assert model.mixture.tasks == ["seqrec"] and "Tasks: seqrec\n" in caplog.text + "\n"
    assert (
        "index2item is off: there is no item text" in caplog.text and "missing.json" in caplog.text
    )
    model.calculate_loss(next(iter(loaders[0]))).backward()
    with pytest.raises(ConfigError, match="trained without index2item"):
        model.inspect_items(["i1"])


def test_samples_are_drawn_in_their_natural_proportions(make):
    model, _, loaders = make(task_weights={"index2item": 3.0, "fusionseqrec": 0.5})
    mixture, rows = model.mixture, loaders[0]._dataset.inter_feat
    targets, asked, drawn, seen = int(rows["item_length"].sum()), 0, dict.fromkeys(FORMS, 0), set()
    for batch in [batch for _ in range(30) for batch in loaders[0]]:
        history, length = model._history(batch)
        following, wanted = model.next_items(history, length, batch["item_id"])
        asked += int(wanted.sum())
        for task, case in mixture.draw(
            TargetsCase(batch["item_id"], history, length, following, wanted, user=batch["user_id"])
        ):
            drawn[task] += len(case.item)
            seen.update(case.item.tolist() if task == "item2index" else [])
    expected = {
        "item2index": 40,
        "index2item": 120,
        "fusionseqrec": 0.15 * 0.5 * targets,
        "itemsearch": 30,
        "preferenceobtain": 30,
    }
    for task, number in expected.items():
        assert drawn[task] * targets / asked == pytest.approx(
            number, rel=0.1
        )  # beside one sample of seqrec for every target
    assert seen == set(range(1, 41))


@pytest.mark.parametrize("rows", ["all", "windows"])
def test_each_sample_draws_its_own_template(make, rows, monkeypatch):
    model, _, loaders = make(train_rows=rows)
    asked, batches = model.samples, []

    def watch(task, case):
        drawn = asked(task, case)
        assert sorted(item for _, part in drawn for item in part.item.tolist()) == sorted(
            case.item.tolist()
        ), "none lost, none twice"
        batches.append((task, {id(template): len(part.item) for template, part in drawn}))
        return drawn

    monkeypatch.setattr(model, "samples", watch)
    for batch in [batch for _ in range(15) for batch in loaders[0]]:
        model.calculate_loss(batch)
    large = [counts for task, counts in batches if task == "seqrec" and sum(counts.values()) > 10]
    assert large and all(len(counts) > 1 for counts in large), "a batch mixes them"
    for task in FORMS:
        drawn = [counts for name, counts in batches if name == task]
        counts = [
            sum(part.get(id(template), 0) for part in drawn)
            for template in model.instructions.templates.tasks[task]
        ]
        assert min(counts) > 0.6 * sum(counts) / len(counts), (task, counts)


def test_draws_leave_the_random_stream_of_the_host_alone_and_follow_the_epoch(make):
    model, _, loaders = make()
    history, length, target, user = batch_of(model, loaders[0])
    state = torch.get_rng_state()
    model.on_epoch_start(3)
    first = model.loss(history, length, target, user)
    assert torch.equal(torch.get_rng_state(), state)
    second = model.loss(history, length, target, user)
    model.on_epoch_start(3)
    assert torch.equal(model.loss(history, length, target, user), first) and not torch.equal(
        second, first
    )


@pytest.mark.parametrize("rows", ["all", "windows"])
def test_processes_share_the_samples_that_one_draws(make, rows, monkeypatch):
    """Two processes draw for the whole batch and take theirs; their streams stay the same."""
    model, _, loaders = make(train_rows=rows)
    mixture = model.mixture
    mixture.per_target = dict.fromkeys(mixture.per_target, 0.7)
    history, length, target, user = batch_of(model, loaders[0])
    following, wanted = model.next_items(history, length, target)
    whole = TargetsCase(target, history, length, following, wanted, user=user)

    def drawn(batch):
        mixture.start_epoch(0)
        cases = mixture.draw(batch)
        return cases, mixture.numbers(50, len(batch.item)), mixture.generator.get_state()

    alone, numbers, state = drawn(whole)
    values = [value.long() for value in vars(whole).values() if value is not None]
    shared = dict.fromkeys(dict(alone), ())
    for rank in range(2):
        gathered = iter([torch.cat([value[0::2], value[1::2]]) for value in values])
        monkeypatch.setattr(processes, "size", lambda: 2)
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(processes, "largest", lambda widths: [history.shape[1]])
        monkeypatch.setattr(processes, "gathered", lambda _, rows=gathered: next(rows))
        monkeypatch.setattr(processes, "summed", lambda _: [float(len(target))])
        own = torch.arange(rank, len(target), 2)
        cases, own_numbers, own_state = drawn(whole.pick(own, target.device))
        assert torch.equal(own_numbers, numbers[own]) and torch.equal(own_state, state)
        for task, case in cases:
            shared[task] = (*shared[task], case)
    assert "fusionseqrec" in shared
    for task, case in alone:
        for rank, part in enumerate(shared[task]):
            for name, value in vars(part).items():
                if value is not None:
                    assert torch.equal(value, getattr(case, name)[rank::2]), (task, name)
        assert sum(len(part.item) for part in shared[task]) == len(case.item)


@pytest.mark.parametrize("rows", ["all", "windows"])
def test_no_held_out_item_is_ever_an_answer(make, folder, rows):
    """All tasks see training items of a user alone: as next items and in the histories."""
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
        sequential = TargetsCase(
            batch["item_id"], history, length, following, wanted, user=batch["user_id"]
        )
        places = wanted.nonzero()
        tree = HistoryCase(
            following[wanted],
            history[places[:, 0]],
            places[:, 1] + 1,
            user=batch["user_id"][places[:, 0]],
        )
        for task, case in [("seqrec", tree), *model.mixture.draw(sequential)]:
            if case.user is not None:
                rows_of_case = zip(
                    case.user.tolist(),
                    case.history.tolist(),
                    case.length.tolist(),
                    case.item.tolist(),
                    strict=True,
                )
                seen[task] |= {
                    (names[u], *(items[i] for i in h[:n]), items[t]) for u, h, n, t in rows_of_case
                }
    for task in ("seqrec", "fusionseqrec", "itemsearch", "preferenceobtain"):
        assert seen[task]
        for user, *sequence in seen[task]:
            train = log[user][:-2]
            assert any(
                train[start : start + len(sequence)] == sequence for start in range(len(train))
            ), task
    every = {(user, *own[: end + 1]) for user, own in log.items() for end in range(1, len(own) - 2)}
    assert seen["seqrec"] == every, "and every training item but the first is one"
    for user, *sequence in seen["preferenceobtain"]:
        assert sequence == log[user][:-2][-len(sequence) :], (
            "the longest training row: history without the last three of the data"
        )


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
    faults = {
        "{": "cannot be read as JSON",
        "[]": "one object",
        '{"u1": {"query": "x"}}': "user 'u1' needs",
        '{"zz": {"query": "x", "preference": "y"}}': "names no user",
    }
    for content, message in faults.items():
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
