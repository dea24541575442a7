from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hwsearch.errors import DataError
from hwsearch.records import Conditions, LayerConfig, SamGeometry, SubnetConfig, Target
from hwsearch.report.page import ProfileRow, write_report
from hwsearch.results import Candidate, SearchResult

VOID = {"meta", "img", "br", "link"}
GEOMETRY = SamGeometry(
    model="custom",
    image_size=64,
    patch_size=16,
    embed_dim=32,
    depth=4,
    heads=2,
    mlp_width=64,
    window_size=4,
    global_layers=(1,),
    prompt_dim=16,
)


class Page(HTMLParser):
    """Checks that every element is closed in its turn, and keeps the text and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data + " "


def candidate(depth: int, miou: float, latency_ms: float | None) -> Candidate:
    layers = tuple(LayerConfig(index=i, mlp_width=48, heads=1) for i in range(depth))
    return Candidate(
        subnet=SubnetConfig(resolution=64, layers=layers),
        params=1_000_000 * depth,
        macs=2_000_000_000 * depth,
        miou=miou,
        miou_final=miou - 0.0111,
        predicted_ms=10.0 * depth,
        upper_ms=11.0 * depth,
        latency_ms=latency_ms,
    )


@pytest.fixture
def result() -> SearchResult:
    small, pick, largest = (
        candidate(1, 0.5, 10.25),
        candidate(2, 0.6543, 20.75),
        candidate(4, 0.7, 41.5),
    )
    return SearchResult(
        study="leaves <script>alert(1)</script>",
        supernet="demo & co",
        supernet_id="custom-1",
        target=Target(
            device="cpu",
            device_name="Xeon <fast>",
            runtime="onnxruntime",
            runtime_version="1.32",
            threads=2,
        ),
        weights_digest="0" * 16,
        max_views=48,
        seed=0,
        scope="full",
        target_latency_ms=22.0,
        data='leaves "and" nuclei',
        framing="object",
        split="val",
        final_split="test",
        trials=40,
        noise_floor_percent=0.8,
        predictor_model="ridge",
        predictor_mape_percent=2.25,
        largest=largest,
        front=(small, pick),
        pick=pick,
    )


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "leaf_<3>.png"
    noise = np.random.default_rng(0).integers(0, 255, (900, 1200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def render(result: SearchResult, out: Path, **changes: object) -> Page:
    arguments: dict[str, object] = {
        "geometry": GEOMETRY,
        "candidates": [*result.front, result.largest, candidate(3, 0.61, None)],
        "profile_rows": [ProfileRow("aa", 10.0, 11.0), ProfileRow("bb", 30.0, 27.0)],
        "predictor_card": "ridge <b>card</b>",
        "overlays": [],
        "conditions": None,
    }
    written = write_report(result, **(arguments | changes), out=out)
    assert written == out
    return Page(out.read_text(encoding="utf-8"))


def test_the_page_tells_what_was_asked_and_found(result: SearchResult, tmp_path: Path):
    page = render(result, tmp_path / "deep" / "report.html")
    for fact in (
        "22 ms",
        "20.75 ms",
        "41.50 ms",
        "0.6543",
        "0.6432",  # the pick's final mIoU
        "2.00 M",
        "8.00 G",
        "2.25 %",
        "0.80 %",
        "keeps 2 of 4 layers",
        "4.6 points of mIoU less",
        "2.0 × as fast",
        "50 % fewer",
        "a crop around each object",
        result.pick.subnet.id,
    ):
        assert fact in page.text, fact


def test_the_page_is_one_file_without_scripts_or_links(
    result: SearchResult, tmp_path: Path, picture: Path
):
    page = render(result, tmp_path / "report.html", overlays=[picture])
    tags = [tag for tag, _ in page.elements]
    assert "script" not in tags
    assert "link" not in tags
    sources = [attributes["src"] or "" for tag, attributes in page.elements if tag == "img"]
    assert len(sources) == 1
    assert sources[0].startswith("data:image/jpeg;base64,")
    assert (tmp_path / "report.html").stat().st_size < 1_000_000
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([picture.name, "report.html"])


def test_names_are_text_not_markup(result: SearchResult, tmp_path: Path, picture: Path):
    page = render(result, tmp_path / "report.html", overlays=[picture])
    for text in ("leaves <script>alert(1)", "Xeon <fast>", "ridge <b>card", "leaf_<3>"):
        assert text in page.text, text


def test_the_chart_shows_every_subnet(result: SearchResult, tmp_path: Path):
    page = render(result, tmp_path / "report.html")
    for row in [*result.front, result.largest]:
        assert (
            f"{row.subnet.id}: mIoU {row.miou:.4f}, {row.latency_ms:.2f} ms measured" in page.text
        )
    tried = candidate(3, 0.61, None)
    assert f"{tried.subnet.id}: mIoU 0.6100, 30.00 ms predicted" in page.text


def test_layers_are_listed_with_their_kind(result: SearchResult, tmp_path: Path):
    page = render(result, tmp_path / "report.html")
    words = page.text[page.text.index("Layers of the pick") :].split()
    table = words[: words.index("How")]
    assert table.count("kept") == 2
    assert table.count("left") == 2
    assert table.count("global") == 1
    assert table.count("48") == 2


def test_conditions_are_told_when_known(result: SearchResult, tmp_path: Path):
    conditions = Conditions(
        timestamp="2026-01-02T03:04:05Z", versions={"onnxruntime": "1.32"}, cpu="Xeon", cores=2
    )
    known = render(result, tmp_path / "known.html", conditions=conditions)
    assert "2026-01-02T03:04:05Z" in known.text
    assert "onnxruntime 1.32" in known.text
    assert "Governor" not in render(result, tmp_path / "unknown.html").text


def test_without_final_figures_the_search_split_is_compared(result: SearchResult, tmp_path: Path):
    bare = [row.model_copy(update={"miou_final": None}) for row in (result.pick, result.largest)]
    without = result.model_copy(update={"pick": bare[0], "largest": bare[1], "front": (bare[0],)})
    page = render(without, tmp_path / "report.html", profile_rows=[], predictor_card="")
    assert "than the largest subnet (val)" in page.text
    assert "card" not in page.text


def test_an_unreadable_overlay_leaves_no_page(result: SearchResult, tmp_path: Path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"broken\.png can't be read"):
        render(result, tmp_path / "report.html", overlays=[broken])
    assert not (tmp_path / "report.html").exists()
