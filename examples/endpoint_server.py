"""An ONNX classifier behind HTTP, in two protocols, for Sparring to attack.

    pip install fastapi uvicorn onnxruntime numpy
    python examples/endpoint_server.py model.onnx --port 9000

POST /predict takes {"inputs": [row, …]} and answers {"scores": [[…], …], "labels": […]}. The open inference protocol (v2) is
spoken under /v2/models/model. If TOKEN is in the environment, requests need `Authorization: Bearer TOKEN`.
"""

import argparse
import os
import secrets
from typing import Annotated, Any

import numpy as np
import onnxruntime
import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException
from pydantic import BaseModel, Field

NAME = "model"


class Rows(BaseModel):
    """What /predict takes."""

    inputs: list[Any]


class Tensor(BaseModel):
    """A tensor of the open inference protocol: numbers nested, or in one list."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


class Named(BaseModel):
    """An output that is asked for."""

    name: str


class Inference(BaseModel):
    """What the open inference protocol asks."""

    inputs: Annotated[list[Tensor], Field(min_length=1, max_length=1)]
    outputs: list[Named] = []


class Classifier:
    """The graph, and what its input wants. The scores are its last output of two dimensions."""

    def __init__(self, path: str) -> None:
        """Open a graph with one input."""
        self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (self.input,) = self._session.get_inputs()
        self.output = [output for output in self._session.get_outputs() if len(output.shape) == 2][-1]

    def scores(self, rows: Any) -> np.ndarray:
        """Scores (B, K) of rows in the shape that the graph wants, or in one that has as many numbers."""
        try:
            x = np.asarray(rows, dtype=np.float32)
            row = [size if isinstance(size, int) else -1 for size in self.input.shape[1:]]
            (found,) = self._session.run([self.output.name], {self.input.name: x.reshape(len(x), *row)})
        except (ValueError, TypeError, onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument) as error:
            raise HTTPException(422, f"rows must have the shape {self.input.shape[1:]}") from error
        return np.asarray(found)


def authorised(authorization: Annotated[str, Header()] = "") -> None:
    """401 without the token, where one is set."""
    wanted = f"Bearer {os.environ['TOKEN']}" if "TOKEN" in os.environ else ""
    if wanted and not secrets.compare_digest(authorization.encode(), wanted.encode()):
        raise HTTPException(401, "the Authorization header is missing or wrong")


def create_app(model: Classifier) -> FastAPI:
    """The two protocols around one classifier."""
    app = FastAPI(title="An endpoint to attack", dependencies=[Depends(authorised)])

    @app.post("/predict")
    def predict(rows: Rows) -> dict[str, Any]:
        scores = model.scores(rows.inputs)
        return {"scores": scores.tolist(), "labels": scores.argmax(1).tolist()}

    @app.get("/v2/health/ready")
    def ready() -> dict[str, bool]:
        return {"ready": True}

    @app.get(f"/v2/models/{NAME}")
    def metadata() -> dict[str, Any]:
        sides = {"inputs": model.input, "outputs": model.output}
        told = {side: [{"name": value.name, "datatype": "FP32", "shape": [-1, *value.shape[1:]]}] for side, value in sides.items()}
        return {"name": NAME, "platform": "onnxruntime", **told}

    @app.post(f"/v2/models/{NAME}/infer")
    def infer(asked: Inference) -> dict[str, Any]:
        (given,) = asked.inputs
        if given.name != model.input.name or any(output.name != model.output.name for output in asked.outputs):
            raise HTTPException(400, f"the input is {model.input.name}, the output {model.output.name}")
        scores = model.scores(np.asarray(given.data, dtype=np.float32).reshape(given.shape))
        output = {"name": model.output.name, "datatype": "FP32", "shape": list(scores.shape), "data": scores.ravel().tolist()}
        return {"model_name": NAME, "outputs": [output]}

    return app


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Serve an ONNX classifier over HTTP.")
    parser.add_argument("model", help="an .onnx file")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9000)
    given = parser.parse_args()
    uvicorn.run(create_app(Classifier(given.model)), host=given.host, port=given.port, access_log=False)


if __name__ == "__main__":
    main()
