# Upscales faces on a CPU: make wheel && docker build -t aminet-edge . && docker run --rm -v "$PWD:/data" aminet-edge infer face.png
FROM python:3.12-slim

COPY dist/*.whl /tmp/
RUN pip install --no-cache-dir --no-compile /tmp/*.whl && rm /tmp/*.whl \
    && find /usr/local/lib/python3.12/site-packages -type d -name tests -prune -exec rm -rf {} +

# The verdicts on the probes are kept in the home folder: mount one to keep them between runs.
RUN useradd --create-home user
USER user
WORKDIR /data
ENTRYPOINT ["aminet-edge"]
CMD ["--help"]
