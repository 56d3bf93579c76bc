"""The page that travels with an export: what the model is, how it was judged, how it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recbole_genrec.report.protocol import whole_protocol


def model_card(model: Any, result: Mapping[str, Any]) -> str:
    """The text of README.md.

    Args:
        model: one of ours.
        result: of its run, see :func:`~.results_beside.result_beside`.
    """
    values = model.config.final_config_dict
    name = values["model"]
    dataset = values["dataset"]
    lines = [
        *("---", "library_name: recbole-genrec", "tags:", "- recommender-system"),
        *("- generative-recommendation", "- semantic-ids", "datasets:", f"- {dataset}", "---", ""),
        *(f"# {name} on {dataset}", ""),
        f"A sequential recommender, trained by `recbole-genrec`. It knows {model.n_items - 1:,} "
        f"items and holds their raw ids and texts, and the raw ids of "
        f"{len(model.user_tokens) - 1:,} users of its training.",
        *("", "## Use", "", "```python", "from recbole_genrec import load", ""),
        'model = load("this folder, or its hub id")',
        f'model.recommend(["{model.item_tokens[1]}"], k=10)',
        *("```", "", "## How it was judged", ""),
        *_protocol(values, result),
        *("", "## Figures", ""),
        *_figures(result),
        *("", "## How it was made", ""),
        *_making(result, values),
        *("", "## Files", "", "* `meta.json`: settings, ids, texts, and where each tensor belongs"),
        "* `tensors-*.safetensors`: weights, codes and the fitted tokenizer",
        "* `config.json`: the settings of the run",
    ]
    if hasattr(model, "codes"):
        lines.append("* `codes.json`: the codes of each item")
    lines += ["", "Nothing in these files is executed when they are loaded.", ""]
    return "\n".join(lines)


def _protocol(values: Mapping[str, Any], result: Mapping[str, Any]) -> list[str]:
    lines = [
        f"* {whole_protocol({**result, 'config': values})}",
        f"* seed: {values['seed']}",
        f"* item text: {', '.join(values['item_text_fields'] or ['none'])}",
    ]
    if values.get("beam_width") is not None and "search" in result.get("report", {}):
        search = result["report"]["search"]
        shown = ", ".join(f"{key} {value}" for key, value in search.items())
        lines.append(f"* search: {shown}")
    return lines


def _figures(result: Mapping[str, Any]) -> list[str]:
    metrics = result.get("test_result") or {}
    if not metrics:
        return ["The result file of the run was not beside the checkpoint, or nothing was tested."]
    rows = [f"| {metric} | {value:.6f} |" for metric, value in metrics.items()]
    return ["| metric on the test split | value |", "| --- | --- |", *rows]


def _making(result: Mapping[str, Any], values: Mapping[str, Any]) -> list[str]:
    command = result.get("command") or (
        f"recbole-genrec run --model={values['model']} --dataset={values['dataset']}"
    )
    lines = ["```bash", str(command), "```", ""]
    for name in ("commit", "versions", "parameters", "processes"):
        if result.get(name) is not None:
            lines.append(f"* {name}: {result[name]}")
    seconds = (result.get("seconds") or {}).get("cpu")
    if seconds is not None:
        lines.append(f"* CPU seconds: {seconds:,.0f}")
    return lines
