# striate serve in a container: docker build -t striate . && docker run -p 8500:8500 -p 8501:8501 striate
FROM python:3.12-slim AS build
WORKDIR /source
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev make
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY native native
COPY src src
COPY saved_models/squeezenet1_1 saved_models/squeezenet1_1
RUN python -m venv /striate && /striate/bin/pip install --no-cache-dir .

FROM python:3.12-slim
RUN useradd --create-home --uid 10001 striate
COPY --from=build /striate /striate
COPY --chown=striate saved_models/squeezenet1_1 /models/squeezenet1_1
USER 10001
ENV PATH=/striate/bin:$PATH PYTHONUNBUFFERED=1
EXPOSE 8500 8501
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
  CMD ["python", "-m", "striate.serve.alive"]
ENTRYPOINT ["striate", "serve"]
CMD ["/models", "--port", "8500", "--rest_api_port", "8501"]
