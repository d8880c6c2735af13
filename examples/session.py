"""Upscale face.png through a verified session, and show what runs."""

from PIL import Image

from runtime.session import open_session

with open_session("artifacts/aminet-edge") as session:  # a folder: the fastest that passes
    upscaled = session.upscale(Image.open("face.png"))
    print(f"{session.artifact} in {session.backend}: {session.verdict.fidelity_db:.1f} dB to FP32")
upscaled.save("face_sr.png")
