"""Pretrained tokenizers that do not fit their language model, or that know words for codes."""

from __future__ import annotations

import pytest
from language_models import save_base
from lcrec import LLAMA
from toy import toy_model, write_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from recbole_genrec.backbone import load_causal_lm
from recbole_genrec.errors import BackboneError


def with_words(folder, *words: str) -> str:
    """A causal language model whose tokenizer has got ``words`` without the model."""
    base = save_base(folder, "llama")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(list(words))
    tokenizer.save_pretrained(base)
    return base


def n_rows(base: str) -> int:
    lm = AutoModelForCausalLM.from_pretrained(base)
    return lm.get_input_embeddings().num_embeddings


# case 43
@pytest.mark.parametrize("loss", ["full", "sid"])
def test_a_tokenizer_longer_than_its_table_is_refused_before_training(tmp_path, loss):
    base = with_words(tmp_path / "base", "<end of turn>", "<start of turn>")
    rows = n_rows(base)
    data = write_dataset(tmp_path / "data")
    options = {"tuning": "lora", "backbone": base, "sid_loss_vocab": loss}
    with pytest.raises(
        BackboneError,
        match=rf"has {rows + 2} words.*has {rows} rows.*resize_token_embeddings\({rows + 2}\)",
    ):
        toy_model(data, "LCRec", cache_dir=str(tmp_path / "cache"), **options)


def test_a_tokenizer_of_the_length_of_its_table_is_taken(tmp_path):
    base = with_words(tmp_path, "<end of turn>")
    lm = AutoModelForCausalLM.from_pretrained(base)
    lm.resize_token_embeddings(n_rows(base) + 1)
    lm.save_pretrained(base)
    tokenizer = load_causal_lm(base)[1]
    assert tokenizer.convert_tokens_to_ids("<end of turn>") == n_rows(base) - 1


def test_words_for_codes_in_the_tokenizer_are_refused(tmp_path):
    data = write_dataset(tmp_path / "data")
    options = {"cache_dir": str(tmp_path / "cache"), "tokenizer": "random"}
    model, *_ = toy_model(data, "LCRec", backbone_config=LLAMA, **options)
    model.save_pretrained(tmp_path / "export", merge=True)
    with pytest.raises(BackboneError, match="already has 1[0-9] words for codes such as <a_0>"):
        load_causal_lm(str(tmp_path / "export"))


def test_tokenrec_checks_the_tokenizer_of_its_backbone(tmp_path):
    from transformers import T5Config, T5ForConditionalGeneration

    base = with_words(tmp_path / "base", "<a_7>")
    for file in (tmp_path / "base").glob("*.safetensors"):
        file.unlink()
    shape = {"d_model": 32, "d_ff": 64, "num_layers": 1, "num_heads": 2, "d_kv": 16}
    T5ForConditionalGeneration(T5Config(vocab_size=512, **shape)).save_pretrained(base)
    data = write_dataset(tmp_path / "data")
    with pytest.raises(BackboneError, match="words for codes such as <a_7>"):
        toy_model(data, "TokenRec", cache_dir=str(tmp_path / "cache"), backbone=base)
