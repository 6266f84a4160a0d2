"""Questions are read back as they were written, and one whose answer is not in its context is named."""

import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_fast.finetuning.data.examples import QuestionExample
from electra_fast.finetuning.data.squad_files import read_questions

BOTH = ("text", "label")
CONTEXT = 'Ada Lovelace was born in London. She wrote of "id": "q1", in 1843.'


def squad(*questions, context=CONTEXT):
    return {"version": "v2.0", "data": [{"title": "t", "paragraphs": [{"context": context, "qas": list(questions)}]}]}


def question(id="q1", text="London", start=25, **others):
    return {"id": id, "question": "Where?", "answers": [{"text": text, "answer_start": start}]} | others


def read(path, content, **options):
    if not isinstance(content, str):
        content = json.dumps(content, indent=1)
    path.write_text(content, encoding="utf-8")
    return list(read_questions(path, **options))


@st.composite
def contexts(draw):
    """Contexts, and spans of them that have something in them."""
    context = draw(st.text(st.characters(codec="utf-8"), min_size=1, max_size=40).filter(str.strip))
    span = st.tuples(st.integers(0, len(context)), st.integers(0, len(context))).map(sorted)
    return context, draw(st.lists(span.filter(lambda s: context[s[0] : s[1]].strip()), min_size=1, max_size=3))


@settings(deadline=None, max_examples=60)
@given(st.lists(contexts(), min_size=1, max_size=4), st.sampled_from([None, 2]), st.booleans())
def test_squad_is_read_as_written(tmp_path_factory, paragraphs, indent, ascii):
    path = tmp_path_factory.mktemp("squad") / "a.json"
    data = [
        {
            "context": context,
            "qas": [
                {
                    "id": f"é{i}",
                    "question": "?",
                    "answers": [{"text": context[a:b], "answer_start": a} for a, b in spans],
                }
            ],
        }
        for i, (context, spans) in enumerate(paragraphs)
    ]
    content = json.dumps({"data": [{"paragraphs": data}]}, indent=indent, ensure_ascii=ascii)
    for i, (found, (context, spans)) in enumerate(zip(read(path, content), paragraphs, strict=True)):
        assert (found.id, found.context) == (f"é{i}", context)
        assert [text for text, _ in found.answers] == [context[a:b].strip() for a, b in spans]
        assert all(context.startswith(text, start) for text, start in found.answers)
        line = content.split("\n")[found.line - 1]
        assert json.dumps(f"é{i}", ensure_ascii=ascii) in line


def test_squad(tmp_path):
    path = tmp_path / "a.json"
    found = read(path, squad(question(), question("q2", start=0, text="Ada"), question("q3", is_impossible=True)))
    assert found == [
        QuestionExample("q1", 11, "Where?", CONTEXT, (("London", 25),)),
        QuestionExample("q2", 21, "Where?", CONTEXT, (("Ada", 0),)),
        QuestionExample("q3", 31, "Where?", CONTEXT, ()),
    ]
    # Off by white space.
    for text, start in [(" London ", 25), ("London ", 24), (" London", 24), ("London", 24)]:
        assert read(path, squad(question(text=text, start=start)))[0].answers == (("London", 25),)
    assert read(path, squad(question(7)))[0].id == "7"
    plain = {"id": "q1", "question": "Where?"}
    assert read(path, squad(plain), may_lack=BOTH)[0].answers is None
    with pytest.raises(ValueError, match=r"a\.json, line 11: question q1: must have answers, got none"):
        read(path, squad(plain))


@pytest.mark.parametrize(
    "content, message",
    [
        ("", r", line 1: the file must hold questions, got none"),
        ("\n\n", r", line 1: the file must hold questions, got none"),
        (squad(), r", line 1: the file must hold questions, got none"),
        ('{"data": [\n{"paragraphs"]}', r", line 2: must be JSON, got: "),
        ([], r": must have a list as data, got null"),
        ({"data": [{"paragraphs": [{"context": "x"}]}]}, r": must have a list as data\[0\]\.paragraphs\[0\]\.qas"),
        ({"data": [{"paragraphs": ["x"]}]}, r": data\[0\]\.paragraphs\[0\] must be an object, got \"x\""),
        (squad({"question": "?"}), r": data\[0\]\.paragraphs\[0\]\.qas\[0\] must have text as 'id', got null"),
        (squad(question(), question()), r", line 21: each id must occur once, got 'q1' again"),
        (
            squad(question(), question("b", "Paris")),
            r", line 21: question b: the answer \"Paris\" must stand in .* at 25",
        ),
        (squad(question(start=26)), r", line 11: question q1: the answer \"London\" .* at 26, got \"ondon\.\""),
        (squad(question(start=999)), r", line 11: question q1: the answer \"London\" .* at 999, got \"\""),
        (squad(question(start=-1)), r", line 11: question q1: answer_start must be the number of a character"),
        (squad(question(start="25")), r", line 11: question q1: answer_start must be the number of a character"),
        (squad(question(text=" ")), r", line 11: question q1: an answer must not be empty"),
        (squad(question(answers=[])), r", line 11: question q1: must have answers, got none"),
        (squad(question(answers="London")), r", line 11: question q1: answers must be a list of objects"),
        (squad(question(question=None)), r", line 11: question q1: the question must be text, got null"),
        (squad(question(), context=" "), r", line 11: question q1: the context must not be empty"),
    ],
)
def test_a_bad_file_is_named_with_line_and_id(tmp_path, content, message):
    with pytest.raises(ValueError, match=rf"a\.json{message}"):
        read(tmp_path / "a.json", content)


def mrqa(*questions, context=CONTEXT):
    header = {"header": {"dataset": "NewsQA", "split": "dev"}}
    return "\n".join(map(json.dumps, [header, {"id": "", "context": context, "qas": list(questions)}])) + "\n"


def detected(qid="q1", spans=((25, 30),), answers=("London",), **others):
    answer = {"text": "london", "char_spans": [list(span) for span in spans], "token_spans": [[5, 5]]}
    return {"qid": qid, "question": "Where?", "answers": list(answers), "detected_answers": [answer]} | others


def test_mrqa(tmp_path):
    path = tmp_path / "a.jsonl"
    # Both ends of a span are in it, its text is the context's, and answers without a place only count.
    assert read(path, mrqa(detected(answers=("London", "the capital", "the capital")))) == [
        QuestionExample("q1", 2, "Where?", CONTEXT, (("London", 25), ("the capital", -1)))
    ]
    assert read(path, mrqa(detected(spans=((24, 31), (0, 2)), answers=())))[0].answers == (("London.", 25), ("Ada", 0))
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert list(read_questions(packed)) == list(read_questions(path))


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "line 1: the file must hold questions"),
        (mrqa(detected(), detected()), "line 2: each id must occur once, got 'q1' again"),
        (mrqa(detected()) + "{", "line 3: must be a JSON object"),
        (mrqa(detected(qid=None)), r"line 2: qas\[0\] must have text as 'qid', got null"),
        (mrqa(detected(spans=((60, len(CONTEXT)),))), "line 2: question q1: char_spans must be of text within"),
        (mrqa(detected(spans=((3, 2),))), "line 2: question q1: char_spans must be of text within"),
        (mrqa(detected(spans=((3,),))), "line 2: question q1: char_spans must be of text within"),
        (mrqa(detected(detected_answers=[])), "line 2: question q1: must have answers, got none"),
        ('{"context": "x"}', "line 1: must have a list as qas, got null"),
    ],
)
def test_a_bad_line_of_mrqa_is_named(tmp_path, content, message):
    with pytest.raises(ValueError, match=rf"a\.jsonl, {message}"):
        read(tmp_path / "a.jsonl", content)


def test_names_that_do_not_say_what_they_are(tmp_path):
    with pytest.raises(ValueError, match=r"must end with \.json or \.jsonl, got .*a\.txt"):
        read(tmp_path / "a.txt", "")
    with pytest.raises(FileNotFoundError, match="no such file"):
        list(read_questions(tmp_path / "b.json"))


def flat(id="q1", text=("London",), start=(25,), **others):
    """A question as the datasets library has it."""
    answers = {"text": list(text), "answer_start": list(start)}
    return {"id": id, "title": "t", "context": CONTEXT, "question": "Where?", "answers": answers} | others


def answers(path, content, **options):
    return [question.answers for question in read(path, content, **{"empty_is_unanswerable": True, **options})]


ROME = (("London", 25),)


@pytest.mark.parametrize(
    "others, expected",
    [
        ({"answers": []}, ()),
        ({"answers": [], "is_impossible": None}, ()),
        ({"answers": {"text": [], "answer_start": []}}, ()),
        ({"answers": None, "plausible_answers": [{"text": "1843", "answer_start": 61}]}, ()),
        ({"answers": [], "plausible_answers": [{"text": "1843", "answer_start": 61}]}, ()),
        ({"plausible_answers": [{"text": "1843", "answer_start": 61}]}, ROME),
        *(({"answers": [], "is_impossible": value}, ()) for value in (True, "true", "True", 1, 1.0, "1")),
        *(({"is_impossible": value}, ROME) for value in (False, "false", "False", 0, 0.0, "0", "", None)),
        # Empty answers that say that there is none, also beside true ones.
        ({"answers": [{"text": "", "answer_start": -1}]}, ()),
        ({"answers": [{"text": None, "answer_start": -1}] * 2}, ()),
        ({"answers": {"text": [""], "answer_start": [-1]}}, ()),
        ({"answers": {"text": "", "answer_start": -1}}, ()),
        ({"answers": [{"text": "", "answer_start": -1}], "is_impossible": True}, ()),
        ({"answers": [{"text": "", "answer_start": -1}], "plausible_answers": [{"text": "Ada"}]}, ()),
        ({"answers": [{"text": "", "answer_start": -1}, {"text": "London", "answer_start": 25}]}, ROME),
        ({"answers": [{"text": "", "answer_start": -1}], "is_impossible": False}, None),
        # No list of answers, or one that must not be empty: nothing is known.
        ({"answers": None}, None),
        ({"answers": [], "is_impossible": False}, None),
    ],
)
@pytest.mark.parametrize("make", [question, flat])
def test_questions_without_an_answer(tmp_path, make, others, expected):
    if make is flat and others.get("answers") == []:
        others = others | {"answers": {"text": [], "answer_start": []}}
    rows = [make(), make("q2") | others]
    content = squad(*rows) if make is question else {"data": rows}
    assert answers(tmp_path / "a.json", content, may_lack=BOTH) == [ROME, expected]
    if expected is None:
        with pytest.raises(ValueError, match="question q2: must have answers, got none"):
            answers(tmp_path / "a.json", content)
    else:
        assert answers(tmp_path / "a.json", content) == [ROME, expected]


@pytest.mark.parametrize("make", [question, flat])
def test_answers_to_impossible_questions_are_counted_in_a_warning(tmp_path, make, recwarn):
    rows = [make(), make("q2", is_impossible=True), make("q3", is_impossible="true"), make("q4", is_impossible=False)]
    content = squad(*rows) if make is question else {"data": rows}
    expected = (
        r"a\.json: 2 questions have answers that are not read, since is_impossible is true; the first: line \d+: .* q2"
    )
    with pytest.warns(UserWarning, match=expected):
        assert answers(tmp_path / "a.json", content) == [ROME, (), (), ROME]
    recwarn.clear()
    wrong = squad(question(answers="London", is_impossible=True))
    with pytest.raises(ValueError, match="question q1: answers must be a list of objects"):
        answers(tmp_path / "a.json", wrong, may_lack=BOTH)
    none = squad(question(), question("q2", answers=[{"text": "", "answer_start": -1}], is_impossible=True))
    assert answers(tmp_path / "a.json", none) == [ROME, ()]
    assert not recwarn


def test_answers_that_are_absent_are_an_unknown_answer(tmp_path):
    bare = {"id": "q2", "question": "Where?"}
    assert answers(tmp_path / "a.json", squad(question(), bare), may_lack=BOTH) == [ROME, None]
    # A file without any answer has lost them, unless it says that there are none.
    with pytest.raises(ValueError, match=r"a\.json: there must be answers, got none, and no question with a true"):
        answers(tmp_path / "a.json", squad(question(answers=[])))
    assert answers(tmp_path / "a.json", squad(question(answers=[], is_impossible=True))) == [()]


@pytest.mark.parametrize("value", ["maybe", 2, [], ["true"], {}])
def test_is_impossible_must_be_true_or_false(tmp_path, value):
    with pytest.raises(ValueError, match=r"question q1: is_impossible must be true or false, got "):
        answers(tmp_path / "a.json", squad(question(is_impossible=value)))


def test_questions_as_the_datasets_library_has_them(tmp_path):
    rows = [flat(), flat("q2", ("Ada", "Ada Lovelace"), (0, 0)), flat("q3", (), ())]
    expected = [ROME, (("Ada", 0), ("Ada Lovelace", 0)), ()]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    for name, content in [("a.json", {"data": rows}), ("a.json", rows), ("a.jsonl", lines), ("a.json", lines)]:
        assert answers(tmp_path / name, content) == expected
    assert read(tmp_path / "a.json", lines, empty_is_unanswerable=True)[1].line == 2
    for wrong, message in [
        (flat(start=(25, 26)), "answers must have fields of one length"),
        (flat(start=("25",)), 'answer_start must be the number of a character in the context, got "25"'),
        (flat(start=(24.5,)), "answer_start must be the number of a character in the context, got 24.5"),
        (flat(start=(20,)), r"must stand in the context at 20, got \"n in L\"; it stands at 25"),
        (flat(text=("Paris",)), r"must stand in the context at 25, got \"Londo\"$"),
        (flat(text=("",)), "an answer must not be empty"),
    ]:
        with pytest.raises(ValueError, match=rf"a\.jsonl, line 1: question q1: .*{message}"):
            answers(tmp_path / "a.jsonl", json.dumps(wrong))


def test_mrqa_without_an_answer(tmp_path):
    content = mrqa(detected(), detected("q2", detected_answers=[], answers=()))
    assert answers(tmp_path / "a.jsonl", content) == [ROME, ()]
    content = mrqa(detected(), detected("q2", detected_answers=[], answers=("",)))
    assert answers(tmp_path / "a.jsonl", content) == [ROME, ()]
    assert answers(tmp_path / "a.jsonl", mrqa(detected("q2", detected_answers=[])), may_lack=BOTH) == [None]
