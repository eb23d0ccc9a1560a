"""Whether Triton's kernels run in its interpreter, which needs no GPU."""

import os

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # Triton reads the same variable when it is imported
