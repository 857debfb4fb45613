"""A trace is read as it is meant, interrupted calls and odd bytes included."""

import pytest

from tests.support.strace import calls

JOURNAL = "/var/lib/seg-1.jsonl"


def test_a_call_has_its_name_its_descriptor_its_bytes_and_its_result() -> None:
    [call] = calls(f'7 write(12<{JOURNAL}>, "a\\t{{\\"k\\":\\"hold\\"}}\\n\\0\\377", 13) = 13\n')
    assert (call.name, call.target, call.result) == ("write", JOURNAL, 13)
    assert call.data == b'a\t{"k":"hold"}\n\0\xff'


def test_the_arrow_of_a_connection_does_not_end_its_name() -> None:
    line = '7 sendto(14<TCP:[127.0.0.1:1->127.0.0.1:2]>, "x) = 5", 6, 0, NULL, 0) = 6\n'
    [call] = calls(line)
    assert (call.target, call.result) == ("TCP:[127.0.0.1:1->127.0.0.1:2]", 6)


def test_a_call_lasts_until_it_is_resumed_whatever_other_threads_do_meanwhile() -> None:
    sync, write, again = calls(
        f"8 fdatasync(12<{JOURNAL}> <unfinished ...>\n"
        f'7 write(12<{JOURNAL}>, "x", 1) = 1\n'
        "8 <... fdatasync resumed>)          = 0\n"
        f"8 fdatasync(12<{JOURNAL}>) = -1 EIO (Input/output error)\n"
        "8 +++ exited with 0 +++\n"
    )
    assert (sync.name, sync.target, sync.began, sync.ended, sync.result) == (
        "fdatasync",
        JOURNAL,
        0,
        2,
        0,
    )
    assert (write.began, write.ended) == (1, 1)
    assert again.result == -1


def test_a_call_that_never_returned_has_no_end() -> None:
    [call] = calls(f"8 fdatasync(12<{JOURNAL}> <unfinished ...>\n")
    assert (call.ended, call.result) == (None, None)


def test_the_pieces_of_a_gathering_write_are_put_together() -> None:
    [call] = calls(
        '7 sendmsg(9<TCP:[a->b]>, {msg_name=NULL, msg_iov=[{iov_base="ab", iov_len=2}, '
        '{iov_base="cd", iov_len=2}], msg_iovlen=2}, 0) = 4\n'
    )
    assert (call.data, call.result) == (b"abcd", 4)


def test_a_string_that_was_cut_off_is_not_taken_for_the_whole() -> None:
    with pytest.raises(AssertionError, match="cut a string off"):
        calls(f'7 write(12<{JOURNAL}>, "abc"..., 100) = 100\n')
