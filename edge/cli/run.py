"""`edge run`: run a model on pictures, camera frames or arrays, and print the results of its task."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from edge.console.text import printable
from runtimes.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

    from edge.inference.inputs import Source
    from edge.inference.model import Model
    from edge.inference.prediction import Prediction, Unreadable
    from runtimes.tasks.embedding import Embedding


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `edge run`."""
    from edge.cli.options import model_hints
    from edge.cli.options.numbers import count as number
    from edge.cli.options.numbers import seconds, share

    parser.add_argument("artifact", type=Path, metavar="ARTIFACT", help="an artifact folder or a model file")
    parser.add_argument(
        "pictures",
        type=Path,
        nargs="*",
        metavar="PICTURE",
        help="a picture, a .wav, .txt, .npy or .npz, or a folder of them",
    )
    parser.add_argument("--camera", type=int, metavar="N", help="use camera N (/dev/videoN); with --on, the board's")
    parser.add_argument(
        "--frames",
        type=number,
        metavar="N",
        help="with --camera: number of frames (default: until Ctrl+C; with --json 1)",
    )
    parser.add_argument("--on", metavar="HOST", help="run on this board over ssh")
    parser.add_argument("--offline", action="store_true", help="with --on: copy the engine from this machine")
    parser.add_argument("--runtime", metavar="ID", help="the engine; `edge devices` lists them")
    parser.add_argument("--threads", type=number, metavar="N", help="threads of the engine")
    parser.add_argument("--top", type=number, default=5, metavar="N", help="classes to print (default: 5)")
    parser.add_argument("--confidence", type=share, metavar="C", help="lowest score of what is found or heard, 0 to 1")
    parser.add_argument("--iou", type=share, metavar="I", help="overlap from which two boxes are one object, 0 to 1")
    parser.add_argument("--text", action="append", default=[], metavar="TEXT", help="a text; may be repeated")
    parser.add_argument(
        "--reference",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="for embeddings: another input to compare with by the cosine; may be repeated",
    )
    parser.add_argument("--draw", type=Path, metavar="DIR", help="write each picture with its result drawn on it")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the raw outputs of one input as .npz")
    parser.add_argument("--timeout", type=seconds, default=600.0, metavar="S", help="time limit for up to 64 pictures")
    model_hints.add_shapes(parser)
    model_hints.add_task(parser)
    model_hints.add_output(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    model_hints.add_preprocessing(parser)


def run(args: argparse.Namespace) -> int:
    """Run the model. Unreadable inputs are reported and skipped; InputError (status 3) is raised at the end."""
    from edge.inference.inputs import InlineText, is_picture_file
    from edge.inference.prediction import Unreadable
    from runtimes.errors import UsageError

    _check(args)
    with _open(args) as model:
        texts = [InlineText(f"text-{number}", text) for number, text in enumerate(args.text, 1)]
        inputs: list[Source] = [*_inputs(args.pictures), *texts]
        if args.save is not None and len(inputs) > 1:
            what = f"--save keeps the outputs of one input; there are {len(inputs)}"
            raise UsageError(what, "pass one input with --save")
        prepared = model.prepare(takes_pictures=not inputs or any(map(is_picture_file, inputs)))
        for line in prepared.assumptions:
            print(printable(f"assumed: {line}"), file=sys.stderr)
        answers = model.predictions(inputs) if args.camera is None else _camera_predictions(args, model)
        if args.reference:
            answers = _compare(answers, _references(model, _inputs(args.reference)))
        if args.draw is not None:
            answers = _draw_each(answers, args.draw)
        if args.save is not None:
            answers = _save_outputs(answers, args.save)
        rows, unreadable, total = [], list[Unreadable](), 0
        try:
            for answer in _print_each(answers, args.json, is_alone=len(inputs) == 1):
                total += 1
                if isinstance(answer, Unreadable):
                    unreadable.append(answer)
                elif args.json:
                    rows.append(answer.to_json())  # not the answer, whose outputs would fill the memory
        except BaseException:  # such as Ctrl+C, or a camera that is unplugged
            if rows:
                print(json.dumps(rows, indent=2))
            raise
    if args.json:
        print(json.dumps(rows, indent=2))
    _raise_unreadable(unreadable, total)
    return 0


def _open(args: argparse.Namespace) -> Model:
    """Open the model here or on the board of `--on`, with a progress bar for connecting to the board."""
    import edge
    from edge.cli.options.model_hints import model_hints_from
    from edge.console.progress import ProgressBar, ProgressEvent

    def show(event: ProgressEvent) -> None:
        if event.total:  # from the board
            bar.show(event)
        elif not args.json:  # from the engine, such as building
            print(printable(event.text), file=sys.stderr)

    bar = ProgressBar(1, f"connecting to {args.on}", quiet=args.json)
    with bar if args.on else nullcontext():
        return edge.open(
            args.artifact,
            runtime=args.runtime,
            threads=args.threads,
            on=args.on,
            offline=args.offline,
            hints=model_hints_from(args),
            top=args.top,
            confidence=args.confidence,
            iou=args.iou,
            shapes=args.shape,
            timeout_s=args.timeout,
            on_progress=show,
        )


def _check(args: argparse.Namespace) -> None:
    from runtimes.errors import UsageError

    if bool(args.pictures or args.text) == (args.camera is not None):
        raise UsageError("pass either pictures or --camera N", "for example: edge run ARTIFACT cat.jpg")
    if args.camera is not None and args.camera < 0:
        raise UsageError(f"there is no camera {args.camera}", "cameras count from 0: ls /dev/video*")
    if args.frames and args.camera is None:
        raise UsageError("--frames needs --camera", "add --camera 0, or leave it out")


def _camera_predictions(args: argparse.Namespace, model: Model) -> Iterator[Prediction | Unreadable]:
    """Yield the answer to each frame; frames are named camera-0-frame-1.jpg and so on."""
    from edge.remote.board import Board
    from edge.remote.camera import Camera, run_here, run_on_board

    board = model.place if isinstance(model.place, Board) else None
    camera = Camera(run_on_board(board.line) if board else run_here, args.camera, args.on or "this machine")
    most = args.frames or (1 if args.json else None)
    with tempfile.TemporaryDirectory(prefix="edge-camera-") as folder:
        for number in count(1) if most is None else range(1, most + 1):
            frame = Path(folder, f"camera-{args.camera}-frame-{number}.jpg")
            frame.write_bytes(camera.frame())
            for answer in model.predictions([frame]):
                yield _rename(answer, frame)
            frame.unlink()
            if board:
                board.forget_inputs()


def _rename(answer: Prediction | Unreadable, frame: Path) -> Prediction | Unreadable:
    """Return the answer to a frame under its name, without its temporary folder."""
    from edge.inference.prediction import Unreadable

    if not isinstance(answer, Unreadable):
        return replace(answer, input=frame.name)
    what = answer.error.message.replace(str(frame), frame.name)
    return Unreadable(frame.name, InputError(what, "see the camera's own pictures: its driver may be at fault"))


def _references(model: Model, paths: Sequence[Path]) -> dict[str, Embedding]:
    from edge.inference.prediction import Unreadable
    from runtimes.errors import UsageError
    from runtimes.tasks.embedding import Embedding

    found = {}
    for answer in model.predictions(paths):
        if isinstance(answer, Unreadable):
            raise answer.error
        if not isinstance(answer.result, Embedding):
            what = f"--reference compares embeddings; the task of this model is {answer.task}"
            raise UsageError(what, "leave it out, or name the task with --task embedding")
        found[answer.input] = answer.result
    return found


def _compare(
    answers: Iterable[Prediction | Unreadable], references: Mapping[str, Embedding]
) -> Iterator[Prediction | Unreadable]:
    """Yield the same answers, with their cosines to the references."""
    from edge.inference.prediction import Unreadable
    from runtimes.tasks.embedding import Embedding

    for answer in answers:
        if not isinstance(answer, Unreadable) and isinstance(answer.result, Embedding):
            answer = replace(answer, result=answer.result.compared(references))
        yield answer


def _inputs(given: Sequence[Path]) -> list[Path]:
    from edge.inference.inputs import find_inputs

    return [one for path in given for one in (find_inputs(path) if path.is_dir() else [path])]


def _print_each(
    answers: Iterable[Prediction | Unreadable], as_json: bool, is_alone: bool
) -> Iterator[Prediction | Unreadable]:
    """Yield the same answers, printing each as it arrives: results on stdout, unreadable inputs on stderr."""
    from edge.inference.prediction import Unreadable

    first_ms = None
    for answer in answers:
        if isinstance(answer, Unreadable):
            if not is_alone:
                print(printable(f"edge: {answer.error.message}"), file=sys.stderr)
        elif not as_json:
            print(_as_text(answer, is_first=answer.first_ms != first_ms), flush=True)
            first_ms = answer.first_ms
        yield answer


def _draw_each(answers: Iterable[Prediction | Unreadable], folder: Path) -> Iterator[Prediction | Unreadable]:
    """Yield the same answers, writing each picture with its result as `folder`/<name>.png."""
    from edge.inference.prediction import Unreadable

    written = set[Path]()
    for answer in answers:
        if not isinstance(answer, Unreadable):
            place = _free_name(folder, Path(answer.input).stem, written)
            picture = answer.draw()
            _save(picture, place)
            written.add(place)
        yield answer


def _save_outputs(answers: Iterable[Prediction | Unreadable], place: Path) -> Iterator[Prediction | Unreadable]:
    """Yield the same answers, writing the outputs of the only one. Raises UsageError for a second one."""
    from edge.inference.prediction import Unreadable
    from runtimes.arrays import save_arrays
    from runtimes.errors import UsageError

    is_written = False
    for answer in answers:
        if not isinstance(answer, Unreadable):
            if is_written:
                raise UsageError(f"{place} already has the outputs of the first input", "pass one input with --save")
            save_arrays(place, answer.outputs)
            is_written = True
        yield answer


def _free_name(folder: Path, stem: str, written: set[Path]) -> Path:
    """Return a name that this run has not written: pictures in different folders may have the same name."""
    names = (folder / (f"{stem}-{number}.png" if number > 1 else f"{stem}.png") for number in count(1))
    return next(place for place in names if place not in written)


def _save(picture: Image, place: Path) -> None:
    from runtimes.errors import UsageError

    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        picture.save(place)
    except OSError as error:
        raise UsageError(f"{place} cannot be written: {error.strerror or error}", "choose another --draw") from None


def _as_text(answer: Prediction, is_first: bool) -> str:
    """Format an input and its result; with `is_first`, also the time of the first inference, a warm-up."""
    from edge.tasks import task_view

    first = f"  (first inference: {answer.first_ms:.1f} ms)" if is_first else ""
    durations = {
        "preprocessing": answer.preprocess_ms,
        "inference": answer.latency_ms,
        "decoding": answer.decode_ms,
    }
    spent = ", ".join(f"{name} {milliseconds:.1f} ms" for name, milliseconds in durations.items())
    head = f"{answer.input}  {spent}  {answer.runtime} {answer.runtime_version}{first}"
    lines = [head, *task_view(answer.task).describe(answer.result).splitlines()]
    return "\n".join(printable(line) for line in lines)


def _raise_unreadable(unreadable: Sequence[Unreadable], total: int) -> None:
    """Raise InputError for unreadable inputs; with a single input, its own error."""
    if not unreadable:
        return
    if total == 1:
        raise unreadable[0].error
    from edge.inference.inputs import is_picture_file

    kind = "pictures" if all(is_picture_file(Path(one.input)) for one in unreadable) else "inputs"
    raise InputError(f"{len(unreadable)} of {total} {kind} could not be read", "they are named above")
