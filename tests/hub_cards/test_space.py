"""The Space in a real browser: upload a sound, press the button, read the label."""

import os
import re
import runpy
import shutil
import subprocess
import sys
import time

import pytest

from hub_cards import SPACE

gradio = pytest.importorskip("gradio", reason="needs gradio: pip install -e '.[space]'")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e '.[test]'")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture
def space(trained, tmp_path):
    """URL of the app, started as a user starts it."""
    environment = os.environ | {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, str(SPACE), str(trained)]
    log = tmp_path / "log"
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=tmp_path)
    try:
        deadline = time.monotonic() + 120
        while not (found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield found.group()
    finally:
        process.terminate()
        process.wait()


@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
def test_upload_a_sound_and_see_its_label(space, clip_folder, tmp_path):
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 1100})
        page.goto(space)
        page.locator("input[type=file]").first.set_input_files(clip_folder / "validation" / "low" / "2.wav")
        page.get_by_test_id("waveform-controls").wait_for(timeout=180_000)
        page.get_by_role("button", name="Tag", exact=True).click()
        label = page.get_by_test_id("label-output-value")
        label.wait_for(timeout=180_000)
        assert label.inner_text().strip() == "low"
        assert page.get_by_test_id("cell-0-2").inner_text().strip() == "low"
        page.get_by_test_id("matplotlib").locator("img").wait_for()
        page.screenshot(path=tmp_path / "space.png", full_page=True)
        browser.close()


def test_a_missing_model_is_named(monkeypatch):
    monkeypatch.delenv("MODEL_ID", raising=False)
    monkeypatch.setattr(sys, "argv", ["app.py"])
    with pytest.raises(SystemExit, match="name a model"):
        runpy.run_path(str(SPACE), run_name="__main__")
