"""Boards over ssh: deploy to them, measure on them, examine them, and restore them as they were.

    ssh.py                 the connection: one for everything that is done on a board
    probe.py               what a board is, in one round trip, before anything is installed
    facts.py               the report behind `edge devices --on` and `edge doctor --on`
    packages.py            the packages of each engine
    install.py             what a board needs: `runtimes/`, one engine, the artifact
    board.py               a board as a place for workers, like this machine
    deploy.py              an artifact on a board, verified there
    fleet.py               several boards in parallel, one measurement at a time on each
    trtexec.py             TensorRT on boards whose Python cannot run it, built and timed by their trtexec
    conditions.py          governor, power mode and clocks of such a board
    power_sensors.py       a Jetson's power while trtexec runs
    camera.py              frames of a camera, by whichever program the board has
    recovered_samples.py   samples that an earlier connection left behind

All our files on a board are in `~/.edgeproof`. A finished folder gets its name by a rename: an interrupted copy is a
folder `.part-…`, which the next copy removes.
"""
