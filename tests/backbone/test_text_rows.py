"""The text table of a language model: a row for each word, no factor, kept in its own format."""

from __future__ import annotations

import pytest
import torch
from language_models import FAMILIES, ROTARY, TEXTS, save_base
from toy import TINY_LLAMA, toy_model, write_dataset
from transformers import AutoModelForCausalLM

from recbole_genrec.backbone import load_causal_lm
from recbole_genrec.backbone.encoder_decoder.build import load_text_encoder_decoder
from recbole_genrec.backbone.sources import from_source
from recbole_genrec.errors import BackboneError
from recbole_genrec.storage.backbone_files import small_files, stand_in

T5 = {"model_type": "t5", "d_model": 32, "d_ff": 64, "num_layers": 1, "num_heads": 2, "d_kv": 16}


@pytest.mark.parametrize("size", [290, 4000])
def test_the_vocabulary_decides_the_rows_of_the_table(size):
    causal = load_causal_lm("scratch", {**FAMILIES["llama"], "vocab_size": size}, TEXTS, 300)
    reader = load_text_encoder_decoder("scratch", {**T5, "vocab_size": size}, TEXTS, 300)
    for (lm, tokenizer), most in ((causal, size), (reader, 0)):
        assert lm.get_input_embeddings().num_embeddings == max(len(tokenizer), most)


def test_no_word_is_read_as_a_code(tmp_path):
    data = write_dataset(tmp_path / "data")
    short = {**TINY_LLAMA, "vocab_size": 385}
    model, *_ = toy_model(data, "LCRec", tokenizer="random", backbone_config=short)
    words = torch.arange(len(model.text_tokenizer))
    assert (model.text_and_codes.code_numbers(words) < 0).all()


def test_a_stand_in_keeps_the_format_of_rotary_frequencies(tmp_path):
    base = save_base(tmp_path, "llama")
    stored = from_source(AutoModelForCausalLM, base, torch.bfloat16)
    with stand_in(small_files(base)) as folder:
        built = from_source(AutoModelForCausalLM, folder, torch.bfloat16)
    assert {weight.dtype for weight in built.parameters()} == {torch.bfloat16}
    built.load_state_dict(stored.state_dict())
    for one, other in zip(stored.buffers(), built.buffers(), strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"model_type": "gemma3_text", "head_dim": 8}, "the embeddings of its words"),
        ({"model_type": "granite", "logits_scaling": 8.0}, "its logits"),
        ({"model_type": "cohere"}, "its logits"),
    ],
)
def test_families_with_factors_are_refused(tmp_path, settings, what):
    family = rf"of the family {settings['model_type']} scales {what}.*opt, llama, qwen2"
    with pytest.raises(BackboneError, match=family):
        load_causal_lm("scratch", {**ROTARY, **settings}, TEXTS, 300)


def test_a_family_without_its_factors_is_taken_as_it_was(tmp_path):
    lm, _ = load_causal_lm("scratch", {"model_type": "granite", **ROTARY}, TEXTS, 300)
    assert lm.training
    assert not load_causal_lm(save_base(tmp_path, "opt"))[0].training
