"""Chats on disk: one JSON file each, written whole under a temporary name after every turn."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from runtimes.errors import InputError, UsageError

_MOST_BYTES = 1 << 28
_VERSION = 1
_HINT = "choose another file; `edge chat MODEL --resume` takes the newest"


@dataclass
class SavedChat:
    """What of a chat is kept: its messages (the system prompt among them), and with what it was held."""

    model: str
    template: str | None = None
    messages: list[dict[str, Any]] = field(default_factory=list)


def chats_folder() -> Path:
    """EDGE_CHATS, else where the platform keeps a user's state; it may not exist yet."""
    if named := os.environ.get("EDGE_CHATS"):
        return Path(named)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "edge" / "chats"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "edge" / "chats"
    return Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local" / "state")) / "edge" / "chats"


def new_name(model: str) -> str:
    """A name that no chat has: the time, and the model."""
    named = model.partition("://")[2] or Path(model).stem
    stem = re.sub(r"[^\w.-]+", "-", named)[:60] or "chat"
    name = f"{datetime.now():%Y-%m-%d-%H%M%S}-{stem}"
    taken = 1
    while path_of(name).exists():
        taken += 1
        name = f"{name.rsplit('~', 1)[0]}~{taken}"
    return name


def path_of(name: str) -> Path:
    """Where the chat of a name lies: in the folder of chats, or where a path with a slash says."""
    if os.sep in name or name.endswith(".json"):
        return Path(name)
    return chats_folder() / f"{name}.json"


def newest() -> Path:
    """The chat that was saved last; UsageError where there is none."""
    folder = chats_folder()
    files = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime) if folder.is_dir() else []
    if not files:
        raise UsageError(f"there is no chat to resume in {folder}", "leave --resume out to begin one")
    return files[-1]


def save(path: Path, chat: SavedChat) -> None:
    """Write the chat; a crash or a full disk leaves what was there before."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    text = json.dumps({"edge_chat": _VERSION, **vars(chat)}, ensure_ascii=False, indent=1)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            temporary.chmod(0o600)  # what people tell a model is theirs
            stream.write(text + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path) -> SavedChat:
    """A saved chat; UsageError where there is none, InputError for a file that is none, naming what is wrong."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path} is larger than any chat", _HINT)
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"there is no chat {path}", _names()) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", _HINT) from None
    except (ValueError, RecursionError):  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise InputError(f"{path} is no saved chat: it is not JSON", _HINT) from None
    return _checked(path, found)


def _names() -> str:
    folder = chats_folder()
    names = sorted(path.stem for path in folder.glob("*.json")) if folder.is_dir() else []
    return f"there are: {', '.join(names[-5:])}" if names else f"there is none in {folder} yet"


def _checked(path: Path, found: object) -> SavedChat:
    if not isinstance(found, dict) or found.get("edge_chat") != _VERSION:
        raise InputError(f"{path} is no saved chat of this version", _HINT)
    messages = found.get("messages")
    if not isinstance(messages, list):
        raise InputError(f"{path} is no saved chat: 'messages' is no list", _HINT)
    return SavedChat(
        model=str(found.get("model", "")),
        template=str(found["template"]) if found.get("template") else None,
        messages=[_message(path, index, message) for index, message in enumerate(messages)],
    )


def _message(path: Path, index: int, message: object) -> dict[str, Any]:
    if not isinstance(message, Mapping) or message.get("role") not in ("system", "user", "assistant"):
        raise InputError(f"{path} is no saved chat: 'messages[{index}].role' is no role", _HINT)
    if not isinstance(message.get("content"), str):
        raise InputError(f"{path} is no saved chat: 'messages[{index}].content' is no text", _HINT)
    kept: dict[str, Any] = {"role": message["role"], "content": message["content"]}
    return {**kept, "stopped": True} if message.get("stopped") is True else kept
