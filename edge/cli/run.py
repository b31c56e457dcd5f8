"""`edge run`: classify pictures, or what a camera sees, with the likeliest classes by name."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.terminal import printable
from runtimes.errors import InputError

if TYPE_CHECKING:
    from edge.classify import Answer, Unreadable
    from edge.workers import Place


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the pictures, how to run, and what the model does not say of itself."""
    from edge import preprocessing
    from edge.arguments import count as number
    from edge.arguments import seconds

    parser.add_argument("artifact", type=Path, metavar="ARTIFACT", help="an artifact folder or a model file")
    parser.add_argument("pictures", type=Path, nargs="*", metavar="PICTURE", help="a picture, or a folder of them")
    parser.add_argument(
        "--camera", type=int, metavar="N", help="frames of camera N (/dev/videoN), with --on the board's"
    )
    parser.add_argument(
        "--frames", type=number, metavar="N", help="with --camera: so many (default: until Ctrl+C; with --json 1)"
    )
    parser.add_argument("--on", metavar="HOST", help="run it on this board, over ssh")
    parser.add_argument("--offline", action="store_true", help="with --on: bring the engine from here")
    parser.add_argument("--runtime", metavar="ID", help="the engine; `edge devices` lists them")
    parser.add_argument("--threads", type=number, metavar="N", help="threads of the engine")
    parser.add_argument("--top", type=number, default=5, metavar="N", help="classes to print (default: 5)")
    parser.add_argument("--timeout", type=seconds, default=600.0, metavar="S", help="seconds for every 64 pictures")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="one label a line, one for each class")
    parser.add_argument("--output", choices=["probability", "logit"], help="what the output is (default: found out)")
    parser.add_argument("--label-offset", type=int, choices=[0, 1], help="1 where the first class is the background")
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    preprocessing.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Classify; a picture that cannot be read is named, the others are classified, and then the status is 3."""
    from edge.bare_given import Given
    from edge.classify import Engine, Unreadable, classify, prepare
    from edge.preprocessing import said
    from edge.workers import Worker
    from runtimes.artifact import Artifact

    _check(args)
    artifact, pictures = Artifact.open(args.artifact), _pictures(args.pictures)
    given = Given(said(args), args.output, args.label_offset, args.labels)
    engine = Engine(args.runtime, args.threads, args.timeout, _note(args.json))
    with _place(args) as place, Worker(place=place) as worker:
        classifier = prepare(artifact, given, worker, engine)
        for line in classifier.assumptions:
            print(printable(f"assumed: {line}"), file=sys.stderr)
        one = partial(classify, classifier, worker=worker, engine=engine, count=args.top)
        answers = one(pictures) if args.camera is None else _seen(args, place, one)
        found = list(_shown(answers, args.json, is_alone=len(pictures) == 1))
    if args.json:
        good = [answer for answer in found if not isinstance(answer, Unreadable)]
        print(json.dumps([_as_dict(answer, classifier.assumptions) for answer in good], indent=2))
    _end([answer for answer in found if isinstance(answer, Unreadable)], len(found))
    return 0


def _note(quiet: bool) -> Callable[[str], None]:
    return lambda text: None if quiet else print(printable(text), file=sys.stderr)


def _check(args: argparse.Namespace) -> None:
    from runtimes.errors import UsageError

    if bool(args.pictures) == (args.camera is not None):
        raise UsageError("give pictures or --camera N, one of them", "for example: edge run ARTIFACT cat.jpg")
    if args.camera is not None and args.camera < 0:
        raise UsageError(f"there is no camera {args.camera}", "cameras count from 0: ls /dev/video*")
    if args.frames and args.camera is None:
        raise UsageError("--frames has no meaning without --camera", "add --camera 0, or leave it out")


def _seen(
    args: argparse.Namespace, place: Place, classified: Callable[[Sequence[Path]], Iterator[Answer | Unreadable]]
) -> Iterator[Answer | Unreadable]:
    """The answers to one frame after another, each named camera-0-frame-1.jpg and so on."""
    from edge.remote.board import Board
    from edge.remote.camera import Camera, here, on_board

    board = place if isinstance(place, Board) else None
    camera = Camera(on_board(board.line) if board else here, args.camera, args.on or "this machine")
    most = args.frames or (1 if args.json else None)
    with tempfile.TemporaryDirectory(prefix="edge-camera-") as folder:
        for number in count(1) if most is None else range(1, most + 1):
            frame = Path(folder, f"camera-{args.camera}-frame-{number}.jpg")
            frame.write_bytes(camera.frame())
            for answer in classified([frame]):
                yield replace(answer, picture=Path(frame.name))
            frame.unlink()
            if board:
                board.forget_inputs()


@contextmanager
def _place(args: argparse.Namespace) -> Iterator[Place]:
    """This machine, or the board that `--on` names, for as long as the block lasts."""
    from edge.workers import HERE

    if args.on is None:
        yield HERE
        return
    from edge.progress import Progress
    from edge.remote.board import Board

    with Progress(1, f"connecting to {args.on}", quiet=args.json) as bar:
        board = Board(args.on, offline=args.offline, note=bar.note)
        board.connect()
    try:
        yield board
    finally:
        board.close()


def _pictures(given: Sequence[Path]) -> list[Path]:
    from edge.pictures import picture_files

    return [picture for path in given for picture in (picture_files(path) if path.is_dir() else [path])]


def _shown(answers: Iterable[Answer | Unreadable], as_json: bool, is_alone: bool) -> Iterator[Answer | Unreadable]:
    """The same answers, each printed as it comes: for people on stdout, what is unreadable among others on stderr."""
    from edge.classify import Unreadable

    first_ms = None
    for answer in answers:
        if isinstance(answer, Unreadable):
            if not is_alone:
                print(printable(f"edge: {answer.error.message}"), file=sys.stderr)
        elif not as_json:
            print(_as_text(answer, is_news=answer.first_ms != first_ms), flush=True)
            first_ms = answer.first_ms
        yield answer


def _as_text(answer: Answer, is_news: bool) -> str:
    """The picture and its classes; `is_news`: with the first inference, which was before it and is no latency."""
    first = f"  (first inference: {answer.first_ms:.1f} ms)" if is_news else ""
    lines = [f"{answer.picture}  {answer.latency_ms:.1f} ms  {answer.runtime} {answer.runtime_version}{first}"]
    for row in answer.top:
        lines.append(f"  {row['probability']:7.4f}  {row['label'] or 'class'} ({row['index']})")
    return "\n".join(printable(line) for line in lines)


def _as_dict(answer: Answer, assumptions: Sequence[str]) -> dict[str, Any]:
    return {**vars(answer), "picture": str(answer.picture), "assumptions": list(assumptions)}


def _end(unreadable: Sequence[Unreadable], total: int) -> None:
    """Raise for pictures that could not be read; when there was no other, its own error is the result."""
    if not unreadable:
        return
    if total == 1:
        raise unreadable[0].error
    raise InputError(f"{len(unreadable)} of {total} pictures could not be read", "they are named above")
