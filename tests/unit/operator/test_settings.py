"""Settings: one tree from the environment, wrong ones named with a remedy."""

import pytest

from cabildo_operator.errors import SettingsError
from cabildo_operator.settings import Settings

NEEDED = {"CABILDO_TRAINER_IMAGE": "registry.example/trainer:1"}


def test_defaults_need_only_the_trainer_image() -> None:
    settings = Settings.from_environment({**NEEDED, "CABILDO_NAMESPACE": "system"})
    assert settings.trainer_image == "registry.example/trainer:1"
    assert settings.progress_url == "https://cabildo-progress.system.svc"
    assert (settings.workers, settings.exit_after_writes) == (32, 0)
    assert (settings.metrics_port, settings.probe_port, settings.progress_port) == (
        8000,
        8081,
        8443,
    )


def test_the_progress_url_can_be_another() -> None:
    settings = Settings.from_environment({**NEEDED, "CABILDO_PROGRESS_URL": "https://10.0.0.1:9/"})
    assert settings.progress_url == "https://10.0.0.1:9"


def test_the_description_names_every_setting() -> None:
    text = Settings.from_environment(NEEDED).describe()
    assert "trainer_image='registry.example/trainer:1'" in text
    assert all(f"{name}=" in text for name in Settings.__dataclass_fields__)


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("CABILDO_TRAINER_IMAGE", "", "name the image"),
        ("CABILDO_WORKERS", "many", "whole number"),
        ("CABILDO_WORKERS", "0", "1 to 256"),
        ("CABILDO_METRICS_PORT", "70000", "0 to 65535"),
        ("CABILDO_LOG_FORMAT", "xml", "one of text, json"),
        ("CABILDO_LOG_LEVEL", "LOUD", "DEBUG"),
        ("CABILDO_PROGRESS_URL", "http://plain", "https"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_name_value_and_a_remedy(
    name: str, value: str, remedy: str
) -> None:
    with pytest.raises(SettingsError, match=remedy) as caught:
        Settings.from_environment({**NEEDED, name: value})
    assert f"{name}={value!r}" in str(caught.value)
