"""Chats on disk: one JSON file each, written atomically after every turn."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from runtimes.artifact.json_fields import JsonObject
from runtimes.errors import InputError, UsageError

_MAX_BYTES = 1 << 28
_VERSION = 1
_HINT = "choose another file; `edge chat MODEL --resume` takes the newest"


@dataclass(kw_only=True)
class SavedChat:
    """The content of a saved chat.

    model: The model as given on the command line.
    template: The name of the chat template; None for the model's own.
    messages: All messages, including the system prompt.
    """

    model: str
    template: str | None = None
    messages: list[JsonObject] = field(default_factory=list)


def chats_folder() -> Path:
    """Return EDGE_CHATS, or else the platform's folder for user state; it may not exist yet."""
    if folder := os.environ.get("EDGE_CHATS"):
        return Path(folder)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "edge" / "chats"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "edge" / "chats"
    return Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local" / "state")) / "edge" / "chats"


def new_name(model: str) -> str:
    """Return an unused name, made of the time and the model."""
    model_name = model.partition("://")[2] or Path(model).stem
    stem = re.sub(r"[^\w.-]+", "-", model_name)[:60] or "chat"
    name = f"{datetime.now():%Y-%m-%d-%H%M%S}-{stem}"
    number = 1
    while path_of(name).exists():
        number += 1
        name = f"{name.rsplit('~', 1)[0]}~{number}"
    return name


def path_of(name: str) -> Path:
    """Return the file of a chat: a path if `name` has a slash or ends in .json, else a file in the folder of chats."""
    if os.sep in name or name.endswith(".json"):
        return Path(name)
    return chats_folder() / f"{name}.json"


def newest() -> Path:
    """Return the chat that was saved last. Raises UsageError if there is none."""
    folder = chats_folder()
    files = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime) if folder.is_dir() else []
    if not files:
        raise UsageError(f"there is no chat to resume in {folder}", "leave out --resume to start one")
    return files[-1]


def save(path: Path, chat: SavedChat) -> None:
    """Write the chat atomically: after a crash or on a full disk, the previous file is intact."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    text = json.dumps({"edge_chat": _VERSION, **vars(chat)}, ensure_ascii=False, indent=1)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            temporary.chmod(0o600)  # chats are private
            stream.write(text + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path) -> SavedChat:
    """Read a saved chat.

    Raises UsageError if the file does not exist, InputError if it is not a saved chat, with the reason.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path} is too large for a saved chat: the limit is {_MAX_BYTES >> 20} MiB", _HINT)
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"there is no chat {path}", _names()) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", _HINT) from None
    except (ValueError, RecursionError):  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise InputError(f"{path} is not a saved chat: it is not JSON", _HINT) from None
    return _check(path, content)


def _names() -> str:
    folder = chats_folder()
    names = sorted(path.stem for path in folder.glob("*.json")) if folder.is_dir() else []
    return f"there are: {', '.join(names[-5:])}" if names else f"there are no chats in {folder} yet"


def _check(path: Path, content: object) -> SavedChat:
    if not isinstance(content, dict) or content.get("edge_chat") != _VERSION:
        raise InputError(f"{path} is not a saved chat of this version", _HINT)
    messages = content.get("messages")
    if not isinstance(messages, list):
        raise InputError(f"{path} is not a saved chat: 'messages' is not a list", _HINT)
    return SavedChat(
        model=str(content.get("model", "")),
        template=str(content["template"]) if content.get("template") else None,
        messages=[_message(path, index, message) for index, message in enumerate(messages)],
    )


def _message(path: Path, index: int, message: object) -> JsonObject:
    if not isinstance(message, Mapping) or message.get("role") not in ("system", "user", "assistant"):
        raise InputError(f"{path} is not a saved chat: 'messages[{index}].role' is not a role", _HINT)
    if not isinstance(message.get("content"), str):
        raise InputError(f"{path} is not a saved chat: 'messages[{index}].content' is not text", _HINT)
    kept: JsonObject = {"role": message["role"], "content": message["content"]}
    kept |= {key: message[key] for key in ("thought", "raw") if isinstance(message.get(key), str)}
    pictures = message.get("pictures")
    if isinstance(pictures, list) and all(isinstance(name, str) for name in pictures):
        kept["pictures"] = pictures
    return {**kept, "stopped": True} if message.get("stopped") is True else kept
