import pytest

from saepd.common.errors import InputError
from saepd.directions.latent_specs import LatentSpec, parse_latents


def test_latents_are_read_as_they_are_written():
    assert parse_latents(["1203=4", "15:88=-2.5", "10:88=1e1"], "add") == [
        LatentSpec(None, 1203, 4.0),
        LatentSpec(15, 88, -2.5),
        LatentSpec(10, 88, 10.0),
    ]
    assert parse_latents(["3", "15:3"], "ablate") == [
        LatentSpec(None, 3, None),
        LatentSpec(15, 3, None),
    ]


@pytest.mark.parametrize(
    ("texts", "mode", "said"),
    [
        (["x"], "add", "'x' names no latent: write LATENT=VALUE"),
        (["15:"], "add", "names no latent"),
        (["-3=1"], "add", "names no latent"),
        (["15:1:2=3"], "add", "names no latent"),
        (["9" * 5000 + "=1"], "add", "names no latent"),
        (["3"], "clamp", "'3' has no value, and mode 'clamp' needs one: write 3=VALUE"),
        (["3=1"], "ablate", "mode 'ablate' sets latents to zero: write 3 alone"),
        (["3=much"], "scale", "the value of '3=much' is no number: write 3=4"),
        (["3=inf"], "add", "the value of '3=inf' is inf: it must be a finite number"),
        (["3=1", "15:3=1", "3=2"], "add", "latent 3 is named twice"),
        (["15:3=1", "15:03=2"], "add", "latent 15:03 is named twice"),
    ],
)
def test_what_is_no_latent_is_refused(texts, mode, said):
    with pytest.raises(InputError) as caught:
        parse_latents(texts, mode)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 300
