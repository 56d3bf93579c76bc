"""Published text vectors: fields apart, and language models such as LLaMA as encoders."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import toy_config, write_dataset

from recbole_genrec.data.content import ItemContent
from recbole_genrec.data.items.item_text import render_item_text
from recbole_genrec.data.loaders import create_dataset
from recbole_genrec.data.vectors.text_encoder import encoder_identity
from recbole_genrec.data.vectors.text_encoding import TextEncoding
from recbole_genrec.data.vectors.text_pooling import encode_items, field_values, pooled_fields
from recbole_genrec.tokenizer import NewItems, make_tokenizer

WORDS = ["red", "nail", "lacquer", "blue", "hair", "oil", "brand", "title", "soap", "dark", "no"]
FIELDS = ["title", "brand", "categories"]


def language_model(folder: Path, special: dict, kind: str = "llama") -> Path:
    """A tiny decoder-only model with random weights and a tokenizer of words without padding."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        PreTrainedTokenizerFast,
    )

    words = ["<unk>", "<s>", "</s>", *WORDS]
    plain = Tokenizer(WordLevel({word: row for row, word in enumerate(words)}, "<unk>"))
    plain.pre_tokenizer = Whitespace()
    plain.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    PreTrainedTokenizerFast(tokenizer_object=plain, **special).save_pretrained(folder)
    torch.manual_seed(0)
    if kind == "gpt2":
        config = GPT2Config(vocab_size=len(words), n_positions=32, n_embd=16, n_layer=2, n_head=2)
        GPT2LMHeadModel(config).save_pretrained(folder)
        return folder
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def mean_of_states(folder: Path, text: str, dtype=torch.float32) -> np.ndarray:
    """Reference: one text alone, hence without padding; mean of its last states."""
    from transformers import AutoModel, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    tokens.pop("token_type_ids", None)
    model = AutoModel.from_pretrained(folder, torch_dtype=dtype).eval()
    with torch.inference_mode():
        return model(**tokens).last_hidden_state.float().mean(1)[0].numpy()


TEXTS = ["", "red nail lacquer", "blue", "red soap no oil hair dark", "blue"]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize(
    "special",
    [
        {"eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"},
        {"unk_token": "<unk>"},
        {},
        {"eos_token": "</s>", "pad_token": "<unk>", "padding_side": "left"},
    ],
)
def test_a_language_model_encodes_by_the_mean_of_its_words(tmp_path, special, kind):
    folder = language_model(tmp_path, special, kind)
    vectors = TextEncoding(str(folder), show_progress=False).vectors(TEXTS)
    assert vectors.dtype == np.float32 and vectors.shape == (5, 16)
    assert not vectors[0].any()
    for row in (1, 2, 3):
        np.testing.assert_allclose(vectors[row], mean_of_states(folder, TEXTS[row]), atol=1e-5)
    one_by_one = TextEncoding(str(folder), batch_size=1, show_progress=False).vectors(TEXTS)
    np.testing.assert_allclose(vectors, one_by_one, atol=1e-5)


def test_half_precision_keeps_the_mean_in_float32(tmp_path):
    folder = language_model(tmp_path / "model", {"eos_token": "</s>"})
    encoding = TextEncoding(str(folder), show_progress=False)
    full = encoding.vectors(TEXTS, tmp_path / "cache")
    half = replace(encoding, precision="bf16").vectors(TEXTS, tmp_path / "cache")
    assert half.dtype == np.float32
    for row in (1, 2, 3):
        reference = mean_of_states(folder, TEXTS[row], torch.bfloat16)
        np.testing.assert_allclose(half[row], reference, atol=0.02)
    assert not np.array_equal(full, half), "the cache knows them apart"
    cosine = (full[1:] * half[1:]).sum(1)
    cosine /= np.linalg.norm(full[1:], axis=1) * np.linalg.norm(half[1:], axis=1)
    assert cosine.min() > 0.99
    assert encoder_identity(str(folder), "bf16") != encoder_identity(str(folder))


def test_the_mean_of_a_long_text_is_not_taken_in_half_precision(tmp_path):
    """2,000 ones and 2,000 halves: summed in bf16 they stop growing at 256."""
    from recbole_genrec.data.vectors.decoder_encoders import pool_in_float32

    class States(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones((), dtype=torch.bfloat16))

        def forward(self, features):
            return {"token_embeddings": features["states"] * self.weight}

    model = torch.nn.Sequential(States())
    pool_in_float32(model)
    states = torch.ones(1, 4000, 1, dtype=torch.bfloat16)
    states[:, ::2] = 0.5
    pooled = model({"states": states})["token_embeddings"]
    assert pooled.dtype == torch.float32 and float(pooled.mean()) == 0.75


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        ({"title": "red soap", "brand": "no", "categories": "oil"}, ["red soap", "no", "oil"]),
        ({"title": "red, soap", "categories": "hair, oil"}, ["red, soap", "hair, oil"]),
        ({"categories": "oil"}, ["oil"]),
        ({"title": "a brand: of soap", "brand": "x"}, ["a brand: of soap", "x"]),
    ],
)
def test_values_are_found_in_the_text_again(cells, values):
    assert field_values(render_item_text(cells, FIELDS), FIELDS) == values


def test_other_texts_are_one_value():
    for text in ("red soap", "item", "", "see title: red"):
        assert field_values(text, FIELDS) == [text]
    assert pooled_fields("fields", ["title"]) == () == pooled_fields("joined", FIELDS)
    assert pooled_fields("fields", FIELDS) == tuple(FIELDS)


def test_vectors_of_fields_are_averaged_over_those_that_are_there():
    lengths = {"red soap": 8.0, "no": 2.0, "oil": 5.0, "": 0.0}

    def encode(texts):
        return np.array([[lengths[text]] for text in texts], dtype=np.float32)

    texts = [
        "",
        "title: red soap, brand: no, categories: oil",
        "brand: no",
        "title: oil, brand: no",
    ]
    np.testing.assert_allclose(encode_items(texts, FIELDS, encode)[:, 0], [0, 5, 2, 3.5])
    assert encode_items([], FIELDS, lambda _: np.zeros((0, 1), np.float32)).shape == (0, 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = write_dataset(tmp_path_factory.mktemp("data"))
    return folder, language_model(tmp_path_factory.mktemp("model"), {"eos_token": "</s>"})


def test_a_run_encodes_fields_apart_and_new_items_likewise(data):
    folder, model = data
    options = {"text_encoder": str(model), "cache_dir": str(folder / "cache")}
    config = toy_config(folder, "TIGER", text_pooling="fields", **options)
    fewer = toy_config(folder, "TIGER", text_pooling="fields", text_encoder_batch_size=3, **options)
    assert fewer.run_name() == config.run_name()
    assert ItemContent.from_dataset(create_dataset(fewer), fewer).encoding.batch_size == 3
    content = ItemContent.from_dataset(create_dataset(config), config)
    title, brand = (field_values(content.text[1], ["title", "brand"]) + [""])[:2]
    reference = (mean_of_states(model, title) + mean_of_states(model, brand)) / 2
    np.testing.assert_allclose(content.embeddings()[1], reference, atol=1e-5)
    np.testing.assert_allclose(content.embed(content.text[1:2])[0], reference, atol=1e-5)

    joined = toy_config(folder, "TIGER", **options)
    assert joined.run_name() != config.run_name()
    keys = [make_tokenizer(settings, 1).config_key() for settings in (config, joined)]
    assert keys[0].pop("text_pooling") == ["title", "brand"]
    assert keys[0] == keys[1]

    tokenizer = make_tokenizer(config, 1)
    codes = tokenizer.fit(content)
    learned = tokenizer.encode(NewItems(content.text[1:]))
    assert torch.equal(learned, codes.codes[1:, : codes.n_learned])
