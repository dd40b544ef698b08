import pytest
from tinyclip.artifacts import paths


def test_the_file_of_a_checkpoint_is_parsed_into_what_its_path_was_made_of() -> None:
    folder = paths.checkpoint(paths.stage_checkpoints("job_1", 2, "half-size", 3), 400)

    assert paths.parse_checkpoint_file(f"{folder}/{paths.MANIFEST}") == (folder, 2, 3, 400, paths.MANIFEST)


@pytest.mark.parametrize(
    "path",
    [
        f"{paths.stage_student('job_1', 0, 's')}/{paths.MANIFEST}", paths.stage_picture("job_1", 0, "s"),
        f"{paths.checkpoint(paths.stage_checkpoints('job_1', 0, 's', 1), 5)}/deeper/file", paths.job_spec("job_1"),
    ],
)
def test_other_files_are_not(path: str) -> None:
    assert paths.parse_checkpoint_file(path) is None
