"""Pages that are made from what the package says of itself, for ``mkdocs build``."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
OWN_PAGES = {
    "STORE": "methods-store",
    "TIGER": "methods-tiger",
    "LETTER": "methods-tiger",
    "LCRec": "methods-lcrec",
    "TokenRec": "methods-tokenrec",
    "SETRec": "methods-setrec",
    "MetaID": "methods-metaid",
    "LMIndexer": "methods-lmindexer",
    "TimelineRec": "methods-timelinerec",
}
"""The page of each method's stages and choices; RecBole's models have none."""
OPTIONS = ["parallel-codes.md", "methods-self-improvement.md"]
COPIED = {"CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md"}
COPIED |= {"CHANGELOG.md": "changelog.md"}
PLAIN = ["CITATION.cff"]
"""Files at the top of the repository that the site has as they are."""


def on_config(config: Any) -> Any:
    """Put the generated pages into the navigation."""
    os.environ.setdefault("COLUMNS", "100")
    notes = ["results.md", "results-codes.md", "results-speed.md", "above-sasrec.md"]
    notes += ["timelinerec-levers.md", "ensembles.md", "reliability.md", "scale.md"]
    notes += ["training-rows.md"]
    lists = {
        "METHODS": ["what-runs.md", *_method_pages(), "methods.md", *_choices(), *OPTIONS],
        "TOKENIZERS": list(_tokenizer_pages()),
        "RESULTS": [*notes, {"Reports of the benchmarks": _result_entries()}],
    }
    for entry in config["nav"]:
        for title, value in entry.items():
            if isinstance(value, str) and value in lists:
                entry[title] = lists[value]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages."""
    pages = {**_method_pages(), **_tokenizer_pages(), **_result_pages(), "cli.md": _cli_page()}
    for source, target in COPIED.items():
        pages[target] = _moved_links((ROOT / source).read_text(encoding="utf-8"))
    pages |= {name: (ROOT / name).read_text(encoding="utf-8") for name in PLAIN}
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Fill in the list of all keys; links out of ``docs/`` stay inside the site."""
    markdown = markdown.replace("](../benchmarks/results/", "](results/")
    for source, target in {**COPIED, **{name: name for name in PLAIN}}.items():
        markdown = markdown.replace(f"](../{source}", f"]({target}")
    if page.file.src_uri != "keys.md":
        return markdown
    return markdown.replace("<!-- all keys -->", _all_keys())


def _choices() -> list[str]:
    return [f"{name}.md" for name in dict.fromkeys(OWN_PAGES.values())]


def _method_pages() -> dict[str, str]:
    """A page a method, by path."""
    from recbole_genrec.model.names import MODELS

    return {f"methods/{name}.md": _method_page(name) for name in MODELS}


def _method_page(name: str) -> str:
    from recbole_genrec.model.names import MODELS

    location, text, source = MODELS[name]
    commands = [f"recbole-genrec run --model={name} --dataset=ml-100k"]
    if (ROOT / "properties" / "paper" / f"{name}.yaml").is_file():
        commands.append(f"recbole-genrec run --model={name} --dataset=amazon-beauty --preset=paper")
    choices = OWN_PAGES.get(name, "methods")
    lines = [
        f"# {name}",
        f"{_sentence(text)} Source: {source}.",
        _block("bash", "\n".join(commands)),
        "## What stands where",
        _block("text", _docstring(location.partition(":")[0])),
        f"What the paper leaves open, and what is our choice: [the methods](../{choices}.md).",
        "## Keys",
        f"The values without a dataset; `recbole-genrec keys {name} --dataset=ml-100k` shows those "
        "for a dataset. Keys that all methods share: [Keys](../keys.md).",
        _block("text", _keys_of(name)),
    ]
    return "\n\n".join(lines) + "\n"


def _tokenizer_pages() -> dict[str, str]:
    """A page a tokenizer, by path."""
    from recbole_genrec.tokenizer.descriptions import TOKENIZER_DESCRIPTIONS

    tables = _tables(None)
    pages = {}
    for name, (text, source) in TOKENIZER_DESCRIPTIONS.items():
        lines = [f"# {name}", f"{_sentence(text)} Source: {source}."]
        model = {"store": "STORE", "mq": "TokenRec", "metapath": "MetaID"}.get(name, "TimelineRec")
        command = f"recbole-genrec run --model={model} --dataset=ml-100k --tokenizer={name}"
        lines += [_block("bash", command), "## What stands where"]
        lines += [_block("text", _class_docstring(name)), "## Keys"]
        lines.append(_block("text", tables.get(f"Keys of tokenizer: {name}", "It has none.")))
        lines.append("What the codes of each tokenizer give: [Results](../results-codes.md).")
        pages[f"tokenizers/{name}.md"] = "\n\n".join(lines) + "\n"
    return pages


def _result_pages() -> dict[str, str]:
    """The reports that the benchmarks wrote."""
    pages = {}
    for file in sorted(RESULTS.glob("*.md")):
        text = file.read_text(encoding="utf-8")
        if not text.startswith("# "):
            text = f"# {file.stem}\n\n{text}"
        pages[f"results/{file.name}"] = text
    return pages


def _result_entries() -> list[dict[str, str]]:
    """The reports in the navigation, by the names of their files: some share a heading."""
    return [{re.sub("[-_]", " ", Path(path).stem): path} for path in _result_pages()]


def _cli_page() -> str:
    """The help of every command."""
    from recbole_genrec.cli import main
    from recbole_genrec.cli.commands import COMMANDS

    lines = ["# Help of every command"]
    for command in COMMANDS:
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            main([command.name, "--help"])
        lines += [f"## {command.name}", _block("text", shown.getvalue().strip("\n"))]
    return "\n\n".join(lines) + "\n"


def _all_keys() -> str:
    """Every key, from the declarations."""
    lines = ["## Every key", "What a key affects stands in the third column."]
    for title, table in _tables(None).items():
        lines += [f"### {title}", _block("text", table)]
    return "\n\n".join(lines) + "\n"


def _keys_of(method: str) -> str:
    return next(iter(_tables(method).values()))


def _tables(method: str | None) -> dict[str, str]:
    """The tables of ``recbole-genrec keys`` by title."""
    from recbole_genrec.experiments.key_list import key_list

    text = key_list(method, [])
    text = text.replace(str(ROOT), ".")
    return dict(_sections(text))


def _sections(text: str) -> Iterator[tuple[str, str]]:
    for section in re.split(r"\n\n(?=Keys )", text):
        title, _, table = section.partition("\n\n")
        yield title, table


def _docstring(module: str) -> str:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    return ast.get_docstring(tree) or ""


def _class_docstring(tokenizer: str) -> str:
    from recbole_genrec.tokenizer.registry import tokenizer_class

    return (tokenizer_class(tokenizer).__doc__ or "").strip()


def _moved_links(text: str) -> str:
    """Links of a page from the top of the repository, as seen from ``docs/``."""
    text = text.replace("](docs/", "](")
    for source, target in COPIED.items():
        text = text.replace(f"]({source})", f"]({target})")
    return text


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _block(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"
