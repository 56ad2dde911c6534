"""The frames of a clip that are wanted, by torchcodec: on a CPU, or on a GPU's own decoder (NVDEC).

On a CPU it gives the bytes that `decoder` gives, for the clips that it takes here.
"""

from contextlib import nullcontext
from typing import Any

import torch

from featx.data.media.decoder import Choose, Decoded, Make
from featx.data.media.survey import ClipSurvey, OpenClip, refuse_clip
from featx.data.storage import Content, Source
from featx.errors import MissingDependencyError, first_line

try:
    from torchcodec.decoders import VideoDecoder

    try:
        VideoDecoder(b"")  # it loads FFmpeg now, and not on import; then it refuses no bytes
    except (RuntimeError, ValueError) as error:
        if "libtorchcodec" in str(error):
            raise
except (ImportError, RuntimeError, ValueError) as error:  # there is none; or no FFmpeg for it
    raise MissingDependencyError(
        f"decoder: expected torchcodec and the FFmpeg of the system, found: {first_line(error)}. "
        "Install both, such as by pip install torchcodec and apt install ffmpeg; or set decoder "
        "to pyav."
    ) from error

# Elsewhere, times of packets do not tell which frame is which; torchcodec then takes others.
_CONTAINERS = {"mov", "matroska"}
# Whose decoders are exact: those of others differ by a level or two between releases of FFmpeg.
_CODECS = {"h264", "hevc", "vp8", "vp9", "av1", "libdav1d"}
_AT_ONCE = 4  # frames of a clip's own size in memory
_REFUSED = (RuntimeError, ValueError, IndexError)  # torchcodec's; then PyAV says what is wrong


def decode(
    clip: OpenClip, survey: ClipSurvey, choose: Choose, make: Make, device: torch.device
) -> Decoded | None:
    """Decode the frames that are wanted, and make something of each.

    Unlike `decoder.decode`, it does not see what is damaged within a frame.

    Args:
        clip: The clip.
        survey: What it holds.
        choose: Tells which frames are wanted.
        make: Makes something of each, on the device.
        device: Where to decode.

    Returns:
        The frames, on the CPU; None for clips that torchcodec does not take, or not rightly: of
        containers without exact times, mirrored, damaged, or cut between two key frames.
    """
    is_sound = survey.begins and not survey.damage
    if not is_sound or survey.container not in _CONTAINERS or survey.codec not in _CODECS:
        return None
    timeline = clip.timeline
    wanted = sorted({*choose(timeline)})
    frames: list[torch.Tensor] = []
    # On a stream of its own, so that a copy to the CPU does not wait for the CNN.
    new_stream: Any = torch.cuda.Stream
    on_cuda = device.type == "cuda"
    try:
        with torch.cuda.stream(new_stream(device)) if on_cuda else nullcontext():
            try:
                decoder = VideoDecoder(_choose_input(clip.source), device=device)
            except torch.OutOfMemoryError:
                raise
            except _REFUSED:
                return None
            # Of a display matrix, it knows the angle, but not whether it mirrors.
            if len(decoder) != survey.num_packets or decoder.metadata.rotation is not None:
                return None
            for start in range(0, len(wanted), _AT_ONCE):
                try:
                    images = decoder.get_frames_at(wanted[start : start + _AT_ONCE]).data
                except torch.OutOfMemoryError:
                    raise
                except _REFUSED:
                    return None
                frames += torch.stack([make(image) for image in images]).cpu()
    except torch.OutOfMemoryError as error:
        raise refuse_clip(clip.source, error) from MemoryError(first_line(error))
    return Decoded(dict(zip(wanted, frames, strict=True)), timeline)


def _choose_input(source: Source) -> Any:  # noqa: ANN401  # of several kinds
    """Return what torchcodec reads a clip from."""
    if isinstance(source, Content):
        return source.data if isinstance(source.data, bytes) else source.open()
    return str(source)
