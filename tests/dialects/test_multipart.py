"""Forms: cut apart in any order, written anew, and refused where two readers could disagree."""

import email.message
import email.parser
import email.policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexd.dialects.multipart import PARTS_MAX, NoForm, Part, read_form, write_form

FILE = Part("file", b"\r\n--x\r\n\x00\xff", "hello.wav", "audio/wav")
TYPE = "multipart/form-data; boundary=xyz"


def framed(*parts: bytes, end: bytes = b"--xyz--\r\n") -> bytes:
    return b"".join(b"--xyz\r\n" + part + b"\r\n" for part in parts) + end


def field(name: str, value: str) -> bytes:
    return f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode()


def test_parts_come_in_the_order_they_were_sent() -> None:
    body = framed(field("b", "2"), field("a", ""), field("b", "3"))
    assert read_form(body, TYPE) == [Part("b", b"2"), Part("a", b""), Part("b", b"3")]


def test_what_clients_really_send_is_understood() -> None:
    head = b'content-disposition: form-data; name="file"; filename="a \\"b\\".mp3"\r\n'
    body = framed(head + b"Content-Type: audio/mpeg; rate=1\r\n\r\nID3", field("model", "m"))
    quoted = 'Multipart/Form-Data; charset=utf-8; Boundary="xyz"'
    assert read_form(body, quoted) == [
        Part("file", b"ID3", 'a "b".mp3', "audio/mpeg"),
        Part("model", b"m"),
    ]


def test_text_before_the_first_boundary_and_after_the_last_is_nobodys() -> None:
    body = b"preamble\r\n" + framed(field("a", "1")) + b"epilogue"
    assert read_form(body, TYPE) == [Part("a", b"1")]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (framed(field("a", "1")), "application/json"),
        (framed(field("a", "1")), "multipart/form-data"),
        (framed(field("a", "1")), ""),
        (framed(field("a", "1"), end=b""), TYPE),
        (b"", TYPE),
        (framed(b"no headers"), TYPE),
        (framed(b"\r\nno name"), TYPE),
        (framed(b"content-disposition: attachment; name=a\r\n\r\n1"), TYPE),
        (framed(b"content-disposition: form-data\r\n\r\n1"), TYPE),
        (framed(*[field("a", "1")] * (PARTS_MAX + 1)), TYPE),
        (b'--xyzother\r\ncontent-disposition: form-data; name="a"\r\n\r\n1\r\n--xyz--', TYPE),
        (framed(field("a", "1")) + framed(field("b", "2")), TYPE),
        (framed(b"x: " + b"y" * 9000 + b"\r\n" + field("a", "1")), TYPE),
    ],
)
def test_what_is_no_form_is_said_to_be_none(body: bytes, content_type: str) -> None:
    with pytest.raises(NoForm):
        read_form(body, content_type)


def test_names_cannot_break_out_of_the_frame_that_we_write() -> None:
    nasty = Part("file", b"x", 'a"\r\nx-evil: 1\\/../b', "audio/wav")
    content_type, body = write_form([nasty])
    [part] = read_form(body, content_type)
    assert part.filename == "a___x-evil: 1__.._b"
    assert b"\r\nx-evil" not in body


def test_another_reader_sees_the_same_parts() -> None:
    content_type, body = write_form([Part("model", b"m"), FILE])
    head = f"content-type: {content_type}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    first, second = message.iter_parts()
    assert isinstance(second, email.message.EmailMessage)
    assert first.get_payload(decode=True) == b"m"
    assert second.get_filename() == "hello.wav"
    assert second.get_content_type() == "audio/wav"


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=20)
PARTS = st.builds(
    Part,
    name=NAMES.filter(lambda name: not set(name) & set('"\\/')),
    data=st.binary(max_size=60),
)


@given(st.lists(PARTS, min_size=1, max_size=5))
def test_what_is_written_is_what_is_read(parts: list[Part]) -> None:
    content_type, body = write_form(parts)
    assert read_form(body, content_type) == parts


@given(st.binary(max_size=300), st.binary(max_size=100))
def test_whatever_is_posted_is_parts_or_no_form(start: bytes, end: bytes) -> None:
    for body in (start, b"--xyz\r\n" + start + b"\r\n--xyz" + end):
        try:
            parts = read_form(body, TYPE)
        except NoForm:
            continue
        assert all(part.data in body for part in parts)
