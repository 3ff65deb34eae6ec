import pytest

from crdt_service.wire import message
from crdt_service.wire.message import Delta, decode_reply, decode_request, encode_message
from tests.fuzz.corpus import example, make_corpus
from tests.fuzz.target import TARGETS, run


def test_every_target_has_inputs_to_start_from_and_handles_them():
    corpus = make_corpus()
    assert set(range(len(TARGETS))) == {data[0] for data in corpus}
    for data in corpus:
        run(data)


@pytest.mark.parametrize("kind", message.Request.__args__ + message.Reply.__args__, ids=lambda kind: kind.__name__)
def test_the_example_of_each_message_is_one(kind):
    decode = decode_request if kind in message.Request.__args__ else decode_reply
    sent = example(kind, [Delta("k", 1, 1, b"")])
    assert sent == decode(encode_message(sent))
