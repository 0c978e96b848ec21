"""The proof of "one definition": a field is added to the news task, in its files and only there.

Labels, training, GGUF, deployment and the reprocess are real, on a copy of the checkout. DOUBLES
are the teacher, and Ollama's API before the model that is deployed, which llama.cpp serves.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts import files
from contracts.errors import TaskDrifted
from contracts.stages import ANSWERS, EVALUATE, LABEL, LABELS
from driver.host_stages.record import Record
from driver.store import Run
from tests import added_field
from tests.rendered.loaded import taken
from tests.services.running_backend import BackendProcess, RunningBackend
from tests.services.simulated_teacher import Asked, SimulatedTeacher
from tests.small_demo import Row
from tests.smoke.definition_world import (
    COPIED,
    DAY,
    ENOUGH,
    FEW,
    IRRELEVANT,
    RELEVANT,
    REUSED,
    SEEDED,
    TASK,
    Added,
    Before,
    World,
    at,
    choose,
    started,
)
from tests.unit.checkout import MODELS, PROCESSOR, SCHEMAS, TYPES, VIEW, lay_out

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Iterator[World]:
    """Return the world, with a teacher that knows which items are relevant."""
    folder = tmp_path_factory.mktemp("one definition")
    for name in COPIED:
        left_out = shutil.ignore_patterns("__pycache__")
        shutil.copytree(files.ROOT / name, folder / "checkout" / name, ignore=left_out)
    lay_out(folder / "backend checkout")
    chosen = choose()
    files.write_jsonl(folder / "items.jsonl", (row for row, _ in chosen))
    known = {TASK.user_message(TASK.item.model_validate(row)): label for row, label in chosen}
    asked: list[Asked] = []

    def answer(question: Asked) -> str:
        asked.append(question)
        if "deadline" in question.messages[-1]["content"]:
            return json.dumps({"deadline": DAY})
        return json.dumps(known[question.item], ensure_ascii=False)

    with SimulatedTeacher(answer, slots=4) as teacher:
        yield World(folder, tiny_base, teacher, chosen, asked)


@pytest.fixture(scope="module")
def plain(world: World) -> Iterator[RunningBackend]:
    """Return a backend that does not know the field, with a few of the items."""
    yield from started(world, RunningBackend, world.folder / "plain")


@pytest.fixture(scope="module")
def before(world: World, plain: RunningBackend) -> Before:
    """Label and train before the edit, with the two steps that a test of reuse needs."""
    source = files.code_digest(*COPIED, root=world.checkout)
    for stage in REUSED:
        world.driver("stage", stage, settings=(FEW,))
    asked = len(world.asked)
    labels = world.rows(LABEL, LABELS)
    return Before(source, asked, labels, world.outputs(), world.told(plain.url))


@pytest.fixture(scope="module")
def added(world: World, before: Before, plain: RunningBackend) -> Added:
    """Add the field, look what it costs, run, and let the items have the new answers."""
    world.asked.clear()
    added_field.add(world.checkout)
    told = world.told(plain.url)
    world.driver("run", settings=(ENOUGH,))
    asked = [*world.asked]
    run = Run.last(world.workspace)
    assert run is not None
    refused = world.call("reprocess", settings=(ENOUGH, *at(plain.url)))
    own = world.folder / "mended"
    added_field.mend_backend(shutil.copytree(world.checkout, own / "checkout"))
    for mended in started(world, BackendProcess, own):
        checked = world.driver("task", "check", settings=at(mended.url))
        world.driver("reprocess", settings=(ENOUGH, *at(mended.url)))
        items = [mended.get(f"/api/items/{number}") for number in SEEDED]
    return Added(
        told,
        asked,
        world.rows(LABEL, LABELS),
        refused,
        checked,
        (run.folder / "report.html").read_text(encoding="utf-8"),
        world.rows(EVALUATE, ANSWERS),
        items,
        Record.find(world.workspace),
    )


@pytest.fixture(scope="module")
def removed(world: World, before: Before, added: Added, plain: RunningBackend) -> Before:
    """Take the field out again; nothing is asked, though the label stage runs once more."""
    world.asked.clear()
    added_field.remove(world.checkout)
    source, told = files.code_digest(*COPIED, root=world.checkout), world.told(plain.url)
    kept = world.digests(before.outputs)
    for stage in REUSED[:3]:
        world.driver("stage", stage, settings=(FEW,))
    return Before(source, len(world.asked), world.rows(LABEL, LABELS), kept, told)


def test_every_rendered_file_has_the_field(before: Before, added: Added, tmp_path: Path) -> None:
    rendered = added.told.rendered
    assert rendered.keys() == before.told.rendered.keys()
    assert not any("deadline" in text for text in before.told.rendered.values())
    for name, says in {
        "guide.md": "| `deadline` | Frist | date, YYYY-MM-DD, or null | Der letzte Tag",
        "fields.md": "| kept in | column `items.deadline`, Date() |",
        "Modelfile": "- deadline: der letzte Tag, oder null",
        "api_schemas.py": "    deadline: Annotated[date | None, _Stored]",
        "columns.py": "    deadline: Mapped[date | None] = mapped_column(",
        "migration.py": '            "deadline",\n',
        "types.ts": "  deadline: string | null;",
        "ItemDetails.vue": "{{ answer.deadline }}",
    }.items():
        assert says in rendered[name], name
    schema = json.loads(rendered["schema.json"])
    assert "deadline" in schema["required"]
    (tmp_path / "parser.py").write_text(rendered["parser.py"], encoding="utf-8")
    parser = taken(tmp_path, "parser")
    answer = before.labels[0]["label"]
    assert str(parser.parse(json.dumps(answer | {"deadline": DAY})).deadline) == DAY
    for refused in (answer, answer | {"deadline": "bald"}):
        with pytest.raises(parser.InvalidAnswer, match="deadline"):
            parser.parse(json.dumps(refused))


def test_check_names_every_place_that_lacks_it(before: Before, added: Added) -> None:
    assert before.told.check.returncode == 0
    assert "Differences: 0." in before.told.check.stdout
    assert added.told.check.returncode == TaskDrifted.exit_code
    found = [line.split("\t") for line in added.told.check.stdout.splitlines() if "\t" in line]
    about = {
        (severity, place.partition(":")[0])
        for severity, place, differs, *_ in found
        if "deadline" in differs
    }
    assert about == {
        ("breaks", "GET /api/items/{id}"),
        ("breaks", MODELS),
        ("breaks", PROCESSOR),
        ("differs", PROCESSOR),  # its system prompt
        ("differs", SCHEMAS),
        ("differs", TYPES),
        ("differs", VIEW),
    }


def test_diff_and_plan_say_what_it_costs(added: Added) -> None:
    asks = f"{IRRELEVANT} rows keep their labels; {RELEVANT} are asked for deadline alone"
    assert asks in added.told.diff
    assert asks in added.told.plan
    assert "field deadline is new: it is asked for alone, for rows with relevant true" in (
        added.told.diff
    )
    assert "words on deadline alone, line" in added.told.diff
    assert "\n  label prompt, " not in added.told.diff
    assert "train: has to be repeated" in added.told.diff
    planned = added.told.planned()
    assert [planned[name] for name in ("fetch", "label", "train")] == ["reuse", "run", "run"]


def test_the_teacher_is_asked_once_for_each_relevant_row_and_for_the_field_alone(
    world: World, before: Before, added: Added
) -> None:
    assert before.asked == RELEVANT + IRRELEVANT
    items = [TASK.item.model_validate(row) for row, label in world.chosen if label["relevant"]]
    asked = sorted(each.item for each in added.asked)
    assert asked == sorted(TASK.user_message(item) for item in items)
    for each in added.asked:
        assert each.schema["required"] == [*each.schema["properties"]] == ["deadline"]


def test_completed_rows_are_valid_as_a_whole(before: Before, added: Added, tmp_path: Path) -> None:
    (tmp_path / "parser.py").write_text(added.told.rendered["parser.py"], encoding="utf-8")
    parser = taken(tmp_path, "parser")
    for old, new in zip(before.labels, added.labels, strict=True):
        relevant = old["label"]["relevant"]
        assert new["label"] == old["label"] | {"deadline": DAY if relevant else None}
        assert new["derived"].get("fields", []) == (["deadline"] if relevant else [])
        parser.parse(json.dumps(new["label"]))


def test_the_retrained_model_answers_with_it(added: Added) -> None:
    """Without a grammar: the model writes the field because it was trained to."""
    said = [row["answers"]["candidate"]["answer"] for row in added.answers]
    valid = [each for each in map(_whole, said) if each is not None]
    assert valid, said
    assert all("deadline" in answer for answer in valid)


def _whole(text: str) -> Row | None:
    try:
        answer: Row = json.loads(text)
    except ValueError:
        return None
    return answer


def test_the_report_shows_it(added: Added) -> None:
    assert '<div class="name">deadline</div>' in added.report, "among the measures"
    assert '<th scope="row">deadline' in added.report, "in the answers side by side"
    assert f"{RELEVANT} asked for added fields" in added.report


def test_a_backend_without_it_gets_no_answers(plain: RunningBackend, added: Added) -> None:
    assert added.refused.returncode == TaskDrifted.exit_code
    assert "deadline" in added.refused.stderr
    assert all("llm_analysis" not in plain.get(f"/api/items/{n}")["metadata"] for n in SEEDED)


def test_the_items_hold_it_once_the_backend_stores_it(added: Added) -> None:
    assert "deadline" not in added.mended
    assert [item["deadline"] for item in added.items] == [DAY] * len(SEEDED)
    assert [state["deadline"] for state in added.record.before().values()] == [None] * len(SEEDED)
    seen = [line["outcome"] for line in added.record.lines() if "outcome" in line]
    assert seen.count("processed") == len(SEEDED)


def test_gone_it_is_as_if_it_had_not_been(before: Before, removed: Before) -> None:
    assert removed.source == before.source
    assert removed.told.rendered == before.told.rendered
    assert removed.told.check.stdout == before.told.check.stdout
    assert removed.told.diff == before.told.diff
    assert {removed.told.planned()[name] for name in REUSED} == {"reuse"}
    assert removed.asked == 0
    assert removed.labels == before.labels
    assert removed.outputs == before.outputs
