"""The published numbers of a tiny T5 over item codes, as a backbone, a vocabulary and arrays.

``tiger_t5_beam.npz`` was written by LETTER's T5 (commit 8d0154e) on transformers 4.41.2, float64;
attention softmax and norms ran in float32, hence the tolerance 5e-5. It has 40 items with 4 codes
of 8 values, histories of 1 to 20 items, and the weights under the names of transformers:

* ``w:encoder.*`` and ``w:decoder.*`` are the parameters of ``EncoderDecoderBackbone`` under the
  same names;
* ``w:shared.weight [34, 32]`` is the table of ``TiedCodeVocabulary`` with an end token:
  row 0 = padding and start, row 1 + 8 level + code,
  row 33 = end.

``letter_ranking_loss.npz`` holds logits and labels with loss and gradient for two temperatures.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recbole_genrec.backbone import EncoderDecoderBackbone, load_encoder_decoder
from recbole_genrec.backbone.tied_code_vocabulary import TiedCodeVocabulary

FOLDER = Path(__file__).parent
CLOSE = {"atol": 5e-5, "rtol": 0}
SETTINGS = {
    name: name
    for name in ("d_model", "d_kv", "d_ff", "num_heads", "num_layers", "num_decoder_layers")
}
SETTINGS |= {
    "relative_attention_num_buckets": "rel_buckets",
    "relative_attention_max_distance": "rel_max_distance",
}
SETTINGS |= {"layer_norm_epsilon": "ln_eps"}


def arrays(name: str) -> dict[str, Tensor]:
    """All arrays of a file as tensors."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def tiny_t5() -> tuple[EncoderDecoderBackbone, TiedCodeVocabulary, dict[str, Tensor]]:
    """``(backbone, vocabulary, arrays)`` of ``tiger_t5_beam``, float64, in evaluation mode."""
    golden = arrays("tiger_t5_beam")
    settings = {name: golden[key].item() for name, key in SETTINGS.items()}
    backbone = EncoderDecoderBackbone(load_encoder_decoder("scratch", settings)).double().eval()
    backbone.load_state_dict(
        {
            key.removeprefix("w:"): value
            for key, value in golden.items()
            if key.startswith(("w:encoder.", "w:decoder."))
        }
    )
    sizes = (golden["codebook_size"].item(),) * golden["n_levels"].item()
    vocabulary = TiedCodeVocabulary(sizes, backbone.d_model, use_eos=True).double()
    vocabulary.load_state_dict({"table": golden["w:shared.weight"]})
    return backbone, vocabulary, golden


def parameter(
    name: str, backbone: EncoderDecoderBackbone, vocabulary: TiedCodeVocabulary
) -> Tensor:
    """The parameter that transformers calls ``name``."""
    return vocabulary.table if name == "shared.weight" else backbone.get_parameter(name)


def with_end(codes: Tensor) -> Tensor:
    """Codes ``[..., L]`` with the end token as one more level, ``[..., L + 1]``."""
    return torch.nn.functional.pad(codes, (0, 1))
