"""exclude_history_in_training: what it takes from the loss of each method, by the probabilities
that the search reads.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cross_entropy
from toy import TINY_OF, toy_config, toy_model, write_dataset

from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.model.setrec.losses import generation_loss, sampled_generation_loss

KEY = "exclude_history_in_training"
TRIE = {"loss_vocab": "trie", "score_type": "renormalised"}
LCREC = {"tasks": ["seqrec"], "score_type": "joint"}
LCREC_SID = {**LCREC, "sid_loss_vocab": "sid", "temperature": 0.7, "infer_temperature": "match"}
NO_ALIGN = {"lambda_align": 0}

METHODS = {
    "timeline-level": ("TimelineRec", {"loss_vocab": "level", "score_type": "level"}),
    "timeline-trie": ("TimelineRec", TRIE),
    "timeline-all": ("TimelineRec", {**TRIE, "train_rows": "all"}),
    "tiger-full": ("TIGER", {"loss_vocab": "full", "score_type": "joint"}),
    "tiger-trie": ("TIGER", {**TRIE, "use_eos": True}),
    "letter": ("LETTER", {"score_type": "joint", "temperature": 0.7, "infer_temperature": "match"}),
    "store-full": ("STORE", {**NO_ALIGN, "loss_vocab": "full", "score_type": "joint"}),
    "store-trie": ("STORE", {**NO_ALIGN, **TRIE}),
    "store-target": (
        "STORE",
        {**NO_ALIGN, "loss_positions": "target", "score_type": "joint", "train_rows": "all"},
    ),
    "lcrec-all": ("LCRec", {**LCREC, "train_rows": "all"}),
    "lcrec-windows": ("LCRec", {**LCREC, "train_rows": "windows"}),
    "lcrec-sid": ("LCRec", {**LCREC_SID, "train_rows": "windows"}),
    "lcrec-trie": (
        "LCRec",
        {
            **LCREC,
            "sid_loss_vocab": "trie",
            "score_type": "renormalised",
            "train_rows": "windows",
        },
    ),
    "metaid": ("MetaID", {"score_type": "joint", "direct_weight": 0}),
    "lmindexer-trie": ("LMIndexer", TRIE),
}
EVERY_POSITION = {
    "timeline-level",
    "timeline-trie",
    "store-full",
    "store-trie",
    "lcrec-windows",
    "lcrec-sid",
    "lcrec-trie",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


def make(folder, method, **changes):
    values = {"cache_dir": str(folder / "cache"), "trie_budget_mb": 1, **changes}
    model, config, loaders = toy_model(folder, method, **values)
    if method == "LCRec":
        tasks = model.instructions.templates.tasks
        tasks["seqrec"] = tasks["seqrec"][:1]
    return model.eval(), config


def closing_rows(model):
    """Rows whose histories hold all items below some codes, and one target that is bought again."""
    codes = model.codes[1:]
    first = codes[:, 0]
    counts = first.bincount()
    rare = int(counts.masked_fill(counts == 0, 999).argmin())
    below = (1 + (first == rare).nonzero().flatten()).tolist()[:5]
    others = (1 + (first != rare).nonzero().flatten()).tolist()
    siblings = [n for n in others if first[n - 1] == first[others[0] - 1]]
    rows = [
        [*below, others[3]],
        [others[4], *below, others[4]],
        siblings[:6] if len(siblings) > 1 else others[:3],
        [others[7]],
    ]
    targets = [others[0], others[4], siblings[-1], below[0]]
    width = max(map(len, rows))
    history = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    return history, torch.tensor([len(row) for row in rows]), torch.tensor(targets)


def loss_of(model, config, on, batch):
    config[KEY] = on
    torch.manual_seed(0)
    user = {"user": torch.tensor([4, 8, 15, 16])} if model.uses_users else {}
    with torch.no_grad():
        loss = model.loss(*batch, **user)
    config[KEY] = False
    return float(sum(loss) if isinstance(loss, tuple) else loss)


def pairs_of(batch, every_position):
    """Each history with the item after it."""
    for row, length, target in zip(*(part.tolist() for part in batch), strict=True):
        sequence = [*row[:length], target]
        ends = range(1, len(sequence)) if every_position else [length]
        for end in ends:
            yield sequence[:end], sequence[end]


def closed_levels(codes, item, history):
    """For each level the codes that lead to items of the history only; plain Python."""
    left_out = set(history) - {item}
    for level in range(len(codes[item])):
        below = {}
        for number in range(1, len(codes)):
            if codes[number][:level] == codes[item][:level]:
                below.setdefault(codes[number][level], set()).add(number)
        yield set(below), {code for code, items in below.items() if items <= left_out}


@torch.no_grad()
def freed(model, item, history, user, only_legal):
    """The sum over levels of ``log(1 - probability of the codes that leave)``, and how many left.

    The probabilities are those of the search, one user and one code at a time.
    """
    items, length = torch.tensor([history]), torch.tensor([len(history)])
    users = {"user": torch.tensor([user])} if model.uses_users else {}
    decoder = model.item_logits(items, length, **users)
    codes = model.codes.tolist()
    zero = torch.zeros(1, 1, dtype=torch.long)
    values, total, count = decoder.start(), 0.0, 0
    for level, (legal, closed) in enumerate(closed_levels(codes, item, history)):
        logp = values[0, 0].double()
        if only_legal:
            mask = torch.full_like(logp, -math.inf)
            mask[list(legal)] = 0
            logp = (logp + mask).log_softmax(0)
        share = float(logp[list(closed)].exp().sum())
        total += math.log1p(-share)
        count += len(closed)
        if level + 1 < len(codes[item]):
            values = decoder.step(zero + codes[item][level], zero)
    return total, count


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_falls_by_what_the_closed_codes_held(folder, name):
    method, changes = METHODS[name]
    model, config = make(folder, method, **changes)
    batch = closing_rows(model)
    every_position = name in EVERY_POSITION
    only_legal = "trie" in (changes.get("loss_vocab"), changes.get("sid_loss_vocab"))

    totals, n_closed = [], 0
    for row, (history, item) in enumerate(pairs_of(batch, every_position)):
        user = [4, 8, 15, 16][row] if not every_position else 4
        total, count = freed(model, item, history, user, only_legal)
        totals.append(total)
        n_closed += count
    assert n_closed > 1, "the rows close codes"

    n_terms = len(totals)
    if name.startswith("store") and every_position:
        n_terms += len(batch[0])  # the first item of a row is a target too, after no history
    adds_codes_up = name.startswith("timeline") or changes.get("loss_vocab") == "trie"
    if adds_codes_up:
        expected = sum(totals) / n_terms
    else:
        n_tokens = model.codes.shape[1]
        if method in ("LCRec", "MetaID") or getattr(model.vocabulary, "eos", None) is not None:
            n_tokens += 1  # the end token
        expected = sum(totals) / (n_terms * n_tokens)
    difference = loss_of(model, config, True, batch) - loss_of(model, config, False, batch)
    assert difference < -1e-4
    assert difference == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("loss_vocab", ["full", "codes"])
def test_lmindexers_codes_leave_beside_its_words(folder, loss_vocab):
    model, config = make(folder, "LMIndexer", loss_vocab=loss_vocab, score_type="joint")
    history, length, target = closing_rows(model)
    with torch.no_grad():
        memory = model._memory(*model.source(history, length))
        states, labels = model.teach(memory, target)
        words = model._word_logits(states)
        logits = torch.cat([words, model.vocabulary.logits(states)], -1)
    n_words = words.shape[-1]
    codes = model.codes.tolist()
    for row, item in enumerate(target.tolist()):
        levels = closed_levels(codes, item, history[row].tolist())
        for level, (_, closed) in enumerate(levels):
            for code in closed:
                logits[row, level, n_words + model.vocabulary.first[level] + code] = -math.inf
    if loss_vocab == "codes":
        labels = torch.where(labels == model.end, 0, labels - model.text_and_codes.n_text + 1)
    expected = cross_entropy(logits.flatten(0, 1), labels.flatten())
    batch = (history, length, target)
    assert loss_of(model, config, True, batch) == pytest.approx(float(expected), abs=1e-5)
    assert loss_of(model, config, False, batch) > float(expected) + 1e-4


def test_metaids_second_task_leaves_them_out_too(folder):
    model, config = make(folder, "MetaID", score_type="joint", direct_weight=1.0)
    batch = closing_rows(model)
    user = torch.tensor([4, 8, 15, 16])
    with torch.no_grad():
        before = model.loss(*batch, user=user)
        config[KEY] = True
        after = model.loss(*batch, user=user)
    assert all(new < old - 1e-4 for old, new in zip(before, after, strict=True))


# --- softmax over items ---------------------------------------------------------------------------


def test_setrecs_items_of_the_history_do_not_compete(folder):
    model, config = make(folder, "SETRec")
    history = torch.tensor([[5, 9, 3, 0], [7, 8, 7, 2]])
    length, target = torch.tensor([3, 4]), torch.tensor([8, 7])
    with torch.no_grad():
        tokens = model.all_tokens()
        states = model.read(tokens, history, length)
        losses = []
        for row, left_out in enumerate([{5, 9, 3}, {8, 2}]):
            items = [n for n in range(1, model.n_items) if n not in left_out]
            for query in range(states.shape[1]):
                scores = tokens[items, query] @ states[row, query]
                place = torch.tensor(items.index(int(target[row])))
                losses.append(cross_entropy(scores, place))
        config[KEY] = True
        generation, _ = model.loss(history, length, target)
    torch.testing.assert_close(generation, torch.stack(losses).mean(), atol=1e-5, rtol=1e-5)


def test_a_sampled_softmax_of_all_items_is_the_full_one_without_the_history():
    """Every item drawn as often: the estimate is exact."""
    torch.manual_seed(0)
    n_items, width = 12, 4
    states, tokens = torch.randn(2, 3, width), torch.randn(n_items + 1, 3, width)
    target, excluded = torch.tensor([4, 7]), torch.tensor([[2, 2, 9], [0, 1, 0]])
    negatives = torch.arange(1, n_items + 1).repeat(3)
    sampled = sampled_generation_loss(
        states, tokens[target], tokens[negatives], target, negatives, n_items, excluded
    )
    torch.testing.assert_close(sampled, generation_loss(states, tokens, target, excluded))


@pytest.mark.parametrize("changes", [{}, {"setrec_ce": "sampled", "setrec_negatives": 16}])
def test_setrec_trains_with_it(folder, changes):
    values = {**TINY_OF["SETRec"], "data_path": str(folder), "cache_dir": str(folder / "cache")}
    values |= {KEY: True, "epochs": 1, **changes}
    result = run_recbole_genrec("SETRec", "toy", config_dict=values)
    assert 0 < result["test_result"]["recall@10"] <= 1


# --- which methods can ----------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["SASRec", "BPR", "Pop"])
def test_models_of_recbole_refuse_the_key(folder, model):
    from recbole_genrec.config import GenRecConfig

    values = {"data_path": str(folder), KEY: True}
    with pytest.raises(ConfigError, match=f"{KEY}: {model} cannot.*RecBole computes its loss"):
        GenRecConfig(model, "toy", config_dict=values)


def test_a_loss_over_one_negative_refuses_the_key(folder):
    with pytest.raises(ConfigError, match=f"{KEY}: TokenRec cannot.*no softmax"):
        toy_config(folder, "TokenRec", **{KEY: True})


def test_the_key_names_a_run_only_where_it_is_on(folder):
    off = toy_config(folder, "TIGER").run_name()
    assert toy_config(folder, "TIGER", **{KEY: False}).run_name() == off
    assert toy_config(folder, "TIGER", **{KEY: True}).run_name() != off
