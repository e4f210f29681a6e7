"""How an instruction is put before a model: plainly, or by a chat template, in Jinja as transformers has it.

A template is rendered in a sandbox, and without today's date, so that the same records give the same text.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from console.small_files import Unreadable, json_of, text_of

from .errors import DataError

if TYPE_CHECKING:
    import jinja2

CONFIG = "tokenizer_config.json"
TEMPLATE_FILE = "chat_template.jinja"
LARGEST = 1 << 20  # bytes of a template


@dataclass(frozen=True)
class Template:
    """`origin`: "plain" or where `source` is from; `tokens`: bos_token and eos_token, as a template names them."""

    origin: str
    source: str | None
    tokens: dict[str, str]

    @property
    def end(self) -> str | None:
        """The token that ends a turn, where the tokeniser's own template is used."""
        return self.tokens.get("eos_token") if self.source is not None else None

    def render(self, instruction: str, context: str) -> str:
        """Everything up to where the response begins. Raises DataError where the template fails."""
        content = "\n\n".join(part for part in (instruction, context) if part)
        if self.source is None:
            return f"{content}\n"
        try:
            return _compiled(self.source).render(
                messages=[{"role": "user", "content": content}],
                add_generation_prompt=True,
                tools=None,
                documents=None,
                instruction=instruction,
                context=context,
                **self.tokens,
            )
        except Exception as error:  # a template may fail in any way
            raise DataError(f"{self.origin}: the template fails: {error}") from None


def plain() -> Template:
    """The instruction, a blank line, its context, the end of the line."""
    return Template("plain", None, {})


def chosen(wanted: str | None, tokeniser: Path | None) -> Template:
    """`wanted`: "plain", "chat" (the tokeniser's own), a file in Jinja, or None: its own, where it has one."""
    if wanted == "plain":
        return plain()
    folder = tokeniser.parent if tokeniser is not None else None
    config = _config(folder) if folder is not None else {}
    tokens = {name: token for name in ("bos_token", "eos_token") if (token := _token(config.get(name)))}
    if wanted not in (None, "chat"):
        file = Path(wanted)
        return Template(f"--template {file}", _text(file), tokens)
    own = _own(folder, config, tokens) if folder is not None else None
    if wanted is None:
        return own or plain()
    if own is None:
        raise DataError(
            f"--template chat: no chat template beside the tokeniser (in {CONFIG} or {TEMPLATE_FILE});"
            " 'plain' or a file is expected"
        )
    return own


def _config(folder: Path) -> dict[str, Any]:
    config: Any = {}
    if (folder / CONFIG).is_file():
        try:
            config = json_of(folder / CONFIG)
        except (OSError, ValueError) as error:
            raise DataError(f"{folder / CONFIG}: cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise DataError(f"{folder / CONFIG}: a JSON object is expected")
    return config


def _own(folder: Path, config: dict[str, Any], tokens: dict[str, str]) -> Template | None:
    if (folder / TEMPLATE_FILE).is_file():
        return Template(str(folder / TEMPLATE_FILE), _text(folder / TEMPLATE_FILE), tokens)
    source = config.get("chat_template")
    if isinstance(source, list):  # several, by name
        named = [entry for entry in source if isinstance(entry, dict) and entry.get("name") == "default"]
        source = named[0].get("template") if named else None
    return Template(str(folder / CONFIG), source, tokens) if isinstance(source, str) else None


def _token(entry: Any) -> str | None:
    token = entry.get("content") if isinstance(entry, dict) else entry
    return token if isinstance(token, str) else None


def _text(file: Path) -> str:
    try:
        return text_of(file, LARGEST)
    except (OSError, Unreadable) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"--template {file}: {reason}; 'plain', 'chat' or a file in Jinja is expected"
        ) from None


@lru_cache
def _compiled(source: str) -> jinja2.Template:
    """In the surroundings in which transformers renders chat templates."""
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """{% generation %} marks what an assistant says and leaves it as it is."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def raise_exception(message: str) -> None:
        raise ValueError(message)

    def tojson(value: Any, ensure_ascii: bool = False, **how: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **how)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    return environment.from_string(source)
