"""Real-ESRGAN x4plus (Wang et al. 2021), the usual general-purpose upscaler, run by ncnn."""

from typing import Any, Self

import numpy as np

from aminet.pretrained import Pretrained, folder, read_pretrained
from runtime.errors import EXIT_MISSING, EdgeError
from runtime.image import Pixels, to_pixels, to_tensor

PARAM = Pretrained(
    "realesrgan-x4plus.param", "35330ececcea33b6c397a72548e788d5d53becee4734c50b7fada36e89f10a86"
)
WEIGHTS = Pretrained(
    "realesrgan-x4plus.bin", "713ee713b0353afaa27976f0563a64a5043bd70b9bd8936c2e26e25ebcdbcddf"
)


class RealESRGAN:
    """(H, W, 3) -> (4 H, 4 W, 3), uint8; on a CPU about a second for 32x32."""

    def __init__(self, ncnn: Any, network: Any) -> None:
        self.ncnn, self.network = ncnn, network

    @classmethod
    def load(cls) -> Self:
        """From the cache folder; EdgeError (status 5) without the files or ncnn."""
        try:
            import ncnn
        except ImportError as error:
            raise EdgeError(
                "Real-ESRGAN: ncnn not found; install it: pip install ncnn", EXIT_MISSING
            ) from error
        for file in (PARAM, WEIGHTS):
            read_pretrained(file)  # checks the hash
        network = ncnn.Net()
        network.load_param(str(folder() / PARAM.name))
        network.load_model(str(folder() / WEIGHTS.name))
        return cls(ncnn, network)

    def __call__(self, image: Pixels) -> Pixels:
        planes = to_tensor(image[None])[0]  # a Mat does not keep the array that it looks at
        extractor = self.network.create_extractor()
        extractor.input("data", self.ncnn.Mat(planes))
        _, output = extractor.extract("output")
        return to_pixels(np.array(output)[None])[0]
