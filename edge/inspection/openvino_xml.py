"""Parse the XML of OpenVINO IR. A document type declaration, and with it any kind of entity, is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from converters.wire.buffer import ByteSource
from runtimes.errors import InputError

_DEEPEST = 200
_PIECE = 2**20
_MAIN_LAYER = ["net", "layers", "layer"]
_MAIN_EDGE = ["net", "edges", "edge"]


@dataclass(kw_only=True)
class Port:
    """An input or output of a layer; `names` are the tensor's names, separated by commas."""

    id: str
    precision: str
    names: str
    sizes: list[str] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int | str, ...]:
        """The sizes; a free dimension is named after its position."""
        return tuple(_dimension(text, index) for index, text in enumerate(self.sizes))


@dataclass(kw_only=True)
class Layer:
    """An operator of the main graph."""

    id: str
    name: str
    type: str
    attributes: Mapping[str, str]
    inputs: dict[str, Port] = field(default_factory=dict)
    outputs: dict[str, Port] = field(default_factory=dict)


@dataclass(kw_only=True)
class Net:
    """A model.

    name, version, runtime_version: The model's name, the version of the IR, and of the OpenVINO that wrote it.
    model_info: The properties that the author wrote for OpenVINO's Model API.
    layers: The layers of the main graph by id.
    makers: (layer, input port) → (layer, output port) that is connected to it.
    ops: The number of operators by type, including the bodies of loops and branches.
    constants: The attributes of each constant's data, including the bodies of loops and branches.
    """

    name: str = ""
    version: str = ""
    runtime_version: str = ""
    model_info: dict[str, str] = field(default_factory=dict)
    layers: dict[str, Layer] = field(default_factory=dict)
    makers: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    ops: Counter[str] = field(default_factory=Counter)
    constants: list[Mapping[str, str]] = field(default_factory=list)


def read_net(path: Path) -> Net:
    """Read the graph. Raises InputError if the file is broken or is not OpenVINO IR."""
    reader = _Reader(ByteSource.open(path))
    reader.parse()
    if not reader.net.layers:
        raise InputError(
            f"{path} is not an OpenVINO model: it has no <net> with <layers>", "pass the .xml of an OpenVINO model"
        )
    return reader.net


class _Reader:
    def __init__(self, source: ByteSource) -> None:
        self.source = source
        self.net = Net()
        self._path: list[str] = []
        self._layer: Layer | None = None
        self._port: Port | None = None
        self._kind = ""

    def parse(self) -> None:
        parser = expat.ParserCreate()
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.StartDoctypeDeclHandler = self._doctype
        view = self.source.view
        try:
            for start in range(0, len(view), _PIECE):
                parser.Parse(view[start : start + _PIECE], False)
            parser.Parse(b"", True)
        except (expat.ExpatError, ValueError) as error:  # ValueError: an encoding that Python cannot decode
            raise self.source.broken(str(error)) from None
        except LookupError as error:
            raise self.source.unsupported(f"has an unknown encoding ({error})") from None

    def _doctype(self, *_: object) -> None:
        raise self.source.unsupported("declares a document type, which may define entities")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self.source.spend(1 + len(attributes))
        self._path.append(tag)
        if len(self._path) > _DEEPEST:
            raise self.source.unsupported(f"nests elements more than {_DEEPEST} deep")
        if self._path == ["net"]:
            self.net.name, self.net.version = attributes.get("name", ""), attributes.get("version", "")
        elif tag == "layer":
            self._start_layer(attributes)
        elif tag == "data" and self._kind == "Const":
            self.net.constants.append(attributes)
        elif self._path == _MAIN_EDGE:
            self._edge(attributes)
        elif tag == "port" and self._layer is not None and self._path[:-2] == _MAIN_LAYER:
            self._start_port(self._layer, attributes)
        elif tag == "dim" and self._port is not None:
            self._port.sizes.append("")
        elif self._path == ["net", "rt_info", "Runtime_version"]:
            self.net.runtime_version = attributes.get("value", "")
        elif self._path[:-1] == ["net", "rt_info", "model_info"]:
            self.net.model_info[tag] = attributes.get("value", "")

    def _start_layer(self, attributes: dict[str, str]) -> None:
        self._kind = attributes.get("type", "")
        self.net.ops[self._kind] += 1
        if self._path == _MAIN_LAYER:
            name, number = attributes.get("name", ""), attributes.get("id", "")
            self._layer = self.net.layers[number] = Layer(id=number, name=name, type=self._kind, attributes=attributes)

    def _start_port(self, layer: Layer, attributes: dict[str, str]) -> None:
        number = attributes.get("id", "")
        self._port = Port(id=number, precision=attributes.get("precision", ""), names=attributes.get("names", ""))
        ports = layer.inputs if self._path[-2] == "input" else layer.outputs
        ports[number] = self._port

    def _edge(self, attributes: dict[str, str]) -> None:
        source = attributes.get("from-layer", ""), attributes.get("from-port", "")
        self.net.makers[attributes.get("to-layer", ""), attributes.get("to-port", "")] = source

    def _text(self, text: str) -> None:
        if self._port is not None and self._path[-1] == "dim":
            self._port.sizes[-1] += text  # expat may deliver one text in several pieces

    def _end(self, tag: str) -> None:
        self._path.pop()
        if tag == "port":
            self._port = None
        elif tag == "layer":
            self._kind = ""


def _dimension(text: str, index: int) -> int | str:
    text = text.strip()
    return int(text) if text.isdecimal() and len(text) < 20 else f"d{index}"
