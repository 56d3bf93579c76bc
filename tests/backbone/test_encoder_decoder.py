"""Encoder-decoder backbones: parity with transformers, stepwise decoding, loading."""

from __future__ import annotations

import copy
from functools import partial

import huggingface_hub.constants
import pytest
import torch
from decoders import CountOperators, assert_dead_queries_change_nothing, random_codes
from golden.loading_t5 import with_end
from torch import Tensor, nn

from recbole_genrec.backbone import EncoderDecoderBackbone, load_encoder_decoder
from recbole_genrec.backbone.dropout import dropout
from recbole_genrec.backbone.encoder_decoder.beam_decoder import BeamDecoder
from recbole_genrec.backbone.tied_code_vocabulary import TiedCodeVocabulary
from recbole_genrec.decoding import (
    SCORE_TYPES,
    ItemTrie,
    beam_search,
    beam_search_auto,
    exact_scores,
    exact_search,
    path_scores,
)
from recbole_genrec.errors import BackboneError

SIZES = (8, 6, 5)
CLOSE = {"atol": 1e-5, "rtol": 0}
SMALL = {"d_model": 24, "d_kv": 8, "d_ff": 40, "num_heads": 2, "num_layers": 2}
FAMILIES = {
    "t5": SMALL,
    "gated": {**SMALL, "feed_forward_proj": "gated-gelu", "num_layers": 1, "num_decoder_layers": 3},
    "buckets": {
        **SMALL,
        "relative_attention_num_buckets": 4,
        "relative_attention_max_distance": 12,
    },
    "mt5": {"model_type": "mt5", **SMALL},
}


class Generator:
    """A random T5, a code vocabulary with an end token, and histories of different lengths."""

    def __init__(self, family: str = "t5", lengths: tuple[int, ...] = (5, 17, 1)):
        torch.manual_seed(0)
        self.codes = TiedCodeVocabulary(SIZES, 24, use_eos=True, n_user_tokens=3)
        self.lm = load_encoder_decoder(
            "scratch", {**FAMILIES[family], "vocab_size": self.codes.n_outputs}
        ).eval()
        with torch.no_grad():  # biases that matter, one table
            for stack in (self.lm.encoder, self.lm.decoder):
                stack.block[0].layer[0].SelfAttention.relative_attention_bias.weight.normal_()
            self.lm.shared.weight.copy_(self.codes.table[: self.codes.n_outputs])
        self.backbone = EncoderDecoderBackbone(copy.deepcopy(self.lm))
        self.lengths = torch.tensor(lengths)
        self.ids = torch.randint(
            1, self.codes.n_outputs, (len(lengths), max(lengths))
        )  # noise where a history has ended
        self.mask = torch.arange(self.ids.shape[1]) < self.lengths.unsqueeze(1)

    def memory(self, rows: Tensor | slice = slice(None)):
        states = self.backbone.encode(self.codes.embed(self.ids[rows]), self.mask[rows])
        return self.backbone.memory(states, self.mask[rows])

    def decoder(
        self, score_type: str = "level", rows: Tensor | slice = slice(None), **options
    ) -> BeamDecoder:
        scores = partial(self.codes.log_probs, score_type=score_type)
        return BeamDecoder(
            self.backbone,
            self.memory(rows),
            self.codes.start,
            self.codes.embed_code,
            scores,
            **options,
        )

    def item_scores(self, table: Tensor, score_type: str) -> Tensor:
        """Scores ``[B, n_items - 1]`` by transformers' own full passes, item by item."""
        rows, scores = table[1:].tolist(), torch.zeros(len(self.ids), len(table) - 1)
        start = nn.functional.pad(self.codes.tokens(table[1:, :-1]), (1, 0))
        for user in range(len(self.ids)):
            ids, mask = (x[user].expand(len(start), -1) for x in (self.ids, self.mask))
            logits = self.lm(
                input_ids=ids, attention_mask=mask.long(), decoder_input_ids=start
            ).logits
            for level, first in enumerate(self.codes.first[: table.shape[1]]):
                columns = slice(first, first + self.codes.level_sizes[level])
                values = (
                    logits[:, level].log_softmax(-1) if score_type == "joint" else logits[:, level]
                )[:, columns]
                values = values.log_softmax(-1) if score_type == "level" else values
                for item, row in enumerate(rows):
                    legal = sorted({other[level] for other in rows if other[:level] == row[:level]})
                    constant = (
                        values[item, legal].logsumexp(0) if score_type == "renormalised" else 0.0
                    )
                    scores[user, item] += values[item, row[level]] - constant
        return scores


# --- parity with transformers --------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients_equal_transformers(family):
    model = Generator(family)
    targets = model.codes.tokens(torch.randint(5, (3, 3)))
    inputs = nn.functional.pad(targets[:, :-1], (1, 0))
    theirs = model.lm(
        input_ids=model.ids, attention_mask=model.mask.long(), decoder_input_ids=inputs
    ).logits
    ours = model.codes.logits(model.backbone.decode(model.codes.embed(inputs), model.memory()))
    theirs = (
        theirs * model.codes.scale if family == "mt5" else theirs
    )  # mT5 has no factor d_model^-0.5, we always do
    torch.testing.assert_close(ours, theirs, **CLOSE)
    assert theirs.std() > 0.5  # the model does tell the codes apart
    for logits in (ours, theirs):
        nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    expected = dict(model.lm.named_parameters())
    torch.testing.assert_close(
        model.codes.table.grad[: model.codes.n_outputs], expected.pop("shared.weight").grad, **CLOSE
    )
    named = dict(model.backbone.named_parameters())
    assert named.keys() == expected.keys()
    for name, value in named.items():
        torch.testing.assert_close(value.grad, expected[name].grad, **CLOSE)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_dropout_is_where_transformers_has_it(family, monkeypatch):
    model = Generator(family)
    model.lm.set_attn_implementation(
        "eager"
    )  # the others draw their masks where Python cannot reach
    monkeypatch.setattr(
        nn.functional,
        "dropout",
        lambda x, p=0.5, training=True, inplace=False: dropout(x, p, training),
    )
    inputs, logits = nn.functional.pad(model.codes.tokens(torch.randint(5, (3, 3))), (1, 0)), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)  # the masks are drawn in the same order
        logits.append(
            model.codes.logits(
                model.backbone.train().decode(model.codes.embed(inputs), model.memory())
            )
        )
    torch.manual_seed(1)
    theirs = model.lm.train()(
        input_ids=model.ids, attention_mask=model.mask.long(), decoder_input_ids=inputs
    ).logits
    theirs = theirs * model.codes.scale if family == "mt5" else theirs
    torch.testing.assert_close(logits[0], theirs, **CLOSE)
    assert torch.equal(logits[0], logits[1]) and (logits[0] - logits[2]).abs().max() > 0.1


@pytest.mark.parametrize("end", [False, True])
@torch.no_grad()
def test_generate_with_a_trie_callback_returns_the_same_lists(end):
    model, table = Generator(), random_codes(SIZES, 100)
    codes = with_end(table) if end else table
    trie = ItemTrie(codes, model.codes.level_sizes[: codes.shape[1]])
    children: dict[tuple, list[int]] = {}
    for row in model.codes.tokens(codes[1:]).tolist():
        for level, token in enumerate(row):
            children.setdefault(tuple(row[:level]), []).append(token)
    length = codes.shape[1]
    for width in (5, 20):
        ours = beam_search(model.decoder("joint"), trie, width, score_type="joint")
        found = model.lm.generate(
            model.ids,
            attention_mask=model.mask.long(),
            max_new_tokens=length,
            num_beams=width,
            num_return_sequences=width,
            do_sample=False,
            length_penalty=1.0,
            eos_token_id=model.codes.eos if end else None,
            decoder_start_token_id=0,
            pad_token_id=0,
            prefix_allowed_tokens_fn=lambda _, sequence: children[tuple(sequence[1:].tolist())],
            return_dict_in_generate=True,
            output_scores=True,
        )
        assert torch.equal(
            found.sequences[:, 1:].view(3, width, length), model.codes.tokens(codes[ours.items])
        )
        torch.testing.assert_close(
            ours.scores, found.sequences_scores.view(3, width) * length, **CLOSE
        )
    assert not ours.certified(
        20
    ).all()  # beams were pruned: the two agree on what a beam search finds, not only on exact lists


# --- stepwise decoding ---------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["t5", "gated"])
@pytest.mark.parametrize("score_type", SCORE_TYPES)
@torch.no_grad()
def test_search_equals_item_by_item_scoring(family, score_type):
    model, table = Generator(family), random_codes(SIZES, 30)
    table = with_end(table) if score_type == "joint" else table
    expected = model.item_scores(table, score_type)
    decoder, trie = (
        model.decoder(score_type),
        ItemTrie(table, model.codes.level_sizes[: table.shape[1]]),
    )
    torch.testing.assert_close(
        exact_scores(decoder, trie, score_type=score_type, chunk_size=11)[:, 1:], expected, **CLOSE
    )
    items = torch.arange(1, 31).expand(3, -1)
    torch.testing.assert_close(
        path_scores(decoder, trie, items, score_type=score_type), expected, **CLOSE
    )
    result = beam_search(decoder, trie, 30, score_type=score_type)
    torch.testing.assert_close(result.scores, expected.sort(descending=True).values, **CLOSE)
    exact = exact_search(decoder, trie, 30, score_type=score_type)
    assert torch.equal(result.items, exact.items) and torch.equal(
        result.items, expected.argsort(descending=True) + 1
    )
    wider = beam_search_auto(decoder, trie, 3, score_type=score_type, uncertified="exact")
    assert torch.equal(wider.items, result.items[:, :3])


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_queries_known_to_be_dead_change_nothing(family):
    assert_dead_queries_change_nothing(Generator(family).decoder(), SIZES)


STEPS = [(3, 1, 8), (7, 3, 6), (4, 7, 5)]  # queries, queries of the block before, alphabet


def walk(decoder, rows=(0, 1, 2)):
    """Answers of a decoder of some users at the root and after three blocks."""
    generator, values = torch.Generator().manual_seed(1), [decoder.start()]
    for queries, before, size in STEPS:
        codes = torch.randint(size, (3, queries), generator=generator)
        parents = torch.randint(before, (3, queries), generator=generator)
        values.append(decoder.step(codes[list(rows)], parents[list(rows)]))
    return values


@torch.no_grad()
def test_steps_do_not_depend_on_batch_padding_restarts_or_room():
    model = Generator()
    expected = walk(model.decoder("joint"))
    assert [tuple(values.shape) for values in expected] == [
        (3, 1, 8),
        (3, 3, 6),
        (3, 7, 5),
        (3, 4, 1),
    ]

    def agrees(decoder, rows=(0, 1, 2)):
        for values, wanted in zip(walk(decoder, rows), expected, strict=True):
            torch.testing.assert_close(values, wanted[list(rows)], **CLOSE)

    padded = copy.copy(model)
    padded.ids, padded.mask = (
        nn.functional.pad(model.ids, (0, 9), value=7),
        nn.functional.pad(model.mask, (0, 9)),
    )
    agrees(padded.decoder("joint"))
    decoder = model.decoder("joint")  # its cache has room for the start tokens alone and grows
    for _ in range(2):
        agrees(decoder)
    for rows in ((1,), (2, 0), (0, 0, 2)):
        agrees(decoder.select(torch.tensor(rows)), rows)
        agrees(model.decoder("joint", rows=list(rows)), rows)
    agrees(decoder.select(torch.tensor([], dtype=torch.int64)), ())
    agrees(decoder)  # a part does not disturb the whole
    assert decoder.start() is decoder.root and decoder.root.dtype == torch.float32


class LargestTensor(CountOperators):
    """Also keeps the size of the largest tensor that an operator returned."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = super().__torch_dispatch__(func, types, args, kwargs)
        for tensor in result if isinstance(result, tuple) else (result,):
            self.largest = (
                max(self.largest, tensor.numel()) if isinstance(tensor, Tensor) else self.largest
            )
        return result


@torch.no_grad()
def test_memory_is_shared_by_the_beams_and_work_is_tensor_work():
    counts = []
    for users, beams in ((2, 3), (5, 40)):
        model = Generator(lengths=(300,) * users)
        decoder = model.decoder()
        place = [tensor.data_ptr() for pair in decoder.memory.layers for tensor in pair]
        with LargestTensor() as operators:
            codes, root = (
                torch.ones(users, beams, dtype=torch.long),
                torch.zeros(users, beams, dtype=torch.long),
            )
            decoder.step(codes, root)
            decoder.step(codes, root)
        counts.append(operators.seen)
        assert place == [tensor.data_ptr() for pair in decoder.memory.layers for tensor in pair]
        assert decoder.memory.layers[0][0].shape == (
            users,
            2,
            300,
            8,
        ) and decoder.cache.size == users * (1 + 2 * beams)
        assert (
            operators.largest <= users * 2 * beams * 300
        )  # attention weights at most, never keys per beam
    assert counts[0] == counts[1]
    assert not [name for name in counts[0] if "local_scalar" in name or "nonzero" in name]


@torch.no_grad()
def test_autocast_gives_finite_float32_scores():
    model, table = Generator(), random_codes(SIZES, 30)
    expected = model.item_scores(table, "joint")
    with torch.autocast("cpu", torch.bfloat16):
        result = beam_search(
            model.decoder("joint"), ItemTrie(table, SIZES), 30, score_type="joint", fill=True
        )
    assert result.full.dtype == torch.float32 and result.full.isfinite().all()
    torch.testing.assert_close(result.full[:, 1:], expected, atol=0.5, rtol=0)


def test_vocabulary_layout():
    codes = TiedCodeVocabulary((4, 3), 6, use_eos=True, n_user_tokens=5)
    assert (codes.level_sizes, codes.first, codes.n_outputs, codes.eos, len(codes.table)) == (
        (4, 3, 1),
        [1, 5, 8],
        9,
        8,
        14,
    )
    assert codes.tokens(torch.tensor([[0, 0], [3, 2]])).tolist() == [[1, 5], [4, 7]]
    assert codes.user_tokens(torch.tensor([1, 5, 12])).tolist() == [10, 9, 11]
    plain = TiedCodeVocabulary((4, 3), 6)
    assert (plain.level_sizes, plain.eos, plain.n_outputs, len(plain.table)) == ((4, 3), None, 8, 8)
    assert torch.equal(codes.embed_code(torch.tensor(2), 1), codes.table[7]) and torch.equal(
        codes.start, codes.table[0]
    )
    hidden = torch.randn(2, 6)
    logits = hidden @ codes.table[:9].T / 6**0.5
    torch.testing.assert_close(codes.logits(hidden), logits)
    for temperature in (1.0, 0.7):
        scaled = logits / temperature
        for level, columns in enumerate((slice(1, 5), slice(5, 8), slice(8, 9))):
            torch.testing.assert_close(
                codes.log_probs(hidden, level, "joint", temperature),
                scaled.log_softmax(-1)[:, columns],
            )
            torch.testing.assert_close(
                codes.log_probs(hidden, level, "level", temperature),
                scaled[:, columns].log_softmax(-1),
            )
    assert codes.log_probs(hidden, 2, "renormalised").eq(0).all()


@torch.no_grad()
def test_a_saved_model_loads_back_from_its_folder(tmp_path):
    for family in ("gated", "mt5"):
        model = Generator(family)
        model.lm.save_pretrained(tmp_path / family)
        backbone = EncoderDecoderBackbone(load_encoder_decoder(str(tmp_path / family)).eval())
        embeddings = model.codes.embed(model.ids)
        assert torch.equal(
            backbone.encode(embeddings, model.mask), model.backbone.encode(embeddings, model.mask)
        )
    (tmp_path / "mt5" / "model.safetensors").unlink()
    with pytest.raises(BackboneError, match="cannot be loaded.*safetensors"):
        load_encoder_decoder(str(tmp_path / "mt5"))


def test_text_tables_are_no_parameters():
    model, small = Generator(), EncoderDecoderBackbone(load_encoder_decoder("scratch", SMALL))
    names = set(small.state_dict())
    assert names == set(model.backbone.state_dict()) and not any(
        "embed" in name or "shared" in name or "head" in name for name in names
    )


def test_what_cannot_be_loaded_says_why(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for missing in ("/no/such/folder", "./no-such-folder", "models/t5/small"):
        with pytest.raises(BackboneError, match=f"folder {missing} does not exist"):
            load_encoder_decoder(missing)
    with pytest.raises(
        BackboneError,
        match="'google/no-such-model' cannot be loaded.*"
        "backbone: scratch trains from random weights",
    ):
        load_encoder_decoder("google/no-such-model")
    for settings, reason in (
        ({"model_type": "opt"}, "opt is not of the T5 family"),
        ({"d_modle": 32}, "t5 has no setting d_modle"),
        ({"d_model": "wide"}, "expected int"),
        ({"feed_forward_proj": "wide-gelu"}, "wide-gelu"),
    ):
        with pytest.raises(BackboneError, match=f"(?s)backbone_config.*{reason}.*t5 or mt5"):
            load_encoder_decoder("scratch", settings)
    (tmp_path / "config.json").write_text('{"model_type": "opt"}', encoding="utf-8")
    with pytest.raises(BackboneError, match="its model_type is opt"):
        load_encoder_decoder(str(tmp_path))
