"""The Space in a real browser: upload a sound, press the button, read the label."""

import os
import re
import runpy
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
from transformers import pipeline

from hub_cards import SPACE
from modeling_fftp.events_fftp import EventChange

gradio = pytest.importorskip("gradio", reason="needs gradio: pip install -e '.[space]'")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e '.[test]'")

from hub_cards.space import app  # noqa: E402

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
        # Tables take files too, and may be there before the sound's place is.
        upload = page.get_by_test_id("waveform-Sound").locator("input[type=file]")
        upload.set_input_files(clip_folder / "validation" / "low" / "2.wav")
        page.get_by_test_id("waveform-controls").wait_for(timeout=180_000)
        page.get_by_role("button", name="Tag", exact=True).click()
        label = page.get_by_test_id("label-output-value")
        label.wait_for(timeout=180_000)
        assert label.inner_text().strip() == "low"
        assert page.get_by_test_id("cell-0-2").inner_text().strip() == "low"
        page.get_by_test_id("matplotlib").locator("img").wait_for()
        page.screenshot(path=tmp_path / "space.png", full_page=True)
        browser.close()


@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
def test_a_microphone_is_heard_live(space, tmp_path):
    time, pieces = np.arange(24000) / 16000, []
    for pitch in (200, 2500):
        pieces.append(0.3 * np.sin(2 * np.pi * pitch * time) + np.random.default_rng(0).normal(size=24000) * 0.01)
    # The browser plays it again and again.
    soundfile.write(tmp_path / "microphone.wav", np.concatenate(pieces), 16000, subtype="PCM_16")
    flags = ["use-fake-ui-for-media-stream", "use-fake-device-for-media-stream"]
    flags += [f"use-file-for-fake-audio-capture={tmp_path / 'microphone.wav'}", "no-sandbox"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[f"--{flag}" for flag in flags])
        page = browser.new_page(viewport={"width": 1200, "height": 800})
        page.goto(space)
        page.get_by_role("tab", name="Live").click()
        # Gradio's two encoders of sound; what records before they are there records nothing.
        while len(page.workers) < 2:
            page.wait_for_timeout(200)
        page.wait_for_timeout(1000)
        page.get_by_role("button", name="Record").last.click()
        for label in ("low", "high"):
            shown = page.get_by_test_id("label-output-value").last
            sync_api.expect(shown).to_have_text(label, timeout=120_000)
        # The second event from the top: what sounded before.
        sync_api.expect(page.get_by_test_id("cell-1-2").last).to_have_text("low", timeout=120_000)
        page.screenshot(path=tmp_path / "live.png")
        browser.close()


@pytest.fixture
def tag(trained):
    return pipeline("audio-tagging", model=str(trained), trust_remote_code=True)


def play(session, sound, clock, seconds=0.25, delay=0.0):
    """Send sound as the browser does, so many seconds at a time; it comes later by `delay`."""
    step = round(seconds * session.rate)
    clock["now"] += delay
    for start in range(0, len(sound), step):
        clock["now"] += seconds
        session.hear(sound[start : start + step], None)


def test_times_count_sound_that_is_missing(tag, monkeypatch):
    clock = {"now": 100.0}
    monkeypatch.setattr(app.time, "monotonic", lambda: clock["now"])
    session = app.LiveSession(tag, 16000)
    second = (np.random.default_rng(0).normal(size=(16000, 1)) * 3000).astype(np.int16)
    play(session, second, clock)
    # A message that is late for less than that is late.
    play(session, second, clock, delay=0.9)
    assert session.missing == 0.0
    play(session, second, clock, delay=3.0)
    assert session.missing == pytest.approx(3.9)
    session.hear(second[:0], None)
    session.note([EventChange("begin", "low", 3.0, 0.9), EventChange("end", "low", 3.5, 0.9)])
    assert session.events[0] == [6.9, 7.4, "low"]


def test_what_comes_after_the_end_is_not_heard(tag, monkeypatch):
    clock = {"now": 100.0}
    monkeypatch.setattr(app.time, "monotonic", lambda: clock["now"])
    session = app.LiveSession(tag, 16000)
    time = np.arange(16000) / 16000
    second = (8000 * np.sin(2 * np.pi * 200 * time)).astype(np.int16)
    play(session, second, clock)
    session.finish()
    events = [list(row) for row in session.events]
    assert events
    assert all(end is not None for _, end, _ in events)
    play(session, second[:4000], clock)
    session.finish()
    assert session.events == events
    assert not session.is_over()
    clock["now"] += 2.0
    assert session.is_over()


def test_a_window_of_the_live_tab_is_what_the_extractor_keeps(tag):
    tag.feature_extractor.truncation, tag.feature_extractor.max_length = True, 50
    assert app.LiveSession(tag, 16000).stream.window_frames == 50


def test_a_file_that_its_recorder_never_closed_is_tagged_without_a_picture(trained, clip_folder, tmp_path):
    """The pipeline mends its header; soundfile alone, by which the picture is drawn, finds no samples in it."""
    data = bytearray((clip_folder / "validation" / "low" / "2.wav").read_bytes())
    start = data.index(b"data") + 4
    data[4:8] = data[start : start + 4] = bytes(4)
    (tmp_path / "open.wav").write_bytes(data)
    page = app.build_app(pipeline("audio-tagging", model=str(trained), trust_remote_code=True), "model")
    (answer,) = (function.fn for function in page.fns.values() if function.name == "answer")
    labels, timeline, picture = answer(str(tmp_path / "open.wav"), 0.5, False)
    assert max(labels, key=labels.get) == timeline[0][2] == "low"
    assert picture is None


def test_a_missing_model_is_named(monkeypatch):
    monkeypatch.delenv("MODEL_ID", raising=False)
    monkeypatch.setattr(sys, "argv", ["app.py"])
    with pytest.raises(SystemExit, match="name a model"):
        runpy.run_path(str(SPACE), run_name="__main__")
