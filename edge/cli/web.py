"""`edge web`: serve an artifact for the browser on this machine, or to phones on the same network."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `edge web`."""
    from edge.cli.options.numbers import port

    parser.add_argument("artifact", type=Path, metavar="ARTIFACT", help="a folder of `edge convert --for browser`")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on; 0.0.0.0: all networks (default: 127.0.0.1)",
    )
    parser.add_argument("--port", type=port, default=8000, metavar="N", help="port; 0: any free one (default: 8000)")
    parser.add_argument("--json", action="store_true", help="print the address as JSON")


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl+C."""
    from edge.console.text import print_code
    from edge.web.server import Server, address_of, browser_facts
    from runtimes.artifact import Artifact
    from runtimes.host.loopback import is_loopback

    artifact = Artifact.open(args.artifact)
    browser_facts(artifact)
    with Server(artifact, args.host, args.port) as server:
        address = address_of(server, args.host)
        if args.json:
            print(json.dumps({"address": address, "model": artifact.manifest.name}), flush=True)
        else:
            print(f"{artifact.manifest.name}: {address}\n  Ctrl+C stops it", flush=True)
            if not is_loopback(args.host, subdomains=True):
                print(
                    "  over plain HTTP from another machine, browsers allow no camera and only one thread",
                    file=sys.stderr,
                )
                print_code(address)
        server.serve_forever()
    return 0
