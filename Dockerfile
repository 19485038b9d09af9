# Serves an exported file, without torch:
#
#   docker build -t dltrain-serve .
#   docker run -p 8000:8000 -v "$PWD/model.onnx:/model.onnx:ro" dltrain-serve
#
# What `serve` imports comes first; then dltrain without its dependencies, most of which are for training.
FROM python:3.12-slim
RUN pip install --no-cache-dir numpy pillow pydantic pyyaml rich typer onnxruntime starlette uvicorn
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY dltrain dltrain
RUN pip install --no-cache-dir --no-deps . && rm -r /build/*
WORKDIR /
USER nobody
EXPOSE 8000
CMD ["dltrain", "serve", "/model.onnx", "--host", "0.0.0.0", "--port", "8000"]
