"""Which nodes of a SavedModel answer its signature: a file also holds those that save, restore and train it.

Field numbers are those of tensorflow/core's graph.proto, node_def.proto, function.proto and attr_value.proto.
"""

from __future__ import annotations

from converters.protobuf import Message


def serving_nodes(graph: Message, signature: Message) -> list[Message]:
    """The nodes that the signature's outputs depend on, in the graph and in the functions that it calls."""
    main = graph.message(2)
    if main is None:
        return []
    library = main.message(2)
    functions = {_function_name(one): one for one in (library.messages(1) if library else [])}
    found = _upstream(main.messages(1), _output_nodes(signature))
    called: set[str] = set()
    for node in found:  # grows while it is walked: a called function's nodes may call others
        for name in _calls(node):
            if name in functions and name not in called:
                called.add(name)
                found.extend(functions[name].messages(3))
    return found


def _output_nodes(signature: Message) -> list[str]:
    infos = [entry.message(2) for entry in signature.messages(2)]
    return [_node_of(info.text(1)) for info in infos if info is not None]


def _upstream(nodes: list[Message], names: list[str]) -> list[Message]:
    by_name = {node.text(1): node for node in nodes}
    waiting, found = list(names), dict[str, Message]()
    while waiting:
        name = waiting.pop()
        if name in by_name and name not in found:
            found[name] = by_name[name]
            waiting.extend(_node_of(tensor) for tensor in by_name[name].texts(3))
    return list(found.values())


def _node_of(tensor: str) -> str:
    """ "name:0" and "^name" both mean the node "name"."""
    return tensor.lstrip("^").split(":")[0]


def _function_name(function: Message) -> str:
    signature = function.message(1)
    return signature.text(1) if signature else ""


def _calls(node: Message) -> list[str]:
    """The functions that a node names in its attributes."""
    values = [entry.message(2) for entry in node.messages(5)]
    named = [value.message(10) for value in values if value is not None]
    return [function.text(1) for function in named if function is not None]
