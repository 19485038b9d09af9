"""A run on photos of mixed sizes, to be exported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from evaluating import invoke
from photos import photo

CLASSES = ["blau", "grün", "rot"]


def remembered(export: Callable[..., bytes]) -> Callable[..., bytes]:
    """`onnx_of`, that keeps what it gave for the same weights, texts and options."""
    made: dict[tuple[Any, ...], bytes] = {}

    def of(predictor: Any, graph: Any, about: Any, *options: Any) -> bytes:
        weights = {name: values.cpu().numpy().tobytes() for name, values in graph.state_dict().items()}
        key = (*weights.items(), *about.to_texts().items(), *options)
        if key not in made:
            made[key] = export(predictor, graph, about, *options)
        return made[key]

    return of


def train_on_photos(base: Path) -> Path:
    """A run on 48 pictures of mixed sizes in three classes, six of them large JPEG files, below `base`/data."""
    for number in range(48):
        image = photo(number, 40 + number % 30, 70 - number % 23)
        if number % 8 == 5:
            image = image.resize((400, 300))  # more than six times as large as what evaluation sees of it
        pixels = image.point([min(value + 90 * (band == number % 3), 255) for band in range(3) for value in range(256)])
        file = base / "data" / CLASSES[number % 3] / f"{number:02d}.{'png' if number % 2 == 0 else 'jpg'}"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels.save(file)
    (base / "photos.yaml").write_text(
        f"data: {{name: image_folder, root: {base / 'data'}, size: [24, 20], validation: 0.3, interpolation: bicubic}}"
        "\n"
        "augmentation: [{name: random_resized_crop, scale: [0.5, 1.0]}]\n"
        "model: {name: convnet, widths: [8], activation: prelu}\n"
        "training: {epochs: 2, batch_size: 16, average: {name: ema, decay: 0.8}}\n"
    )
    result = invoke("fit", base / "photos.yaml", "--runs", base)
    assert result.exit_code == 0, result.stderr
    return base / "photos" / "001"
