"""Print the oldest versions that pyproject.toml allows, as pip takes them: `NAME==VERSION`.

Of the packages that studies and reports need: torch, Ray and what goes with them are left out.
"""

import re
import sys
import tomllib
from pathlib import Path

LEFT_OUT = {"cmaes", "ray", "tensorboardX", "torch", "torchvision"}

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
for requirement in project["dependencies"]:
    name, oldest = re.findall(r"^([\w-]+).*>=([\w.]+)", requirement)[0]
    if name not in LEFT_OUT:
        sys.stdout.write(f"{name}=={oldest}\n")
