"""A training run: its folder, which no other run shares, and the checkpoints from which it goes
on."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.checkpoint import Checkpoint
from opt import TrainOptions
from utils.checkpoint import ensure_writable, require_other_file
from utils.errors import UserError
from utils.lock import lock
from utils.options import options_of

# they decide where, when and how fast a run is computed, or are compared by digest instead
HARMLESS = {
    *("resume", "device", "num_gpus", "num_nodes", "chunk", "cache_gb"),
    *("view", "host", "port"),
    *("ckpt_dir", "log_dir", "checkpoint_every", "val_every", "scene_name"),
    *("style_dir", "ckpt_path", "coarse_path", "fine_path", "decoder_weights"),
}
PATH_OPTIONS = {"root_dir", "vgg_weights"}
INPUTS = {
    "geometry": "--ckpt_path: another geometry",
    "painting": "--style_dir: another painting",
    "paintings": "--style_dir: other paintings",
    "decoder": "--decoder_weights: another decoder",
}
KEPT = 2  # the newest checkpoint, and the one before it in case the newest is damaged
LONGEST = 230  # bytes of a file name: systems allow 255, and a file is first written beside
_STEP_FILE = re.compile(r"step_(\d+)\.ckpt")

log = logging.getLogger(__name__)


class Run:
    """One training run, from its options.  Entered while it trains: that locks its folder.

    Two runs are the same if the options that decide the result, and the inputs, are.  Of several
    processes that train together one writes.

    Args:
        options: of the run.
        inputs: digests of what it is given, by name: "geometry", "painting".
    """

    def __init__(self, options: TrainOptions, inputs: Mapping[str, str] | None = None) -> None:
        self.options = options
        self.inputs = dict(inputs or {})
        self.directory = options.ckpt_dir / f"{options.prefix}_{options.stage}_{options.suffix}"
        self.leads = _leads()
        self._locks = ExitStack()
        self._replaced: list[Path] = []  # checkpoints of an earlier run

    @property
    def path(self) -> Path:
        """The finished field."""
        return self.options.ckpt_dir / f"{self.options.prefix}_{self.options.suffix}.ckpt"

    @property
    def network_paths(self) -> tuple[Path, Path]:
        """The coarse and the fine network of a finished hierarchical NeRF."""
        start = f"{self.options.prefix}_nerf"
        coarse, fine = (f"{start}_{n}_{self.options.suffix}.pt" for n in ("coarse", "fine"))
        return self.options.ckpt_dir / coarse, self.options.ckpt_dir / fine

    def __enter__(self) -> Run:
        """Raises a `UserError` where results cannot be written, would replace the run's own
        inputs, or another run is at work in the folder."""
        names = ("ckpt_path", "coarse_path", "fine_path", "style_dir", "vgg_weights")
        names += ("decoder_weights",)
        inputs = {name: getattr(self.options, name) for name in names}
        for output in (self.path, *self.network_paths):
            if len(os.fsencode(output.name)) > LONGEST:
                raise UserError(f"--prefix, --suffix: too long for a file name: {output.name}")
            require_other_file(output, inputs)
        ensure_writable(self.directory)
        if self.leads:  # a run of another stage may have the same name for its result
            for file in (self.directory / ".lock", self.path.with_name(f".{self.path.name}.lock")):
                self._lock(file)
        return self

    def __exit__(self, *_: object) -> None:
        self._locks.close()

    def _lock(self, file: Path) -> None:
        try:
            self._locks.enter_context(
                lock(
                    file,
                    f"{self.directory}: another run is training here, or towards {self.path}; wait "
                    "for its end, or give another --suffix or --ckpt_dir",
                )
            )
        except UserError:
            self._locks.close()
            raise

    def to_resume(self) -> tuple[Path, Checkpoint] | None:
        """With --resume the run's newest checkpoint that can be read, and its path; None where
        there is none.  Without, the checkpoints that an earlier run has left in the folder stay
        until this one has one of its own.

        Raises:
            UserError: the checkpoints are of another run, or none of them can be read.
        """
        paths = self._steps()
        if not self.options.resume:
            self._replace(paths)
            return None
        for path in reversed(paths):
            try:
                checkpoint = Checkpoint.read(path)
                if checkpoint.progress is None:
                    raise UserError(f"{path}: belongs to a finished run and cannot be continued")
            except UserError as error:
                log.warning("skipped: %s", error)
                reason = error
                continue
            if changed := self.changed(checkpoint):
                raise UserError(
                    f"{path}: belongs to another run: {'; '.join(changed)}; give the same options, "
                    "or start again without --resume"
                )
            return path, checkpoint
        if paths:
            raise UserError(
                f"{self.directory}: none of its checkpoints can be used; the oldest: {reason}"
            )
        if self.leads and not self.path.is_file():
            print(f"{self.directory}: no checkpoint to resume; starting anew")
        return None

    def finished(self) -> bool:
        """With --resume whether this very run has ended already, and says so.  For when there is
        no `to_resume`."""
        if not self.options.resume or not self.path.is_file():
            return False
        try:
            changed = self.changed(Checkpoint.read(self.path))
        except UserError as error:
            changed = [str(error)]
        if self.leads and not changed:
            print(f"{self.path}: finished already")
        elif self.leads:
            reason = "; ".join(changed)
            print(
                f"{self.path}: belongs to another run: {reason}; nothing to resume, starting anew"
            )
        return not changed

    def changed(self, checkpoint: Checkpoint) -> list[str]:
        """In what, in words, the run that wrote ``checkpoint`` was another one."""
        ours, saved = self.options.to_dict(), checkpoint.options
        items = options_of(type(self.options))
        parts, words = self.options.parts_of(self.options.stage), []
        for name, item in items.items():
            if name in HARMLESS or not item.read_by(parts):
                continue
            default = item.default
            before = saved.get(name, list(default) if isinstance(default, tuple) else default)
            if not _same(name, before, ours[name]):
                words.append(f"--{name} {ours[name]} was {before}")
        for name in self.inputs.keys() & checkpoint.inputs.keys():
            if self.inputs[name] != checkpoint.inputs[name]:
                words.append(INPUTS.get(name, f"another {name}"))
        return words

    def save(self, checkpoint: Checkpoint) -> None:
        """Writes the checkpoint of an unfinished run, in place of older ones."""
        if not self.leads:
            return
        path = self.directory / f"step_{checkpoint.progress.step}.ckpt"
        self._signed(checkpoint).write(path)
        _delete(set(self._replaced) - {path})
        self._replaced = []
        _delete(self._steps()[:-KEPT])
        _delete(self.directory.glob(".*.step_*.ckpt"))  # of writers that were killed

    def finish(self, checkpoint: Checkpoint) -> list[Path]:
        """Writes the finished field, a hierarchical NeRF also as a file for each network, and
        deletes the checkpoints that led there.

        Returns:
            The files.
        """
        if not self.leads:
            return []
        checkpoint, paths = self._signed(checkpoint), [self.path]
        checkpoint.write(self.path)
        if checkpoint.is_hierarchical:
            checkpoint.write_networks(*self.network_paths)
            paths += self.network_paths
        _delete(self._steps())
        return paths

    def _signed(self, checkpoint: Checkpoint) -> Checkpoint:
        """The checkpoint with what tells this run from others."""
        return replace(checkpoint, options=self.options.to_dict(), inputs=self.inputs)

    def _steps(self) -> list[Path]:
        """The run's checkpoints in the order of their steps, which is not that of their names."""
        found = [
            (int(match[1]), path)
            for path in (self.directory.iterdir() if self.directory.is_dir() else ())
            if (match := _STEP_FILE.fullmatch(path.name))
        ]
        return [path for _, path in sorted(found)]

    def _replace(self, paths: list[Path]) -> None:
        """Lets the checkpoints of an earlier run be deleted by the first `save`."""
        self._replaced = paths
        if paths and self.leads:
            print(
                f"{self.directory}: an earlier run stopped at {paths[-1].stem.replace('_', ' ')}; "
                "the first checkpoint of this one replaces it (--resume would continue it)"
            )


def _leads() -> bool:
    """Whether this process is the first of those that `torchrun` or Lightning started."""
    given = os.environ
    if "RANK" in given:
        return given["RANK"] == "0"
    return given.get("LOCAL_RANK", "0") == "0" and given.get("NODE_RANK", "0") == "0"


def _same(name: str, before: Any, now: Any) -> bool:
    """Whether an option has the value that it had."""
    if name in PATH_OPTIONS and isinstance(before, str) and isinstance(now, str):
        return Path(before).resolve() == Path(now).resolve()
    return before == now


def _delete(paths: Any) -> None:
    """What cannot be deleted stays: a run does not end for it."""
    for path in paths:
        with suppress(OSError):
            path.unlink(missing_ok=True)
