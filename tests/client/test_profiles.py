"""Which server and token are used, and how a profile is stored."""

import stat
import tomllib
from pathlib import Path

import pytest
from tinyclip._profiles import Profile, current, store
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
VARIABLES = {"TINYCLIP_URL": "http://other", "TINYCLIP_TOKEN": "other-token"}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "tinyclip").mkdir()
    return tmp_path / "tinyclip" / "config.toml"


@pytest.fixture
def environment(config: Path) -> dict[str, str]:
    config.write_text(CONFIG)
    return {"XDG_CONFIG_HOME": str(config.parent.parent)}


class TestCurrent:
    def test_without_any_configuration_it_is_this_machine(self, tmp_path: Path) -> None:
        assert current(environment={"XDG_CONFIG_HOME": str(tmp_path)}) == Profile("http://127.0.0.1:8321")

    def test_the_file_has_a_default(self, environment: dict[str, str]) -> None:
        assert current(environment=environment) == Profile("https://lab.example", "lab-token")

    def test_the_environment_precedes_the_file(self, environment: dict[str, str]) -> None:
        assert current(environment=environment | VARIABLES) == Profile("http://other", "other-token")

    def test_arguments_precede_the_environment(self, environment: dict[str, str]) -> None:
        found = current(url="http://given", token="given-token", environment=environment | VARIABLES)

        assert found == Profile("http://given", "given-token")

    def test_a_named_profile_precedes_the_environment(self, environment: dict[str, str]) -> None:
        assert current(name="prod", environment=environment | VARIABLES) == Profile("https://prod.example", "prod-token")

    def test_the_token_of_a_profile_is_never_sent_to_another_server(self, environment: dict[str, str]) -> None:
        assert current(environment=environment | {"TINYCLIP_URL": "http://other"}).token is None
        assert current(url="http://given", environment=environment).token is None

    def test_the_error_for_an_unknown_profile_lists_the_known_ones(self, environment: dict[str, str]) -> None:
        with pytest.raises(InputError, match=r"profile 'labs': .*config.toml has lab, prod; add \[profiles.labs\]"):
            current(name="labs", environment=environment)

    def test_an_invalid_file_is_named(self, environment: dict[str, str], config: Path) -> None:
        config.write_text("default = ")

        with pytest.raises(InputError, match=r"config.toml: not valid TOML"):
            current(environment=environment)


class TestStore:
    def test_the_rest_of_the_file_is_kept_and_only_its_owner_may_read_it(
        self, config: Path, environment: dict[str, str]
    ) -> None:
        config.write_text('# mine\ndefault = "lab"\n[profiles.lab]\nurl = "http://lab"  # the lab\ntoken = "old"\n')
        config.chmod(0o644)

        store(Profile("http://prod", "new"), "prod", environment)
        store(Profile("http://lab"), "lab", environment)

        text = config.read_text()
        assert ("# mine" in text, "# the lab" in text) == (True, True)
        assert tomllib.loads(text) == {
            "default": "lab", "profiles": {"lab": {"url": "http://lab"}, "prod": {"url": "http://prod", "token": "new"}}
        }
        assert stat.S_IMODE(config.stat().st_mode) == 0o600
        assert [each.name for each in config.parent.iterdir()] == ["config.toml"]

    def test_a_new_file_is_readable_by_its_owner_only(self, tmp_path: Path) -> None:
        file = store(Profile("http://lab", "secret"), "lab", {"XDG_CONFIG_HOME": str(tmp_path / "config")})

        assert stat.S_IMODE(file.stat().st_mode) == 0o600

    def test_an_invalid_file_is_not_overwritten(self, config: Path, environment: dict[str, str]) -> None:
        config.write_text("default = ")

        with pytest.raises(InputError, match="not valid TOML"):
            store(Profile("http://lab", "t"), "lab", environment)
        assert config.read_text() == "default = "

    def test_repr_does_not_show_the_token(self) -> None:
        assert "secret" not in repr(Profile("http://lab", "secret"))
