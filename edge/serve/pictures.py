"""Check the pictures of a request before llama-server decodes them, and reject links.

Pictures are untrusted: Pillow decodes each within limits of size, and llama-server gets it as a PNG written here.
A prompt that ends with a picture is rejected too, because llama-server aborts when no text follows it.
Links are rejected on every path, because llama-server would fetch them from inside this network, for any client.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from edge.serve.errors import ApiError
from runtimes.artifact.json_fields import JsonObject
from runtimes.errors import EdgeError

_MAX_PICTURES = 64
# The keys of a part that hold a picture, a sound or a video; Anthropic's pictures are in `source`.
_MEDIA = ("image_url", "video_url", "input_audio", "input_video")
_SOURCE = "source"
# Fields that hold no parts of messages, but may use the same words.
_OTHER = ("tools", "functions", "json_schema", "response_format", "chat_template_kwargs", "metadata", "arguments")
_LINK = re.compile(r"\s*(http|file:)", re.IGNORECASE)  # llama-server fetches whatever begins with "http"
_MARKER_AT_END = re.compile(r"<__media_\w*__>\Z")  # llama-server's mark for a picture, which `/props` reports
_DATA = re.compile(r"data:image/[\w.+-]+;base64,(.*)", re.DOTALL)


def check_links(fields: Any) -> None:
    """Raise ApiError 400 if any part of a request is a link to a picture, a sound or a video."""
    for place, part in _media(fields):
        for key in (*_MEDIA, _SOURCE):
            inner = part.get(key)
            texts = inner.values() if isinstance(inner, Mapping) else (inner,)
            if any(isinstance(text, str) and _LINK.match(text) for text in texts):
                what = f"'{place}' is a link: send the content as a data: address"
                raise ApiError(400, what, param=place, code="unsupported_value")


def with_checked_pictures(body: bytes) -> bytes:
    """Return the body of a request with each picture decoded and written again.

    Raises ApiError 400 for what is not a picture, or too large.
    """
    fields = json.loads(body)
    found = 0
    for place, part in _media(fields):
        found += _replace(part, place)
    for place, prompt in _prompts(fields):
        media = [_convert_to_png(str(text), f"{place}.multimodal_data") for text in prompt["multimodal_data"]]
        found += len(media)
        prompt["multimodal_data"] = media
        if _MARKER_AT_END.search(str(prompt.get("prompt_string"))):
            raise ends_with_picture(f"{place}.prompt_string")
    if found > _MAX_PICTURES:
        raise ApiError(400, f"the request has {found} pictures, the limit is {_MAX_PICTURES}", code="invalid_value")
    return json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace") if found else body


def ends_with_picture(place: str) -> ApiError:
    """Return the error for a prompt in which no text follows the last picture."""
    what = f"'{place}' ends with a picture: put the text after it"
    return ApiError(400, what, param=place, code="invalid_value")


def is_picture(part: Any) -> bool:
    """Return whether a part of a message holds a picture, a sound or a video."""
    return isinstance(part, dict) and (_SOURCE in part or any(key in part for key in _MEDIA))


def _replace(part: JsonObject, place: str) -> int:
    """Replace the picture of a part, and return the number of pictures."""
    url = part.get("image_url")
    if isinstance(url, dict) and isinstance(url.get("url"), str):
        url["url"] = _address(url["url"], place)
        return 1
    if isinstance(url, str):
        part["image_url"] = _address(url, place)
        return 1
    source = part.get("source")
    if part.get("type") == "image" and isinstance(source, dict) and isinstance(source.get("data"), str):
        source["data"], source["media_type"] = _convert_to_png(source["data"], place), "image/png"
        return 1
    return 0


def _address(url: str, place: str) -> str:
    match = _DATA.fullmatch(url.strip())
    if match is None:
        what = f"'{place}' is not a picture: send it as data:image/png;base64,... or data:image/jpeg;base64,..."
        raise ApiError(400, what, param=place, code="invalid_value")
    return f"data:image/png;base64,{_convert_to_png(match[1], place)}"


def _convert_to_png(text: str, place: str) -> str:
    """Return a picture in base64 as PNG in base64."""
    from edge.llm.pictures import png_of

    try:
        return base64.b64encode(png_of(base64.b64decode(text, validate=True))).decode("ascii")
    except binascii.Error:
        raise ApiError(400, f"'{place}' is not base64", param=place, code="invalid_value") from None
    except EdgeError as error:
        raise ApiError(400, f"'{place}': {error.message}", param=place, code="invalid_value") from None


def _media(fields: Any) -> Iterator[tuple[str, JsonObject]]:
    """Yield every object that holds a picture, a sound or a video, however deep, and its place."""
    rest: list[tuple[str, Any]] = [("", fields)]
    while rest:  # not recursive: a body may be nested deeper than Python's stack
        place, value = rest.pop()
        if isinstance(value, dict):
            if any(key in value for key in _MEDIA) or (value.get("type") == "image" and _SOURCE in value):
                yield place, value
            inner = [(f"{place}.{key}" if place else key, one) for key, one in value.items() if key not in _OTHER]
            rest += reversed(inner)
        elif isinstance(value, list):
            rest += reversed([(f"{place}[{index}]", one) for index, one in enumerate(value)])


def _prompts(fields: Any) -> Iterator[tuple[str, Any]]:
    """Yield the prompts of `/completion` and `/embeddings` that hold pictures, and their places."""
    for place in ("prompt", "input", "content"):
        prompts = fields.get(place) if isinstance(fields, dict) else None
        for one in prompts if isinstance(prompts, list) else [prompts]:
            if isinstance(one, dict) and isinstance(one.get("multimodal_data"), list):
                yield place, one
