"""How much of an item text ``tokenizer: store`` reads, beside what its generator reads."""

from __future__ import annotations

from toy import toy_config, write_dataset

from recbole_genrec.data.content import ItemContent
from recbole_genrec.data.loaders import create_dataset
from recbole_genrec.tokenizer import make_tokenizer


def test_stage_1_has_a_length_of_its_own_beside_that_of_the_titles(tmp_path):
    folder = write_dataset(tmp_path)
    options = {"tokenizer": "store", "text_max_len": 5}
    together = toy_config(folder, "LCRec", **options)
    apart = toy_config(folder, "LCRec", tokenizer_text_len=20, **options)
    content = ItemContent.from_dataset(create_dataset(together), together)

    tokenizer = make_tokenizer(together, 1)
    assert tokenizer.describe(content) == "40 items, 5 text tokens of each"
    assert tokenizer.config_key()["text_max_len"] == 5
    assert "tokenizer_text_len" not in tokenizer.config_key()
    texts = ["red soap " * 9]
    assert tokenizer._network(texts, texts)[1].shape == (1, 5)

    longer = make_tokenizer(apart, 1)
    assert longer.describe(content) == "40 items, 20 text tokens of each"
    assert longer._network(texts, texts)[1].shape[1] > 5
    assert longer.config_key()["tokenizer_text_len"] == 20
    assert apart["text_max_len"] == 5
