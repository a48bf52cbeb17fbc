"""`striate.preprocess.pixels` once more, as a TensorFlow graph, for servers that run no Python.

TensorFlow's own resize rounds differently from Pillow's, and a classifier notices. Pillow resizes
8-bit pictures in integers: per output pixel a window of filter weights in fixed point (22 bits),
the horizontal pass rounded to 8 bits, then the vertical one. float64 holds those integers exactly,
so two matrix products per picture reproduce it bit for bit (a test holds the two together).

What the graph cannot do: EXIF orientation, CMYK JPEG, TIFF, GIFs that are transparent, which
TensorFlow lays over black. The host-side function does them.
"""

import math

from striate.preprocess import Preprocess

FIXED_POINT = float(1 << 22)


def pixels_function(spec: Preprocess):
    """A function string [N] of encoded pictures -> uint8 [N, H, W, C], as `pixels` gives them."""
    import tensorflow as tf

    def one(encoded):
        return tf.ensure_shape(_fit(_decode(encoded, spec), spec), spec.shape)

    signature = tf.TensorSpec(spec.shape, tf.uint8)
    return lambda encoded: tf.map_fn(one, encoded, fn_output_signature=signature)


def _decode(encoded, spec: Preprocess):
    """Encoded bytes -> uint8 [h, w, C]: RGB over the background, grey by Pillow's weights."""
    import tensorflow as tf

    start = tf.strings.substr(encoded, 0, 4)

    def jpeg():
        return tf.io.decode_jpeg(
            encoded, channels=3, dct_method="INTEGER_ACCURATE", fancy_upscaling=True
        )

    def png():
        return _over_background(_decode_png(encoded), spec.background)

    def webp():
        found = tf.io.decode_image(encoded, expand_animations=False)  # 3 channels, or 4
        covered = tf.shape(found)[-1] == 4
        return tf.cond(covered, lambda: _over_background(found, spec.background), lambda: found)

    def other():
        return tf.io.decode_image(encoded, channels=3, expand_animations=False)

    rgb = tf.case(
        [
            (tf.strings.substr(encoded, 0, 2) == b"\xff\xd8", jpeg),
            (start == b"\x89PNG", png),
            (start == b"RIFF", webp),
        ],
        default=other,
    )
    rgb = tf.ensure_shape(rgb, (None, None, 3))
    return rgb if spec.channels == 3 else _grey(rgb)


def _decode_png(encoded):
    """A PNG as RGBA. Where one of fewer than 8 bits has no opacity, TensorFlow fills in the highest
    level of those bits, which of 8 bits is next to nothing."""
    import tensorflow as tf

    rgba = tf.io.decode_png(encoded, channels=4)
    head = tf.strings.join([tf.strings.substr(encoded, 0, 25), b"\0" * 25])  # also of a short file
    bits = tf.cast(tf.io.decode_raw(tf.strings.substr(head, 24, 1), tf.uint8)[0], tf.int32)
    filled = tf.cast(tf.bitwise.left_shift(1, tf.minimum(bits, 8)) - 1, tf.uint8)
    opacity = rgba[..., 3:]
    opaque = tf.reduce_all(opacity == filled)
    full = tf.fill(tf.shape(opacity), tf.constant(255, tf.uint8))
    return tf.concat([rgba[..., :3], tf.where(opaque, full, opacity)], -1)


def _over_background(rgba, background: int):
    """Alpha compositing over an opaque grey, in the integers of Pillow's `alpha_composite`."""
    import tensorflow as tf

    levels = tf.cast(rgba, tf.int32)
    cover = levels[..., 3:] * 128
    blended = levels[..., :3] * cover + background * (255 * 128 - cover) + (0x80 << 7)
    return tf.cast(((blended // 256 + blended) // 256) // 128, tf.uint8)


def _grey(rgb):
    """ITU-R 601 luma in 16-bit fixed point, as Pillow converts to `L`."""
    import tensorflow as tf

    weights = tf.constant([19595, 38470, 7471], tf.int32)
    total = tf.reduce_sum(tf.cast(rgb, tf.int32) * weights, axis=-1, keepdims=True)
    return tf.cast((total + 0x8000) // 0x10000, tf.uint8)


def _fit(image, spec: Preprocess):
    """uint8 [h, w, C] -> uint8 [H, W, C] by the specification's `fit`."""
    import tensorflow as tf

    size = tf.cast(tf.shape(image)[:2], tf.float64)
    height, width = size[0], size[1]
    if spec.fit == "pad":
        return _letterbox(image, height, width, spec)
    if spec.fit == "crop":
        kept = tf.constant(spec.crop, tf.float64)
        shrink = kept * tf.minimum(width / spec.width, height / spec.height)
        box_width, box_height = spec.width * shrink, spec.height * shrink
    else:
        box_width, box_height = width * spec.crop, height * spec.crop
    left, top = (width - box_width) / 2, (height - box_height) / 2
    columns = (tf.maximum(left, 0), tf.minimum(left + box_width, width))
    rows = (tf.maximum(top, 0), tf.minimum(top + box_height, height))
    return _resize(image, rows, spec.height, columns, spec.width, spec)


def _letterbox(image, height, width, spec: Preprocess):
    import tensorflow as tf

    factor = tf.minimum(spec.width / width, spec.height / height)
    inner_width = tf.clip_by_value(tf.round(width * factor), 1, spec.width)
    inner_height = tf.clip_by_value(tf.round(height * factor), 1, spec.height)
    inner_width, inner_height = tf.cast(inner_width, tf.int32), tf.cast(inner_height, tf.int32)
    zero = tf.zeros([], tf.float64)
    inner = _resize(image, (zero, height), inner_height, (zero, width), inner_width, spec)
    left, top = (spec.width - inner_width) // 2, (spec.height - inner_height) // 2
    around = [
        [top, spec.height - inner_height - top],
        [left, spec.width - inner_width - left],
        [0, 0],
    ]
    return tf.pad(inner, around, constant_values=spec.background)


def _resize(image, rows, height, columns, width, spec: Preprocess):
    """Resample the box rows x columns of an image to height x width: across, round, down, round."""
    import tensorflow as tf

    across = _weights(columns, tf.shape(image)[1], width, spec.interpolation)
    down = _weights(rows, tf.shape(image)[0], height, spec.interpolation)
    half_way = _round(tf.einsum("hwc,ow->hoc", tf.cast(image, tf.float64), across))
    return tf.cast(_round(tf.einsum("hoc,ph->poc", half_way, down)), tf.uint8)


def _round(total):
    import tensorflow as tf

    return tf.clip_by_value(tf.floor((total + FIXED_POINT / 2) / FIXED_POINT), 0, 255)


def _weights(interval, in_size, out_size, interpolation: str):
    """The [out, in] matrix of fixed-point filter weights that resamples an interval to out_size."""
    import tensorflow as tf

    first, last = (tf.cast(edge, tf.float32) for edge in interval)  # Pillow keeps boxes as float
    scale = tf.cast(last - first, tf.float64) / tf.cast(out_size, tf.float64)
    first = tf.cast(first, tf.float64)
    if interpolation == "nearest":
        return _nearest(first, scale, in_size, out_size)
    kernel, support = _KERNELS[interpolation]
    in_float, out_float = tf.cast(in_size, tf.float64), tf.cast(out_size, tf.float64)
    stretch = tf.maximum(scale, 1)  # shrinking widens the filter: that is the antialiasing
    reach = support * stretch
    centres = first + (tf.range(out_float, dtype=tf.float64) + 0.5) * scale
    begin = tf.maximum(tf.floor(centres - reach + 0.5), 0)[:, tf.newaxis]
    end = tf.minimum(tf.floor(centres + reach + 0.5), in_float)[:, tf.newaxis]
    source = tf.range(in_float, dtype=tf.float64)[tf.newaxis]
    distance = (source - centres[:, tf.newaxis] + 0.5) * (1 / stretch)
    inside = (source >= begin) & (source < end)
    weights = tf.where(inside, kernel(distance), tf.zeros([], tf.float64))
    weights = weights / tf.reduce_sum(weights, axis=1, keepdims=True)
    scaled = weights * FIXED_POINT
    return tf.where(scaled < 0, tf.math.ceil(scaled - 0.5), tf.floor(scaled + 0.5))


def _nearest(first, scale, in_size, out_size):
    """The same matrix where each pixel is the one that its centre lies in.

    Pillow adds the steps up, and so does this: a product would round some centres otherwise.
    """
    import tensorflow as tf

    centres = tf.cumsum(tf.concat([[first + scale * 0.5], tf.fill([out_size - 1], scale)], axis=0))
    pixels = tf.minimum(tf.cast(centres, tf.int32), in_size - 1)
    return tf.one_hot(pixels, in_size, on_value=FIXED_POINT, off_value=0.0, dtype=tf.float64)


def _triangle(x):
    import tensorflow as tf

    return tf.maximum(1 - tf.abs(x), 0)


def _cubic(x):
    """Keys' cubic with a = -0.5."""
    import tensorflow as tf

    x = tf.abs(x)
    near = ((1.5 * x) - 2.5) * x * x + 1
    far = -0.5 * (((x - 5) * x + 8) * x - 4)
    return tf.where(x < 1, near, tf.where(x < 2, far, tf.zeros_like(x)))


def _lanczos(x):
    """The sinc, windowed by the middle of one three times as wide."""
    import tensorflow as tf

    inside = (x >= -3) & (x < 3)
    return tf.where(inside, _sinc(x) * _sinc(x / 3), tf.zeros_like(x))


def _sinc(x):
    import tensorflow as tf

    angle = tf.where(x == 0, tf.ones_like(x), x * math.pi)  # nothing is divided by 0
    return tf.where(x == 0, tf.ones_like(x), tf.sin(angle) / angle)


_KERNELS = {"bilinear": (_triangle, 1.0), "bicubic": (_cubic, 2.0), "lanczos": (_lanczos, 3.0)}
