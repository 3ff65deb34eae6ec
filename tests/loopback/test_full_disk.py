"""The journal on a real file system of 6 MiB, mounted where no other process sees it."""

import subprocess
import sys
import textwrap

import pytest

from loadtests.cluster import environment

IN_OWN_MOUNTS = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
_PROGRAM = textwrap.dedent("""
    import os, random, sys
    from pathlib import Path
    from crdt_service.disk.disk import Disk
    from crdt_service.disk.journal import ALLOCATED_BYTES, Journal
    from crdt_service.kernel.error import StorageFullError
    from crdt_service.wire.seal import Key

    directory, is_sealed = Path(sys.argv[1], "data"), sys.argv[2] == "sealed"
    keys = [Key(bytes(range(32)))] if is_sealed else []

    def open_journal():
        journal = Journal(Disk(directory), "node-0", random.SystemRandom(), keys)
        return journal, list(journal.recover())

    directory.mkdir()
    filler = Path(sys.argv[1], "filler")
    filler.write_bytes(bytes(1 << 20))
    journal, _ = open_journal()
    kept = []
    refused = 0
    while refused < 3:
        payload = os.urandom(100_000)
        try:
            journal.append(payload)
        except StorageFullError:
            refused += 1
        else:
            kept.append(payload)
    assert journal.log_bytes > ALLOCATED_BYTES, "what fits is taken though no more can be allocated ahead"
    journal.append(small := b"small")
    kept.append(small)
    number = journal.rotate()
    try:
        journal.write_snapshot(number, [os.urandom(1 << 20)], last=True)
    except OSError:
        pass
    else:
        sys.exit("the snapshot fitted")
    journal.close()
    journal, payloads = open_journal()
    assert kept == payloads, "nothing kept is lost and nothing refused is there"
    filler.unlink()
    journal.append(after := os.urandom(100_000))
    journal.close()
    assert [*kept, after] == open_journal()[1]
""")


@pytest.mark.parametrize("kind", ["plain", "sealed"])
def test_a_full_disk_refuses_keeps_what_it_took_and_goes_on_once_there_is_room(tmp_path, kind):
    mount = f"mount -t tmpfs -o size=6m none '{tmp_path}'"
    if subprocess.run([*IN_OWN_MOUNTS, mount], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount anything")
    program = f'{mount} && exec "$0" "$@"'
    done = subprocess.run(
        [*IN_OWN_MOUNTS, program, sys.executable, "-c", _PROGRAM, str(tmp_path), kind],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stderr)
