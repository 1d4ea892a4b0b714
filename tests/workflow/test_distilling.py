"""What is planned and made for a recipe that distills, and for one that does not."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from tests.unit.evaluation_fixtures import draw_dataset
from tests.workflow.test_workflow import MODEL, ROOT, SMALL, Workflow, copy_checkout

RECIPE = f"{MODEL}/ncnn-int8-tuned/recipe.md"
STEPS = [{"weights": {}}, {"activations": {"method": "kl"}}]
ONLY_FOR_IT = {"distillation_set", "distillation_images", "distillation_crops"}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    folder = tmp_path_factory.mktemp("distilling")
    copy_checkout(folder)
    return Workflow(folder)


def configure(workflow: Workflow, *steps: dict[str, dict[str, int]]) -> None:
    content = {"recipes": {"tuned": [*STEPS, *steps]}, "studies": {"demo": SMALL}}
    (workflow.folder / "small.yaml").write_text(yaml.safe_dump(content))


def test_crops_are_made_only_for_a_recipe_that_distills(checkout: Workflow) -> None:
    configure(checkout)
    jobs = checkout.planned("results/result.md")
    assert jobs["apply_recipe"] == 1
    assert ONLY_FOR_IT.isdisjoint(jobs)
    configure(checkout, {"distill": {"people": 6}})
    # For one row, whatever others there are; images that are drawn are not fetched.
    jobs = checkout.planned("results/result.md")
    assert {rule: jobs[rule] for rule in ONLY_FOR_IT & set(jobs)} == {"distillation_set": 1, "distillation_crops": 1}
    assert ONLY_FOR_IT.isdisjoint(checkout.planned(f"{MODEL}/ncnn-int8/model.param"))


def test_crops_are_those_of_the_chosen_people(checkout: Workflow) -> None:
    configure(checkout, {"distill": {"people": 6}})
    checkout.run(f"{MODEL}/distillation-6")
    results: Path = checkout.folder / MODEL
    people = json.loads((results.parent / "distillation-6.json").read_text())["people"]
    with np.load(results / "distillation-6/frames.npz") as frames:
        assert len(frames["shapes"]) == len(people) == 6
    # Another number of people is another choice, and leaves this one alone.
    configure(checkout, {"distill": {"people": 5}})
    jobs = checkout.planned(RECIPE)
    assert {rule: jobs[rule] for rule in ONLY_FOR_IT & set(jobs)} == {"distillation_set": 1, "distillation_crops": 1}
    configure(checkout, {"distill": {"people": 6}})
    assert ONLY_FOR_IT.isdisjoint(checkout.planned(RECIPE))


def test_images_of_the_users_own_are_cropped_where_they_are(checkout: Workflow) -> None:
    train = draw_dataset(checkout.folder / "my train", seed=1, first_image=101)
    val = draw_dataset(checkout.folder / "my val", seed=2)
    dataset = {
        split: {"images": str(drawn.images), "annotations": str(drawn.annotations)}
        for split, drawn in (("train", train), ("val", val))
    }
    models = yaml.safe_load((ROOT / "config.yaml").read_text())["studies"]["demo"]["models"]
    study = {"dataset": dataset, "calibration": {"people": 4}, "models": models, "variants": ["ncnn-int8-tuned"]}
    content = {"recipes": {"tuned": [*STEPS, {"distill": {"people": 5}}]}, "studies": {"mine": study}}
    (checkout.folder / "small.yaml").write_text(yaml.safe_dump(content))
    crops = f"{MODEL.replace('demo', 'mine', 1)}/distillation-5"
    steps = ("describe", "calibration_set", "distillation_set", "distillation_crops")
    assert checkout.planned(crops) == dict.fromkeys(steps, 1)
    checkout.run(crops)
    assert checkout.planned(crops) == {}
    people = json.loads((checkout.folder / "results/mine/distillation-5.json").read_text())["people"]
    (train.images / people[0]["image"]["file_name"]).touch()
    assert checkout.planned(crops) == {"distillation_crops": 1}
