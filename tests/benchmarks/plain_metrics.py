"""Alpha metrics the plain way, frame by frame in NumPy with OpenCV where it is installed, else with SciPy."""

import math

import numpy as np
from scipy import ndimage

try:
    import cv2
except ImportError:
    cv2 = None

NAMES = (
    "alpha_mad", "alpha_mse", "alpha_sad", "alpha_grad", "alpha_conn", "alpha_dtssd", "alpha_messddt", "alpha_psnr",
    "alpha_ssim",
)  # fmt: skip


def library():
    """What filters and labels the frames."""
    return f"OpenCV {cv2.__version__}" if cv2 is not None else "SciPy"


def gauss_kernels(sigma=1.4, cutoff=1e-2):
    """Two-dimensional first-order Gaussian derivative kernels of unit energy."""
    peak = math.sqrt(2 * math.pi) * sigma
    reach = math.ceil(sigma * math.sqrt(-2 * math.log(peak * cutoff)))
    offsets = np.arange(-reach, reach + 1)
    bell = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = np.outer(bell, -offsets * bell)
    kernel /= np.sqrt((kernel**2).sum())
    return kernel, kernel.T


def filtered(frame, kernel):
    if cv2 is not None:
        return cv2.filter2D(frame, -1, kernel, borderType=cv2.BORDER_REPLICATE)
    return ndimage.convolve(frame, kernel[::-1, ::-1], mode="nearest")


def gradient_error(pred, alpha, kernels):
    magnitudes = []
    for matte in (pred, alpha):
        low, high = matte.min(), matte.max()
        stretched = (matte - low) / (high - low) if high > low else np.zeros_like(matte)
        across, down = (filtered(stretched, kernel) for kernel in kernels)
        magnitudes.append(np.sqrt(across**2 + down**2))
    return ((magnitudes[0] - magnitudes[1]) ** 2).sum() / 1000


def regions(mask):
    """Labels of the 4-connected regions, and their sizes without the background's."""
    if cv2 is not None:
        _, labels, figures, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
        return labels, figures[1:, cv2.CC_STAT_AREA]
    labels, _ = ndimage.label(mask)
    return labels, np.bincount(labels.ravel())[1:]


def connectivity_error(pred, alpha):
    level = -np.ones_like(alpha)
    for step in range(1, 11):
        labels, sizes = regions((pred >= step / 10) & (alpha >= step / 10))
        largest = np.zeros(alpha.shape, dtype=bool)
        if len(sizes):
            largest = labels == 1 + np.argmax(sizes)
        level[(level == -1) & ~largest] = (step - 1) / 10
    level[level == -1] = 1
    phi = []
    for matte in (pred, alpha):
        excess = matte - level
        phi.append(1 - excess * (excess >= 0.15))
    return np.abs(phi[0] - phi[1]).sum() / 1000


def windowed(frame):
    """Gaussian mean in 11 x 11 pixels, where they fit."""
    if cv2 is None:
        return ndimage.gaussian_filter(frame, 1.5, truncate=3.5)[5:-5, 5:-5]
    bell = cv2.getGaussianKernel(11, 1.5)
    return cv2.filter2D(frame, -1, np.outer(bell, bell))[5:-5, 5:-5]


def ssim(pred, alpha):
    p, q = pred.astype(np.float64), alpha.astype(np.float64)
    mean_p, mean_q = windowed(p), windowed(q)
    var_p, var_q = windowed(p * p) - mean_p**2, windowed(q * q) - mean_q**2
    cov = windowed(p * q) - mean_p * mean_q
    c1, c2 = 0.01**2, 0.03**2
    above = (2 * mean_p * mean_q + c1) * (2 * cov + c2)
    return (above / ((mean_p**2 + mean_q**2 + c1) * (var_p + var_q + c2))).mean()


def plain_metrics(preds, alphas):
    """Figures of every frame.

    Args:
        preds, alphas: frames, (T, H, W) float32, [0, 1].

    Returns:
        (T, len(NAMES)) float64.
    """
    kernels, rows, last = gauss_kernels(), [], None
    for pred, alpha in zip(preds, alphas, strict=True):
        error = pred - alpha
        last = error if last is None else last
        mse = np.mean(error**2)
        rows.append([
            1e3 * np.abs(error).mean(),
            1e3 * mse,
            np.abs(error).sum() / 1000,
            gradient_error(pred, alpha, kernels),
            connectivity_error(pred, alpha),
            1e2 * np.sqrt(np.mean((error - last) ** 2)),
            1e3 * np.mean(np.abs(error**2 - last**2)),
            -10 * np.log10(mse),
            ssim(pred, alpha),
        ])  # fmt: skip
        last = error
    return np.array(rows)
