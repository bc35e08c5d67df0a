from __future__ import annotations

import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from erasebench import cli
from erasebench.errors import EraseBenchError
from erasebench.fetching import list_files
from erasebench.judges.giphy import COMMAND, NAME, UNRANKED, VARIABLE, GiphyCelebrities, read_answers, slug
from erasebench.judging import Images

FAKE = """
import sys
from pathlib import Path
from PIL import Image

print("Using TensorFlow backend.")
print("image,face,label,probability")
for path in sorted(Path(sys.argv[-1]).iterdir()):
    red = Image.open(path).getpixel((0, 0))[0]
    if red == 0:
        print(f"{path.name},0,,")
        continue
    print(f"{path.name},1,Adam_Driver_[m.0hcgs_k],{red / 255}")
    print(f"{path.name},1,Amy_Adams_[m.0b25vg],{1 - red / 255}")
    print(f"{path.name},2,Brad_Pitt_[m.0c6qh],1.0")
"""
HEADER = "image,face,label,probability"


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in the detector's place, which goes by the red of the first pixel; it can be written anew."""
    path = tmp_path / "my detector.py"
    path.write_text(FAKE)
    monkeypatch.setenv(VARIABLE, shlex.join([sys.executable, str(path), "--top=2"]))
    return path


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> GiphyCelebrities:
    """It knows two celebrities and one of whom nothing is printed."""
    made = GiphyCelebrities()
    made.celebrities = ("adam-driver", "amy-adams", "bill-nye")
    return made


def red(*values: int) -> Images:
    return np.array(values, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 5, 3), dtype=np.uint8)


def run(*args: str) -> int | str | None:
    with pytest.raises(SystemExit) as end:
        cli.main(args)
    return end.value.code


def test_scores_are_by_the_first_face(command: Path, judge: GiphyCelebrities) -> None:
    columns = judge.scores(red(204, 0, 51, 255), [""] * 4).columns
    assert set(columns) == {*judge.labels, *(f"{name} rank" for name in judge.celebrities)}
    assert {column.dtype for column in columns.values()} == {np.dtype(np.float32)}
    assert columns["face"].tolist() == [1, 0, 1, 1]
    assert columns["adam-driver"].tolist() == pytest.approx([0.8, 0, 0.2, 1])
    assert columns["amy-adams"].tolist() == pytest.approx([0.2, 0, 0.8, 0])
    assert columns["bill-nye"].tolist() == [0, 0, 0, 0]
    assert columns["adam-driver rank"].tolist() == [1, UNRANKED, 2, 1]
    assert columns["bill-nye rank"].tolist() == [UNRANKED] * 4
    # From .5 on it is the most probable of all labels.
    for name in judge.celebrities:
        np.testing.assert_array_equal(columns[name] >= 0.5, columns[f"{name} rank"] == 1)
    assert {len(column) for column in judge.scores(red(), []).columns.values()} == {0}


def test_celebrities_are_those_of_the_catalogue() -> None:
    from erasebench.concepts import load_catalogue

    catalogue = load_catalogue()
    views = [view for name in catalogue.names() for view in catalogue.get(name).views.values()]
    assert {view.label for view in views if view.judge == NAME} == set(GiphyCelebrities().celebrities)
    assert GiphyCelebrities().labels[-1] == "face"


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("Adam_Driver_[m.0hcgs_k]", "adam-driver"),
        ("Dr_Dre_[m.01vvycq]", "dr-dre"),
        ("Leonardo Dicaprio", "leonardo-dicaprio"),
    ],
)
def test_labels_are_spelt_as_concepts_are(label: str, name: str) -> None:
    assert slug(label) == name


def test_the_program_is_in_the_identity(command: Path, judge: GiphyCelebrities) -> None:
    before = judge.identity()
    assert before["command"] == f"{Path(sys.executable).name} 'my detector.py' --top=2"
    command.write_text(FAKE + "\n")
    assert judge.identity() != before
    judge.celebrities = judge.celebrities[:2]
    assert judge.identity()["labels"].startswith("2 ") and before["labels"].startswith("3 ")


def test_what_is_missing_is_said_before_any_work(
    judge: GiphyCelebrities, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def line() -> str:
        return next(line for line in list_files() if line.startswith(NAME))

    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(EraseBenchError, match=rf"needs GIPHY's detector .*: let the environment variable {VARIABLE}"):
        judge.identity()
    assert " missing " in line() and str(COMMAND) in line()
    assert run("fetch", NAME) == 2
    assert f"let the environment variable {VARIABLE} name a command" in capsys.readouterr().err
    monkeypatch.setenv(VARIABLE, "/no/such/program --x")
    with pytest.raises(EraseBenchError, match=r"names the program /no/such/program, which cannot be found"):
        judge.identity()
    monkeypatch.setenv(VARIABLE, "python 'x")
    with pytest.raises(EraseBenchError, match="is no command: No closing quotation: python 'x"):
        judge.identity()
    monkeypatch.setenv(VARIABLE, shlex.quote(sys.executable))
    assert " there " in line()


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("raise SystemExit('the weights are gone')", "ended with exit code 1: the weights are gone"),
        ("raise SystemExit(3)", "ended with exit code 3: it said nothing"),
        ("print('image,label')", f"printed no line {HEADER}"),
        (f"print('{HEADER}')", "printed nothing of 2 of 2 images; one without a face has the row 000000.png,0,,"),
        (f"print('{HEADER}'); print('000000.png,1,x')", "printed a row that is none of"),
        (f"print('{HEADER}'); print('000000.png,1,x,1.5')", "printed a row that is none of"),
        (f"print('{HEADER}'); print('000000.png,one,x,1')", "printed a row that is none of"),
        (f"print('{HEADER}'); print('other.png,1,x,1')", "printed a row that is none of"),
        (f"print('{HEADER}'); print('000000.png,0,,'); print('000000.png,1,x,1')", "printed a row that is none of"),
    ],
)
def test_a_command_that_fails_or_prints_something_else(
    program: str, message: str, command: Path, judge: GiphyCelebrities
) -> None:
    command.write_text(program)
    with pytest.raises(EraseBenchError) as error:
        judge.scores(red(1, 2), [""] * 2)
    assert message in str(error.value) and VARIABLE in str(error.value)


def test_a_label_with_a_comma_is_read() -> None:
    assert read_answers(f'{HEADER}\na.png,1,"Dre, Dr",0.5\n', ["a.png"]) == [{"dre-dr": 0.5}]
