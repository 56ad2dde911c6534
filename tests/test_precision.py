"""TF32 is on or off while featx computes, and as it was afterwards."""

import subprocess
import sys

import pytest

_CODE = """
import torch
from torch import backends
from featx.backbones.runtime import float32_precision

def show():
    operations = (backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul,
                  backends.mkldnn.conv, backends.mkldnn.matmul)
    shown = [operation.fp32_precision for operation in operations]
    for read in (lambda: backends.cudnn.allow_tf32, torch.get_float32_matmul_precision):
        try:
            shown.append(read())
        except RuntimeError:
            shown.append("no value")
    return shown

{before}
before = show()
for allow in (False, True, False):
    with float32_precision(allow):
        inside = [operation == "tf32" for operation in show()[:3]]
        assert inside == [allow] * 3, (allow, show())
        if not allow:
            assert {{*show()[3:5]}} <= {{"ieee", "none"}}
        assert backends.cudnn.allow_tf32 == allow  # the compiler asks for it
        assert backends.cuda.matmul.allow_tf32 == allow
    assert show() == before, (before, show())
"""

SETTINGS = {
    "torch's own": "",
    "the old names": "backends.cudnn.allow_tf32 = False",
    "as Lightning advises": "torch.set_float32_matmul_precision('high')",
    "coarser": "torch.set_float32_matmul_precision('medium')",
    "a new name": "backends.cudnn.conv.fp32_precision = 'ieee'",
}


@pytest.mark.parametrize("before", SETTINGS)
def test_settings_come_back(before: str) -> None:
    """Both the old and the new names, whichever the process has used."""
    code = _CODE.format(before=SETTINGS[before])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stderr, done.returncode) == ("", 0)
