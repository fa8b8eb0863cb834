"""The one family of exceptions. Every message says what was wanted and what came."""

from __future__ import annotations


class FastfaceError(Exception):
    """Base of everything this package raises on purpose."""


class BadImage(FastfaceError):
    """An image or video could not be read, is too large, or has no usable pixels."""


class NoFaceFound(FastfaceError):
    """No face, or none that can be fitted: too small, cut by the border, turned away."""


class BadModelFile(FastfaceError):
    """A head model, fit or network file is damaged, hostile, or of another kind."""


class BadAffect(FastfaceError, ValueError):
    """An affect, coefficient vector or path is out of range, misnamed or not finite."""


class BadArgument(FastfaceError, ValueError):
    """An argument of a public function has the wrong type, shape or range."""


class ProviderUnavailable(FastfaceError):
    """A requested device or execution provider is not there."""


class WriteFailed(FastfaceError, OSError):
    """An output could not be written; nothing half-written was left behind."""


class DownloadFailed(FastfaceError, OSError):
    """A file could not be fetched, or what came is not what was expected."""
