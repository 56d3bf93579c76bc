"""The weights of ``tokenrec_mq.npz`` in our MQ."""

from __future__ import annotations

from torch import Tensor

from recbole_genrec.tokenizer.quantiser.mq import MQ

LAYER = {"lin0": 0, "bn0": 1, "lin1": 4, "bn1": 5, "lin2": 8}
"""Place of a layer in linear, batch norm, dropout, ReLU, twice, and a last linear one."""


def mq_from_golden(data: dict[str, Tensor], **options: object) -> MQ:
    """The MQ of ``tokenrec_mq.npz`` in float64 and in evaluation mode.

    ============================  ==================================  ===================== golden
    ours                                shape ============================
    ==================================  ===================== ``w:encK.linI.weight|bias``
    ``encoder.{K}.{4I}.weight|bias``    ``[out, in]``, ``[out]`` ``w:encK.bnI.weight|bias``
    ``encoder.{K}.{4I+1}.weight|bias``  ``[out]`` ``w:encK.bnI.mean|var``
    ``....running_mean|running_var``    ``[out]`` ``w:dec.*``                   ``decoder.*``
    the same ``w:codebook.K``              ``codebooks.{K}``                   ``[L, d]`` ``w:pos``
    in the first biases, see below      ``[1, D]`` ============================
    ==================================  =====================

    The released program adds a position vector to the input of the encoders. Ours has none; ``W (x
    + pos) + b`` is the first layer with the bias ``W pos + b``.
    """
    weights = {
        name.removeprefix("w:"): value for name, value in data.items() if name.startswith("w:")
    }
    position = weights.pop("pos").flatten()
    books = [value for name, value in weights.items() if name.startswith("codebook.")]
    state = {our_name(name): value for name, value in weights.items()}
    for k in range(len(books)):
        state[f"encoder.{k}.0.bias"] = (
            state[f"encoder.{k}.0.bias"] + state[f"encoder.{k}.0.weight"] @ position
        )
    hidden = [len(weights["enc0.lin0.weight"]), len(weights["enc0.lin1.weight"])]
    model = MQ(
        data["x"].shape[1], [len(book) for book in books], books[0].shape[1], hidden, **options
    ).double()
    found = model.load_state_dict(state, strict=False)
    assert not found.unexpected_keys and all(
        name.endswith("num_batches_tracked") for name in found.missing_keys
    )
    return model.eval()


def our_name(golden: str) -> str:
    """Name in :class:`MQ` of what ``tokenrec_mq.npz`` calls ``golden`` (without its prefix)."""
    module, layer, *rest = golden.split(".")
    if module == "codebook":
        return f"codebooks.{layer}"
    network = "decoder" if module == "dec" else f"encoder.{module.removeprefix('enc')}"
    kind = {"mean": "running_mean", "var": "running_var"}.get(rest[0], rest[0])
    return f"{network}.{LAYER[layer]}.{kind}"
