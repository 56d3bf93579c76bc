"""Causal language models: stepwise decoding against full passes, LoRA, gradients, loading."""

from __future__ import annotations

import huggingface_hub.constants
import pytest
import torch
from decoders import CountOperators, random_codes
from language_models import FAMILIES, SIZES, TEXTS, Generator, save_base

from recbole_genrec.backbone import (
    CausalBackbone,
    embed_mixed,
    load_causal_lm,
)
from recbole_genrec.backbone.causal import prompts as causal_prompts
from recbole_genrec.backbone.causal.prompts import common_beginning
from recbole_genrec.decoding import (
    SCORE_TYPES,
    ItemTrie,
    beam_search,
    beam_search_auto,
    exact_scores,
    path_scores,
)
from recbole_genrec.errors import BackboneError

CLOSE = {"atol": 1e-5, "rtol": 0}
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")


def draw_walk(blocks=(3, 7), users=3):
    """Random codes and parents ``[B, Q]`` of each step, and the paths ``[B, Q, t]`` to them."""
    generator = torch.Generator().manual_seed(1)
    steps, paths = [], [torch.zeros(users, 1, 0, dtype=torch.long)]
    for count, size in zip(blocks, SIZES, strict=False):
        parents = torch.randint(paths[-1].shape[1], (users, count), generator=generator)
        codes = torch.randint(size, (users, count), generator=generator)
        inherited = paths[-1].gather(1, parents.unsqueeze(-1).expand(-1, -1, paths[-1].shape[-1]))
        steps.append((codes, parents))
        paths.append(torch.cat([inherited, codes.unsqueeze(-1)], -1))
    return steps, paths


STEPS, PATHS = draw_walk()


def walk(decoder, rows=(0, 1, 2)):
    """Answers of a decoder of some users at the root and after each of ``STEPS``."""
    rows = list(rows)
    return [
        decoder.start(),
        *(decoder.step(codes[rows], parents[rows]) for codes, parents in STEPS),
    ]


# --- stepwise decoding ---------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_steps_equal_full_passes_over_each_path(family):
    model = Generator(family)
    for score_type in ("level", "joint"):
        for paths, values in zip(PATHS, walk(model.decoder(score_type)), strict=True):
            for user in range(3):
                torch.testing.assert_close(
                    values[user], model.next_log_probs(user, paths[user], score_type), **CLOSE
                )
    assert values.std() > 0.5  # the model does tell the codes apart


@pytest.mark.parametrize("family", ["opt", "llama"])
@torch.no_grad()
def test_steps_do_not_depend_on_batch_padding_restarts_or_room(family, monkeypatch):
    model = Generator(family)
    expected = walk(model.decoder())

    def agrees(decoder, rows=(0, 1, 2)):
        for values, wanted in zip(walk(decoder, rows), expected, strict=True):
            torch.testing.assert_close(values, wanted[list(rows)], **CLOSE)

    agrees(
        model.decoder(
            prompt=torch.cat([model.prompt, torch.randn(3, 6, model.prompt.shape[-1])], dim=1)
        )
    )
    with monkeypatch.context() as patch:
        patch.setattr("recbole_genrec.backbone.causal.decoder.RESERVE", 2)
        decoder = model.decoder()  # the cache has to grow
    for _ in range(2):
        agrees(decoder)
    for rows in ((1,), (2, 0), (0, 0, 2)):
        agrees(decoder.select(torch.tensor(rows)), rows)
    agrees(decoder)  # a part does not disturb the whole
    assert torch.equal(decoder.start(), decoder.root) and decoder.start().dtype == torch.float32


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("lengths", "common"), [((7, 12, 9), 6), ((7, 12, 5), 4)])
@torch.no_grad()
def test_a_beginning_that_all_prompts_share_is_read_once(family, lengths, common, monkeypatch):
    model = Generator(family, lengths=lengths)
    model.prompt[:, :6] = model.prompt[:1, :6]
    assert common_beginning(model.prompt, model.lengths) == common
    tokens_read = []
    forward = CausalBackbone.forward

    def counted(self, embeddings, *args, **options):
        tokens_read.append(embeddings.shape[0] * embeddings.shape[1])
        return forward(self, embeddings, *args, **options)

    monkeypatch.setattr(CausalBackbone, "forward", counted)
    decoder = model.decoder()
    assert tokens_read == [common, 3 * (12 - common)]
    monkeypatch.undo()
    for rows, part in (((0, 1, 2), decoder), ((2, 0), decoder.select(torch.tensor([2, 0])))):
        for paths, values in zip(PATHS, walk(part, rows), strict=True):
            for place, user in enumerate(rows):
                expected = model.next_log_probs(user, paths[user], "level")
                torch.testing.assert_close(values[place], expected, **CLOSE)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("hooked", [False, True])
@torch.no_grad()
def test_states_of_prompts_that_nobody_reads_are_left_out(family, hooked, monkeypatch):
    """The last layer ends early, unless it has hooks that wait for its end."""
    monkeypatch.setattr(causal_prompts, "FEWEST", 0)
    model = Generator(family)
    layer = model.backbone.layers_called_whole[-1]
    feed_forward = layer.fc1 if family.startswith("opt") else layer.mlp
    forward, tokens_fed = feed_forward.forward, []

    def counted(hidden):
        tokens_fed.append(hidden.numel() // hidden.shape[-1])
        return forward(hidden)

    feed_forward.forward = counted
    if hooked:
        layer.register_forward_hook(lambda *_: None)
    decoder = model.decoder()
    assert tokens_fed == ([27, 3] if hooked else [3])  # the prompts, and their last tokens
    assert decoder.cache.get_seq_length() == 9
    for rows, part in (((0, 1, 2), decoder), ((2, 0), decoder.select(torch.tensor([2, 0])))):
        for paths, values in zip(PATHS, walk(part, rows), strict=True):
            for place, user in enumerate(rows):
                expected = model.next_log_probs(user, paths[user], "level")
                torch.testing.assert_close(values[place], expected, **CLOSE)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("common", [0, 5])
@torch.no_grad()
def test_prompts_of_similar_length_are_read_together(family, common, monkeypatch):
    """Short prompts do not pay for a long one; what follows sees neither group's padding."""
    monkeypatch.setattr(causal_prompts, "FEWEST", 0)
    model = Generator(family, lengths=(54, 7, 8))
    model.prompt[:, :common] = model.prompt[:1, :common]
    tokens_read = []
    write_keys = CausalBackbone.write_keys

    def counted(self, embeddings, *args):
        tokens_read.append(embeddings.shape[0] * embeddings.shape[1])
        return write_keys(self, embeddings, *args)

    monkeypatch.setattr(CausalBackbone, "write_keys", counted)
    decoder = model.decoder()
    beginning = [common] if common else []
    assert tokens_read == [*beginning, 2 * (8 - common), 54 - common]
    assert decoder.cache.get_seq_length() == 54
    for keys, values in decoder.cache.buffers:
        assert keys[:, :, :54].isfinite().all() and values[:, :, :54].isfinite().all()
    for rows, part in (((0, 1, 2), decoder), ((2, 0), decoder.select(torch.tensor([2, 0])))):
        for paths, log_probs in zip(PATHS, walk(part, rows), strict=True):
            for place, user in enumerate(rows):
                expected = model.next_log_probs(user, paths[user], "level")
                torch.testing.assert_close(log_probs[place], expected, **CLOSE)


@torch.no_grad()
def test_a_single_prompt_has_no_common_beginning():
    model = Generator("llama", lengths=(9,))
    assert common_beginning(model.prompt, model.lengths) == 0


@torch.no_grad()
def test_prompt_keys_stay_where_they_are_and_work_is_tensor_work():
    counts = []
    for users, beams in ((2, 3), (5, 9)):
        model = Generator("llama", lengths=(4,) * users)
        decoder = model.decoder()
        place = [buffer.data_ptr() for pair in decoder.cache.buffers for buffer in pair]
        with CountOperators() as operators:
            codes, root = (
                torch.ones(users, beams, dtype=torch.long),
                torch.zeros(users, beams, dtype=torch.long),
            )
            decoder.step(codes, root)
            decoder.step(codes, root)
        counts.append(operators.seen)
        assert place == [buffer.data_ptr() for pair in decoder.cache.buffers for buffer in pair]
        assert decoder.cache.get_seq_length() == 4 + 2 * beams
    assert counts[0] == counts[1]
    assert not [name for name in counts[0] if "local_scalar" in name or "nonzero" in name]


@pytest.mark.parametrize("family", ["opt-projected", "llama"])
@pytest.mark.parametrize("score_type", SCORE_TYPES)
@torch.no_grad()
def test_search_equals_item_by_item_scoring(family, score_type):
    model, table = Generator(family), random_codes(SIZES, 30)
    expected, trie = model.item_scores(table, score_type), ItemTrie(table, SIZES)
    decoder = model.decoder(score_type)
    torch.testing.assert_close(
        exact_scores(decoder, trie, score_type=score_type, chunk_size=11)[:, 1:], expected, **CLOSE
    )
    items = torch.arange(1, 31).expand(3, -1)
    torch.testing.assert_close(
        path_scores(decoder, trie, items, score_type=score_type), expected, **CLOSE
    )
    result = beam_search(decoder, trie, 30, score_type=score_type, fill=True)
    torch.testing.assert_close(result.full[:, 1:], expected, **CLOSE)
    assert torch.equal(result.items, expected.argsort(descending=True) + 1)
    wider = beam_search_auto(decoder, trie, 3, score_type=score_type, uncertified="exact")
    assert torch.equal(wider.items, result.items[:, :3])


@torch.no_grad()
def test_autocast_gives_finite_float32_scores():
    for family in ("opt", "llama", "qwen3"):
        model, table = Generator(family), random_codes(SIZES, 30)
        with torch.autocast("cpu", torch.bfloat16):
            result = beam_search(
                model.decoder("joint"), ItemTrie(table, SIZES), 30, score_type="joint", fill=True
            )
        assert (
            result.full.dtype == torch.float32
            and result.full.isfinite().all()
            and result.scores.isfinite().all()
        )
        torch.testing.assert_close(
            result.full[:, 1:], model.item_scores(table, "joint"), atol=0.5, rtol=0
        )


@torch.no_grad()
def test_a_sequence_longer_than_the_model_is_an_error():
    model = Generator("opt", lengths=(62, 3))
    with pytest.raises(
        BackboneError,
        match="65 tokens does not fit the backbone's 64 positions. Lower MAX_ITEM_LIST_LENGTH",
    ):
        model.backbone(torch.randn(1, 65, 32))
    decoder, one = model.decoder(), torch.zeros(2, 1, dtype=torch.long)
    decoder.step(one, one)
    decoder.step(one, one)
    with pytest.raises(BackboneError, match="65 tokens"):
        decoder.step(one, one)
    decoder.select(torch.tensor([1])).step(one[:1], one[:1])


# --- the language model itself -------------------------------------------------------------------


@torch.no_grad()
def test_widths_and_states_around_projections():
    model = Generator("opt-projected")
    assert (model.backbone.d_in, model.backbone.d_out, model.backbone.d_model) == (16, 16, 32)
    before, after = model.backbone.hidden_states(model.prompt), model.backbone(model.prompt)
    assert before.shape == (3, 9, 32) and after.shape == (3, 9, 16)
    torch.testing.assert_close(model.lm.model.decoder.project_out(before), after)
    torch.testing.assert_close(
        model.backbone.text_logits(after), model.lm(inputs_embeds=model.prompt).logits
    )
    plain = Generator("qwen3")
    torch.testing.assert_close(
        plain.backbone.hidden_states(plain.prompt), plain.backbone(plain.prompt)
    )


@pytest.mark.parametrize("family", ["opt-projected", "llama", "qwen3"])
def test_lora_attaches_trains_alone_and_merges(family):
    model = Generator(family)
    before = model.backbone(model.prompt).detach()
    table = model.backbone.text_table.weight
    model.backbone.add_lora(rank=4, alpha=8, dropout=0.1)
    model.backbone.eval()
    assert model.backbone.text_table.weight is table
    torch.testing.assert_close(model.backbone(model.prompt), before)  # B = 0 at the start
    trainable = {
        name for name, parameter in model.backbone.named_parameters() if parameter.requires_grad
    }
    assert (
        trainable
        == {name for name, _ in model.backbone.named_parameters() if "lora_" in name}
        != set()
    )
    model.backbone(model.prompt).square().sum().backward()
    for name, parameter in model.backbone.named_parameters():
        assert (parameter.grad is not None) == (name in trainable)
        if "lora_B" in name:
            assert parameter.grad.abs().sum() > 0
            torch.nn.init.normal_(parameter, std=0.3)
    adapted, states = (
        model.backbone(model.prompt).detach(),
        model.backbone.hidden_states(model.prompt).detach(),
    )
    assert (adapted - before).abs().max() > 0.1
    stepwise = [values.detach() for values in walk(model.decoder())]
    model.backbone.merge_lora()
    torch.testing.assert_close(model.backbone(model.prompt), adapted, **CLOSE)
    torch.testing.assert_close(model.backbone.hidden_states(model.prompt), states, **CLOSE)
    for values, wanted in zip(walk(model.decoder()), stepwise, strict=True):
        torch.testing.assert_close(values, wanted, **CLOSE)
    assert all(p.requires_grad for p in model.backbone.parameters()) and not any(
        "lora" in n for n in model.backbone.state_dict()
    )


def test_code_tables_and_the_model_get_gradients():
    model = Generator("opt")
    n_text = model.backbone.text_table.num_embeddings
    ids = torch.tensor([[3, 4, n_text + 2, n_text + 7], [5, n_text + 14, 0, 0]])
    states = model.backbone(embed_mixed(ids, model.backbone.text_table, model.codes.embedding))
    torch.nn.functional.cross_entropy(
        model.codes.logits(states[0, 1:3]), torch.tensor([2, 7])
    ).backward()
    assert model.codes.embedding.grad.abs().sum(1).nonzero().flatten().tolist() == [
        2
    ]  # 7 is a target only, row 1 has no loss
    assert (model.codes.classifier.grad.abs().sum(1) > 0).all()
    assert model.backbone.text_table.weight.grad.abs().sum(1).nonzero().flatten().tolist() == [3, 4]
    assert all(p.grad is not None for p in model.backbone.parameters())


# --- loading -------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_saved_model_loads_back_from_its_folder(tmp_path):
    for family in ("opt-projected", "qwen3"):
        model = Generator(family)
        folder = tmp_path / family
        model.lm.save_pretrained(folder)
        model.text_tokenizer.save_pretrained(folder)
        lm, tokenizer = load_causal_lm(str(folder))
        backbone = CausalBackbone(lm.eval())
        assert torch.equal(backbone(model.prompt), model.backbone(model.prompt))
        assert torch.equal(
            backbone.hidden_states(model.prompt), model.backbone.hidden_states(model.prompt)
        )
        assert [tokenizer(text)["input_ids"] for text in TEXTS] == [
            model.text_tokenizer(text)["input_ids"] for text in TEXTS
        ]
        assert (tokenizer.pad_token, tokenizer.sep_token) == ("<pad>", "<sep>")
    (folder / "model.safetensors").unlink()
    with pytest.raises(BackboneError, match="cannot be loaded.*safetensors"):
        load_causal_lm(str(folder))


def test_a_setting_that_transformers_reads_under_another_name_is_one():
    lm, _ = load_causal_lm("scratch", {**FAMILIES["llama"], "rope_theta": 500.0}, TEXTS, 300)
    assert lm.config.rope_parameters["rope_theta"] == 500.0
    with pytest.raises(BackboneError, match="opt has no setting rope_theta"):
        load_causal_lm("scratch", {**FAMILIES["opt"], "rope_theta": 500.0}, TEXTS, 300)


def test_a_damaged_text_tokenizer_says_so(tmp_path):
    folder = save_base(tmp_path / "base", "opt")
    (tmp_path / "base" / "tokenizer.json").write_text('{"model": {"type": "BPE"}}')
    with pytest.raises(BackboneError, match="cannot be loaded.*files of its text tokenizer"):
        load_causal_lm(folder)


def test_what_cannot_be_loaded_says_why(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for missing in ("/no/such/folder", "./no-such-folder", "models/opt/125m"):
        with pytest.raises(BackboneError, match=f"folder {missing} does not exist"):
            load_causal_lm(missing)
    with pytest.raises(
        BackboneError,
        match="'facebook/no-such-model' cannot be loaded.*"
        "backbone: scratch trains from random weights",
    ):
        load_causal_lm("facebook/no-such-model")
    for settings, reason in (
        ({"model_type": "no-such-model"}, "no-such-model"),
        ({"model_type": "opt", "hidden_sizes": 32}, "opt has no setting hidden_sizes"),
        ({"model_type": "opt", "hidden_size": "wide"}, "expected int"),
        ({"model_type": "opt", "hidden_size": 32, "num_attention_heads": 5}, "divisible"),
        ({"model_type": "t5"}, "T5Config"),
    ):
        with pytest.raises(
            BackboneError, match=f"(?s)backbone_config.*{reason}.*causal model type"
        ):
            load_causal_lm("scratch", settings, TEXTS, 300)
