"""The servers that bench_serve.py compares with: the same graph, encoder and answer in each one's own words.

LitServe and BentoML are no part of this project; each runs in an environment of its own, made on request with the
versions named here. Every server has one worker and no access log.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Launch = Callable[[int], Any]

INCLUDE = Path(__file__).resolve().parents[2] / "include"
# What runs the graph is the same as in this project's lock.
_RUNTIME = ("onnxruntime==1.31.1", "numpy==2.4.6")
PEERS = {"litserve": ("litserve==0.2.19", *_RUNTIME), "bentoml": ("bentoml==1.4.39", *_RUNTIME)}
_QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

# The least that gives this answer: no check, no log, no metric, no split. `floor` does not even look at the request.
BARE_APP = """
import sys
import msgspec, numpy as np, onnxruntime as ort, uvicorn
folder, port, is_floor = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "floor"
class Split(msgspec.Struct):
    columns: list[str]
    data: list[list[float | str | None]]
class Body(msgspec.Struct):
    dataframe_split: Split
class Known(msgspec.Struct):
    numeric: list[str]
    categorical: list[str]
    vocabulary: dict[str, list[str]]
options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(f"{folder}/model.onnx", options, providers=["CPUExecutionProvider"])
known = msgspec.json.decode(open(f"{folder}/encoder.json", "rb").read(), type=Known)
index = [{value: i + 1 for i, value in enumerate(known.vocabulary[name])} for name in known.categorical]
decode, encode = msgspec.json.Decoder(Body).decode, msgspec.json.Encoder().encode
def score(split):
    at = {name: i for i, name in enumerate(split.columns)}
    rows = split.data
    numeric = np.array([[row[at[name]] for name in known.numeric] for row in rows], np.float32)
    places = [[of.get(row[at[name]], 0) for name, of in zip(known.categorical, index)] for row in rows]
    categorical = np.array(places, np.int64)
    return session.run(["score"], {"numeric": numeric, "categorical": categorical})[0].tolist()
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    body, has_more = b"", True
    while has_more:
        message = await receive()
        body, has_more = body + message.get("body", b""), message.get("more_body", False)
    data = b'{"predictions":[0.5]}' if is_floor else encode({"predictions": score(decode(body).dataframe_split)})
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(data))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": data})
uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False, loop="uvloop", http="httptools")
"""

FASTAPI_APP = """
import sys
import fastapi, numpy as np, onnxruntime as ort, pydantic, uvicorn
from clearway.packaging.encoder import Encoder
folder, port = sys.argv[1], int(sys.argv[2])
options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(f"{folder}/model.onnx", options, providers=["CPUExecutionProvider"])
encoder = Encoder.from_json(open(f"{folder}/encoder.json", "rb").read())
class Split(pydantic.BaseModel):
    columns: list[str]
    data: list[list[float | str | None]]
class Body(pydantic.BaseModel):
    dataframe_split: Split
class Answer(pydantic.BaseModel):
    predictions: list[float]
app = fastapi.FastAPI()
@app.post("/invocations")
async def invocations(body: Body) -> Answer:
    split = body.dataframe_split
    numeric, categorical = encoder.encode_rows([dict(zip(split.columns, row)) for row in split.data])
    (score,) = session.run(["score"], {"numeric": numeric, "categorical": categorical})
    return Answer(predictions=score.tolist())
uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)
"""

MLFLOW_MODEL = '''
"""The same encoder and graph behind MLflow's generic Python model."""
import mlflow, onnxruntime as ort
from clearway.packaging.encoder import Encoder

class Scores(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(context.artifacts["model"], options, providers=["CPUExecutionProvider"])
        self.encoder = Encoder.from_json(open(context.artifacts["encoder"], "rb").read())

    def predict(self, context, model_input, params=None):
        numeric, categorical = self.encoder.encode_rows(model_input.to_dict("records"))
        (score,) = self.session.run(["score"], {"numeric": numeric, "categorical": categorical})
        return score

mlflow.models.set_model(Scores())
'''

MLFLOW_SAVE = """
import sys, mlflow
folder = sys.argv[1]
artifacts = {"model": f"{folder}/model.onnx", "encoder": f"{folder}/encoder.json"}
code = f"{folder}/mlflow_model.py"
mlflow.pyfunc.save_model(f"{folder}/mlflow", python_model=code, artifacts=artifacts, pip_requirements=[])
"""

# What LitServe and BentoML share: score one decoded body.
SCORES = """
import os
import onnxruntime as ort
from clearway.packaging.encoder import Encoder
class Scores:
    def __init__(self):
        folder = os.environ["BENCH_FOLDER"]
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(f"{folder}/model.onnx", options, providers=["CPUExecutionProvider"])
        self.encoder = Encoder.from_json(open(f"{folder}/encoder.json", "rb").read())
    def __call__(self, splits):
        rows = [dict(zip(split["columns"], row)) for split in splits for row in split["data"]]
        numeric, categorical = self.encoder.encode_rows(rows)
        return self.session.run(["score"], {"numeric": numeric, "categorical": categorical})[0].tolist()
"""

LITSERVE_APP = """
import sys
import litserve
from scores import Scores
class Api(litserve.LitAPI):
    def setup(self, device):
        self.scores = Scores()
    def decode_request(self, request):
        return request["dataframe_split"]
    def predict(self, split):
        return self.scores(split) if isinstance(split, list) else self.scores([split])[0]
    def unbatch(self, output):
        return output
    def encode_response(self, output):
        return {"predictions": [output]}
if __name__ == "__main__":
    batch = {"max_batch_size": 16, "batch_timeout": 0.001} if sys.argv[2] == "batch" else {}
    server = litserve.LitServer(Api(api_path="/invocations", **batch), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False, access_log=False,
        log_level="warning")
"""

BENTOML_APP = """
import bentoml
from scores import Scores
@bentoml.service(workers=1, logging={"access": {"enabled": False}}, metrics={"enabled": False})
class Service:
    def __init__(self):
        self.scores = Scores()
    @bentoml.api(route="/invocations")
    def invocations(self, dataframe_split: dict) -> dict:
        return {"predictions": self.scores([dataframe_split])}
"""


def launch_bare(folder: Path, *, is_floor: bool = False) -> Launch:
    """A plain ASGI app on uvicorn."""
    kind = "floor" if is_floor else "model"
    return lambda port: subprocess.Popen([sys.executable, "-c", BARE_APP, str(folder), str(port), kind])


def launch_fastapi(folder: Path) -> Callable[[int], Any]:
    """pydantic in, pydantic out, uvicorn."""
    return lambda port: subprocess.Popen([sys.executable, "-c", FASTAPI_APP, str(folder), str(port)])


def launch_mlflow(folder: Path) -> Callable[[int], Any]:
    """`mlflow models serve` with one worker, no environment of its own."""
    (folder / "mlflow_model.py").write_text(MLFLOW_MODEL, encoding="utf-8")
    subprocess.run([sys.executable, "-c", MLFLOW_SAVE, str(folder)], check=True, **_QUIET)
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        str(folder / "mlflow"),
        "--env-manager",
        "local",
    ]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"}
    return lambda port: subprocess.Popen([*command, "-p", str(port), "-w", "1"], env=environment, **_QUIET)


def peer_python(name: str, folder: Path) -> Path:
    """The Python of a peer's environment in `folder`, made if it is not there."""
    home = folder / name
    python, done = home / "bin" / "python", home / "complete"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(home)], check=True)
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
        subprocess.run([*pip, *PEERS[name]], check=True)
        done.touch()
    return python


def launch_litserve(folder: Path, python: Path, *, kind: str) -> Launch:
    """One API process and one inference worker, as its documentation starts. `kind`: `single`, or `batch` for 16."""
    (folder / "scores.py").write_text(SCORES, encoding="utf-8")
    (folder / "lit.py").write_text(LITSERVE_APP, encoding="utf-8")
    values = _peer_variables(folder)
    return lambda port: subprocess.Popen([str(python), str(folder / "lit.py"), str(port), kind], env=values, **_QUIET)


def launch_bentoml(folder: Path, python: Path) -> Launch:
    """`bentoml serve` of one service with one worker."""
    (folder / "scores.py").write_text(SCORES, encoding="utf-8")
    (folder / "bento_scores.py").write_text(BENTOML_APP, encoding="utf-8")
    command = [str(python), "-m", "bentoml", "serve", "bento_scores:Service", "--host", "127.0.0.1"]
    values = _peer_variables(folder)
    return lambda port: subprocess.Popen([*command, "--port", str(port)], env=values, cwd=folder, **_QUIET)


def _peer_variables(folder: Path) -> dict[str, str]:
    own = {"BENCH_FOLDER": str(folder), "BENTOML_HOME": str(folder / "bentoml-home"), "BENTOML_DO_NOT_TRACK": "True"}
    return os.environ | own | {"PYTHONPATH": os.pathsep.join((str(INCLUDE), str(folder))), "OMP_NUM_THREADS": "1"}
