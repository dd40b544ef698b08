"""Which server is talked to, and with which token."""

from pathlib import Path

import pytest
from tinyclip._profiles import Profile, current
from tinyclip.errors import InputError

CONFIG = """\
default = "lab"
[profiles.lab]
url = "https://lab.example"
token = "lab-token"
[profiles.prod]
url = "https://prod.example"
token = "prod-token"
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "tinyclip").mkdir()
    (tmp_path / "tinyclip" / "config.toml").write_text(CONFIG)
    return {"XDG_CONFIG_HOME": str(tmp_path)}


def test_nothing_said_means_this_machine(tmp_path: Path) -> None:
    assert current(environment={"XDG_CONFIG_HOME": str(tmp_path)}) == Profile("http://127.0.0.1:8321")


def test_the_file_has_a_default(environment: dict[str, str]) -> None:
    assert current(environment=environment) == Profile("https://lab.example", "lab-token")


def test_the_environment_goes_before_the_file(environment: dict[str, str]) -> None:
    found = current(environment=environment | {"TINYCLIP_URL": "http://other", "TINYCLIP_TOKEN": "other-token"})

    assert found == Profile("http://other", "other-token")


def test_what_is_said_goes_before_everything(environment: dict[str, str]) -> None:
    found = current(url="http://said", token="said-token", environment=environment | {"TINYCLIP_URL": "http://other"})

    assert found == Profile("http://said", "said-token")


def test_a_named_profile_goes_before_the_environment(environment: dict[str, str]) -> None:
    found = current(name="prod", environment=environment | {"TINYCLIP_URL": "http://other", "TINYCLIP_TOKEN": "other-token"})

    assert found == Profile("https://prod.example", "prod-token")


def test_the_token_of_a_profile_never_goes_to_another_server(environment: dict[str, str]) -> None:
    assert current(environment=environment | {"TINYCLIP_URL": "http://other"}).token is None
    assert current(url="http://said", environment=environment).token is None


def test_a_profile_that_is_not_there_is_named_with_those_that_are(environment: dict[str, str]) -> None:
    with pytest.raises(InputError, match=r"profile 'labs': .*config.toml has lab, prod; add \[profiles.labs\]"):
        current(name="labs", environment=environment)


def test_a_file_that_is_no_toml_is_named(environment: dict[str, str]) -> None:
    Path(environment["XDG_CONFIG_HOME"], "tinyclip", "config.toml").write_text("default = ")

    with pytest.raises(InputError, match=r"config.toml: not valid TOML"):
        current(environment=environment)
