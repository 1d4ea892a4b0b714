"""Whether this machine has a Vulkan device, for tests that need one."""

import subprocess
import sys

import pytest

# In a process of its own: a driver may crash, and whoever forks must not have started it.
_LOOK = [sys.executable, "-c", "import ncnn, sys; sys.exit(ncnn.get_gpu_count() == 0)"]

needs_vulkan = pytest.mark.skipif(
    subprocess.run(_LOOK, capture_output=True, check=False).returncode != 0,
    reason="needs a Vulkan device (on Debian: apt-get install mesa-vulkan-drivers libvulkan1)",
)

NO_DEVICE = {"VK_DRIVER_FILES": "/nowhere", "VK_ICD_FILENAMES": "/nowhere"}
"""Environment in which a machine has no Vulkan device, by the two names that Vulkan's loader knows."""
