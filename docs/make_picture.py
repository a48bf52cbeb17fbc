"""Draw docs/picture.png, the picture of the README, from pictures that ship and from a real run.

    striate quickstart /tmp/quickstart --json > /tmp/quickstart.json
    python docs/make_picture.py /tmp/quickstart.json picture.html
    chromium --headless --no-sandbox --hide-scrollbars --window-size=1200,540 \\
        --force-device-scale-factor=2 --screenshot=docs/picture.png picture.html
"""

import base64
import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FURNITURE = ROOT / "src" / "striate" / "samples" / "furniture"
SHOWN = ["chair", "lamp", "plant", "sofa", "vehicle", "vessel", "table", "bed", "cabinet"]

STYLE = """
body { margin: 0; width: 1200px; height: 540px; background: #fbfaf6; color: #22262a;
       font: 17px/1.45 'DejaVu Sans', sans-serif; }
main { display: grid; grid-template-columns: 300px 1fr 440px; gap: 44px; padding: 44px 48px; }
h2 { font: 600 20px/1.2 'DejaVu Serif', serif; margin: 0 0 14px; }
.folder { display: grid; grid-template-columns: repeat(3, 1fr); gap: 8px; }
.folder img { width: 100%; background: #fff; border: 1px solid #dcd8cd; border-radius: 5px; }
code, pre { font: 15px/1.6 'DejaVu Sans Mono', monospace; }
pre { margin: 0; } .arrow { color: #0f6b77; font-weight: 700; }
.card { background: #fff; border: 1px solid #dcd8cd; border-radius: 8px; padding: 14px 16px;
        margin-bottom: 14px; }
.card b { color: #0f6b77; } .dim { color: #767c80; } table { border-spacing: 0; width: 100%; }
td { padding: 2px 0; } td:last-child { text-align: right; }
footer { padding: 0 48px; margin-top: -30px; color: #767c80; font-size: 14px; }
"""


def image(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="">'


def page(run: dict) -> str:
    steps = {step["step"].split()[0].strip(":,"): step for step in run["steps"]}
    found, exported, served = run["evaluation"], steps["Export"], steps["Serve"]
    low, high = found["intervals"]["accuracy"]
    pictures = "".join(image(sorted((FURNITURE / kind).glob("*.png"))[5]) for kind in SHOWN)
    rows = "".join(
        f"<tr><td>{name}</td><td class=dim>{exported[form].split(', ')[2].split(' by ')[0]}"
        "</td></tr>"
        for name, form in (("SavedModel", "saved_model"), ("ONNX", "onnx"), ("LiteRT", "litert"))
    )
    return f"""<!doctype html><meta charset="utf-8"><style>{STYLE}</style><main>
<section><h2>A folder of pictures</h2><div class="folder">{pictures}</div>
<p class="dim">my_pictures/chair/1.png<br>my_pictures/chair/2.png<br>my_pictures/lamp/1.png ...</p>
</section>
<section><h2>becomes one artifact</h2>
<div class="card"><pre><span class="arrow">$</span> striate finetune \\
    squeezenet1_1 \\
    --data my_pictures/ \\
    -o saved_models/mine</pre></div>
<div class="card"><pre>saved_models/mine/1/
  striate.json
  model.keras
  saved_model.pb  variables/
  model.onnx
  model.tflite
  assets/labels.txt
  assets.extra/goldens.npz</pre></div></section>
<section><h2>that answers the same everywhere</h2>
<div class="card"><b>accuracy</b> {found["accuracy"]:.1%} on {found["n"]} held out
<span class="dim">({low:.0%} to {high:.0%})</span></div>
<div class="card"><b>striate export</b> <span class="dim">against Keras</span>
<table>{rows}</table></div>
<div class="card"><b>striate serve</b> <span class="dim">TensorFlow Serving's protocol</span>
<table><tr><td>gRPC</td><td>{served["gRPC"]}</td></tr><tr><td>HTTP</td><td>{served["HTTP"]}</td></tr>
</table></div></section></main>
<footer>The numbers are those of one <code>striate quickstart</code>. Pictures: Sweet Home 3D
furniture libraries (CC0, CC-BY).</footer>"""


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(page(json.loads(Path(sys.argv[1]).read_text())))
