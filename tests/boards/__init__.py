"""Boards for the tests: an aarch64 Debian under qemu-user, behind a real sshd on loopback. Its times are meaningless.

python -m tests.boards up --face raspberry-pi-4     stand one up, and ssh into it

debian.py    packages of Debian 12, fetched and unpacked by an apt of our own: nothing is installed here
root.py      the board's files and engines, made once and kept in the cache folder
faces.py     which board it looks like: device tree, sensors, sticks, as files laid over the root
stand.py     one board up: namespaces, emulator, sshd
line.py      a bad line to it: delays, stalls, cuts
fixtures.py  for pytest
"""
