"""Boards at the other end of an ssh connection: installed to, measured on, examined, and left as they were.

    ssh.py       the line: one connection for all that is done on a board
    survey.py    what a board is, in one round trip, before anything of ours is there
    install.py   the three things that a board needs: `runtimes/`, one engine, the artifact
    board.py     a board as a place for workers, like this machine
    jobs.py      several boards at once, one measurement at a time on each
    trtexec.py   TensorRT where no Python of the board's can run it: the board's own trtexec builds and times
    camera.py    frames of a camera, by whatever program the board has
    kept.py      samples that an earlier connection left behind

Everything of ours on a board lies in `~/.edgeproof`, and what is finished there got its name by a rename: a copy that
broke off is a folder `.part-…`, which the next one removes.
"""
